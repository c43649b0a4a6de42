// The evaluation of reward models (prm.json): calibration, first errors, best of N.

const FORMS = {
  none: { label: "as they are", color: "--mcts" },
  temperature: { label: "by temperature", color: "--best_of_n" },
  platt: { label: "by Platt's form", color: "--control" },
};

const AGGREGATES = {
  last: { label: "last", color: "--mcts" },
  min: { label: "min", color: "--majority" },
  product: { label: "product", color: "--control" },
  mean: { label: "mean", color: "--best_of_n" },
  last_weighted: { label: "last and likelihood", color: "--greedy" },
};

const AIMS = { met: "good", missed: "bad", undecided: "open" };

function lookOf(table, name) {
  return table[name] || { label: words(name), color: "--quiet" };
}

function interval(row, digits = 3) {
  if (!row) return "–";
  return `${decimals(row.value, digits)} [${decimals(row.low, digits)}, ${decimals(row.high, digits)}]`;
}

function percents(row) {
  return row ? `${percent(row.value)} [${percent(row.low)}, ${percent(row.high)}]` : "–";
}

// Two lines of a cell: the value, and its interval below.
function estimateCell(row, text) {
  if (!row) return "–";
  return element("span", {}, text(row.value),
    element("span", { class: "under" }, `${text(row.low)} to ${text(row.high)}`));
}

function shareAxis(title, most = 1) {
  const to = Math.min(1, Math.max(0.1, most));
  const step = to > 0.5 ? 0.2 : to > 0.2 ? 0.1 : 0.05;
  const ticks = [];
  for (let i = 0; i * step <= to * 1.03; i += 1) ticks.push(i * step);
  return axis({
    range: [-0.03 * to, 1.03 * to], tickvals: ticks, ticktext: ticks.map((t) => `${Math.round(100 * t)} %`),
    title: { text: title, standoff: 8 },
  });
}

function chartLegend() {
  return { orientation: "h", x: 0, y: -0.22, yanchor: "top", itemsizing: "constant" };
}

// Reliability of one kind of steps, a line for each form of the scores.
function calibrationChart(id, steps, rows) {
  const most = 1.05 * Math.max(...rows.flatMap((r) => list(r.bins))
    .flatMap((b) => [b.predicted, b.high]).filter(known));
  return chart(id, `Reliability diagram, ${steps} steps`, () => {
    const traces = [{
      type: "scatter", mode: "lines", x: [0, 1], y: [0, 1], hoverinfo: "skip", showlegend: false,
      line: { color: css("--sample"), dash: "dash", width: 1.5 },
    }];
    for (const row of rows) {
      const look = lookOf(FORMS, row.form);
      const color = css(look.color);
      const bins = list(row.bins).filter((b) => known(b.predicted) && known(b.observed));
      const spans = bins.map((b) => ({ ...b, value: b.observed }));
      traces.push({
        type: "scatter", mode: "lines+markers", name: look.label, cliponaxis: false,
        x: bins.map((b) => b.predicted), y: bins.map((b) => b.observed),
        error_y: errorBars(spans, color), line: { color, width: row.form === "none" ? 2.5 : 1.5 },
        marker: { color, size: 7 }, hoverinfo: "text",
        hovertext: spans.map((b) => `${look.label}<br>predicted ${decimals(b.predicted, 3)}<br>`
          + `observed ${interval(b)}<br>${count(b.count)} steps`),
      });
    }
    return {
      traces,
      layout: baseLayout({
        height: 400, legend: chartLegend(), xaxis: shareAxis("predicted chance of success", most),
        yaxis: shareAxis("observed share of successes", most),
      }),
    };
  });
}

// One line for each aggregate of best of N: `x`, `y` of a row, drawn with the interval of `y`.
function aggregateTraces(rows, x, y, extra) {
  return [...new Set(rows.map((r) => r.aggregate))].map((name) => {
    const look = lookOf(AGGREGATES, name);
    const color = css(look.color);
    const line = rows.filter((r) => r.aggregate === name).sort((a, b) => a.n - b.n);
    const values = line.map((r) => y(r));
    return {
      type: "scatter", mode: "lines+markers", name: plain(look.label), cliponaxis: false,
      x: line.map(x), y: values.map((v) => v.value), line: { color, width: 2 },
      marker: { color, size: 6 }, hoverinfo: "text",
      hovertext: line.map((r) => [
        plain(`best of ${r.n} by ${look.label}`), `gold ${percents(r.gold)}`,
        `mean score of the chosen ${decimals(r.proxy.value, 3)}`,
        `uplift ${points(r.uplift.value)} [${points(r.uplift.low)}, ${points(r.uplift.high)}]`,
        `KL ${decimals(r.kl, 2)} nats`,
      ].join("<br>")),
      ...extra(values, color),
    };
  });
}

function sizeAxis(rows) {
  const sizes = [...new Set(rows.map((r) => r.n))].sort((a, b) => a - b);
  const reach = Math.log10(sizes[sizes.length - 1]);
  return axis({
    type: "log", range: [-0.04 * (reach || 1), reach * 1.03 + 0.02], tickvals: sizes,
    ticktext: sizes.map(String), title: { text: "N, samples a problem", standoff: 10 },
  });
}

function upliftChart(id, rows, passes, sampled) {
  return chart(id, "Best of N uplift over the accuracy of one sample", () => {
    const traces = aggregateTraces(rows, (r) => r.n, (r) => r.uplift, (values, color) => ({
      error_y: { ...errorBars(values, color), thickness: 0.8, width: 2 },
    }));
    traces.push({
      type: "scatter", mode: "lines", name: "pass@N (oracle)", x: passes.map((r) => r.n),
      y: passes.map((r) => r.solved.value - sampled), hoverinfo: "text",
      line: { color: css("--oracle"), dash: "dash", width: 2 },
      hovertext: passes.map((r) => `pass@${count(r.n)}<br>${percents(r.solved)}`),
    });
    const values = traces.flatMap((t) => t.y);
    const [low, high] = [Math.min(0, ...values), Math.max(0.05, ...values)];
    const step = high - low > 0.5 ? 0.2 : high - low > 0.25 ? 0.1 : 0.05;
    const ticks = [];
    for (let i = Math.floor(low / step); i * step <= high * 1.15; i += 1) ticks.push(i * step);
    return {
      traces,
      layout: baseLayout({
        height: 400, legend: chartLegend(), xaxis: sizeAxis(rows),
        yaxis: axis({
          range: [low * 1.15 - 0.01, high * 1.15], tickvals: ticks,
          ticktext: ticks.map((t) => points(t) || "0"),
          title: { text: "uplift, points", standoff: 8 },
        }),
      }),
    };
  });
}

function goldAndProxyChart(id, rows) {
  return chart(id, "Gold accuracy against the mean score of the chosen samples", () => ({
    traces: [
      {
        type: "scatter", mode: "lines", x: [0, 1], y: [0, 1], hoverinfo: "skip", showlegend: false,
        line: { color: css("--sample"), dash: "dash", width: 1.5 },
      },
      ...aggregateTraces(rows, (r) => r.proxy.value, (r) => r.gold, (values, color) => ({
        error_y: { ...errorBars(values, color), thickness: 0.8, width: 2 },
      })),
    ],
    layout: baseLayout({
      height: 400, legend: chartLegend(), xaxis: shareAxis("mean score of the chosen (proxy)"),
      yaxis: shareAxis("accuracy of the chosen (gold)"),
    }),
  }));
}

function divergenceChart(id, rows) {
  return chart(id, "Gold accuracy and mean score against KL", () => {
    const gold = aggregateTraces(rows, (r) => r.kl, (r) => r.gold, () => ({}));
    const proxy = aggregateTraces(rows, (r) => r.kl, (r) => r.proxy, (values, color) => ({
      mode: "lines", line: { color, width: 1.5, dash: "dot" }, showlegend: false,
    }));
    const most = Math.max(0.1, ...rows.map((r) => r.kl));
    return {
      traces: [...gold, ...proxy],
      layout: baseLayout({
        height: 400, legend: chartLegend(),
        xaxis: axis({
          range: [-0.02 * most, 1.03 * most],
          title: { text: "KL: log N − (N − 1)/N, nats", standoff: 10 },
        }),
        yaxis: shareAxis("gold (line), mean score (dots)"),
      }),
    };
  });
}

function calibrationTable(rows, aim, id) {
  const three = (value) => decimals(value, 3);
  return table([
    { head: "steps", name: true, cell: (r) => r.steps },
    { head: "scores", name: true, cell: (r) => element("span", {}, lookOf(FORMS, r.form).label,
      r.form === "none" ? null : element("span", { class: "under" },
        `scale ${decimals(r.scale)}, shift ${decimals(r.shift)}`)) },
    { head: "calibration error", number: true, cell: (r) => estimateCell(r.calibration_error, three) },
    { head: "biased", number: true, cell: (r) => three(r.calibration_error_raw) },
    { head: "Brier skill", number: true, cell: (r) => estimateCell(r.brier_skill, three) },
    { head: "of single outcomes", number: true,
      cell: (r) => estimateCell(r.brier_skill_outcomes, three) },
    { head: "n", number: true, cell: (r) => count(r.measured_on) },
    { head: `error ≤ ${decimals(aim.calibration_error)}, skill ≥ ${decimals(aim.brier_skill)}`,
      cell: (r) => pill(AIMS[r.aim] || "open", r.aim || "–") },
  ], rows, { id });
}

// How well scores tell apart the prefixes of one problem, for two truths, by depth.
function aurocTable(rows, id) {
  return table([
    { head: "truth", name: true, cell: (r) => r.truth },
    { head: "steps", name: true, cell: (r) => r.steps },
    { head: "from", cell: (r) => r.evidence },
    { head: "AUROC within problems", number: true,
      cell: (r) => estimateCell(r.auroc, (value) => decimals(value, 3)) },
    { head: "pairs", number: true, cell: (r) => count(r.pairs) },
    { head: "prefixes", number: true, cell: (r) => count(r.prefixes) },
    { head: "mean of the truth", number: true, cell: (r) => decimals(r.mean, 3) },
  ], rows, { id });
}

function aurocText() {
  return element("p", { class: "quiet" }, "AUROC by depth: the share of pairs of one problem whose scores have the right order. "
    + "Reach: the problem can still be solved from the prefix. Success: how often the policy solves "
    + "it from there. 0.5 is a coin.");
}

function firstErrorsTable(rows, id) {
  const left = (row) => Object.entries(row.left_out || {}).filter(([, n]) => n)
    .map(([why, n]) => `${count(n)} ${why}`).join(", ");
  return table([
    { head: "from", name: true, cell: (r) => r.source },
    { head: "first error", name: true, cell: (r) => r.truth },
    { head: "threshold", number: true, cell: (r) => decimals(r.threshold, 3) },
    { head: "found, of erroneous", number: true, cell: (r) => estimateCell(r.erroneous, percent) },
    { head: "left alone, of correct", number: true, cell: (r) => estimateCell(r.correct, percent) },
    { head: "F1", number: true, cell: (r) => estimateCell(r.f1, percent) },
    { head: "solutions", number: true, cell: (r) => element("span", {}, count(r.solutions),
      element("span", { class: "under" }, `${count(r.erroneous_solutions)} erroneous`)) },
    { head: "left out", cell: (r) => left(r) || "none" },
  ], rows, { id });
}

function overOptimisationTable(rows, id) {
  return table([
    { head: "score", name: true, cell: (r) => lookOf(AGGREGATES, r.aggregate).label },
    { head: "best N", number: true, cell: (r) => count(r.best_n) },
    { head: "largest N", number: true, cell: (r) => count(r.last_n) },
    { head: "largest − best", number: true,
      cell: (r) => (r.best_n === r.last_n ? "none" : estimateCell(r.last_minus_best, points)) },
  ], rows, { id });
}

function solvabilityText(row) {
  return element("p", {}, `By an exhaustive solver, apart from any policy, the target is in reach `
    + `after ${count(row.in_reach)} of ${count(row.prefixes)} prefixes: AUROC within a problem for `
    + `that ${interval(row.auroc)}; mean score in reach ${interval(row.score_in_reach)}, out of reach `
    + `${interval(row.score_out_of_reach)}; the policy's success rate in reach `
    + `${interval(row.success_in_reach)}.`);
}

function onePrmEvaluation(content, number) {
  const id = (name) => `${name}-${number}`;
  const quiet = (text) => element("p", { class: "quiet" }, text);
  const rows = list(content.calibration);
  const best = list(content.best_of_n);
  const parts = [
    quiet(`${count(content.problems)} ${content.split} problems; threshold, temperature and Platt's `
      + `form were fitted on ${count(content.fitting_problems)} ${content.fitting_split} problems.`),
    element("p", {}, `AUROC within a problem over ${count(content.prefixes)} non-terminal prefixes, `
      + `against success rates of ${count(content.rollouts)} rollouts each: `
      + `${interval(content.auroc)}. Mean success rate ${interval(content.success_rate)}.`),
  ];
  if (list(content.auroc_by_depth).length) {
    parts.push(aurocText(), aurocTable(list(content.auroc_by_depth), id("auroc-table")));
  }
  if (rows.length) {
    const kinds = [...new Set(rows.map((r) => r.steps))];
    parts.push(
      calibrationTable(rows, content.aim || {}, id("calibration-table")),
      element("div", { class: "two" }, ...kinds.map((kind, k) => element("div", {},
        quiet(`Reliability, ${kind} steps: bins of equal numbers, 95 % intervals.`),
        calibrationChart(id(`chart-calibration-${k}`), kind, rows.filter((r) => r.steps === kind))))),
    );
  }
  if (content.solvability) parts.push(solvabilityText(content.solvability));
  if (list(content.first_errors).length) {
    parts.push(quiet("First errors (ProcessBench's metric): a solution is called wrong at its first "
      + "step below the threshold. F1 is the harmonic mean of both accuracies."),
    firstErrorsTable(list(content.first_errors), id("first-errors-table")));
  }
  if (best.length) {
    const sampled = content.sample_accuracy || {};
    parts.push(
      quiet(`Best of N by the reward model, over all subsets of ${count(content.samples)} samples a `
        + `problem. One sample is right in ${percents(sampled)}. Where the chosen samples' score `
        + "rises while their accuracy does not, the reward model is over-optimised."),
      element("div", { class: "two" },
        upliftChart(id("chart-uplift"), best, list(content.pass_at_n), sampled.value || 0),
        goldAndProxyChart(id("chart-gold-proxy"), best)),
      element("div", { class: "two" }, divergenceChart(id("chart-kl"), best),
        overOptimisationTable(list(content.over_optimisation), id("over-optimisation-table"))),
    );
  }
  return parts;
}

// One line for each of several evaluations, which are folded below it.
function prmSummaryTable(contents) {
  const three = (value) => decimals(value, 3);
  const asTheyAre = (content, steps) => list(content.calibration)
    .find((r) => r.form === "none" && r.steps === steps);
  const kinds = [...new Set(contents.flatMap((c) => list(c.calibration)).map((r) => r.steps))];
  return table([
    { head: "stage", name: true, cell: (c) => words(c.stage) },
    { head: "AUROC within problems", number: true, cell: (c) => estimateCell(c.auroc, three) },
    { head: "mean success rate", number: true, cell: (c) => estimateCell(c.success_rate, three) },
    ...kinds.map((steps) => ({
      head: `calibration error, ${steps}`, number: true,
      cell: (c) => estimateCell(asTheyAre(c, steps)?.calibration_error, three),
    })),
    { head: "problems", number: true, cell: (c) => count(c.problems) },
  ], contents, { id: "prm-summary-table" });
}

function prmEvaluationSection(results) {
  const contents = list(results.prm_evaluations);
  if (!contents.length) return null;
  const title = (content) => `${words(content.stage)}: ${content.reward_model}`;
  if (contents.length === 1) {
    return [element("h3", {}, title(contents[0])), ...onePrmEvaluation(contents[0], 0)];
  }
  return [
    prmSummaryTable(contents),
    ...contents.map((content, i) => folded(title(content), onePrmEvaluation(content, i))),
  ];
}
