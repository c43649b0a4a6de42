// What learners made of what they sampled, and PPO cycle by cycle.

const HUES = ["--mcts", "--majority", "--oracle", "--control", "--best_of_n", "--greedy", "--sample"];
const ROUNDS = [["solid", "circle"], ["dash", "square"], ["dot", "triangle-up"]];

function lookAt(index) { // colours first, then dashes and marks
  const [dash, symbol] = ROUNDS[Math.floor(index / HUES.length) % ROUNDS.length];
  return { color: css(HUES[index % HUES.length]), dash, symbol };
}

function tokensAxis(most) {
  const unit = most >= 2e6 ? [1e6, "million tokens"] : most >= 2e3 ? [1e3, "thousand tokens"] : [1, "tokens"];
  const high = Math.max(most / unit[0], 1e-9);
  const rough = high / 6;
  const scale = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((s) => s * scale).find((s) => s >= rough);
  const ticks = [];
  for (let i = 0; i * step <= high * 1.05; i += 1) ticks.push(i * step);
  return axis({
    range: [-0.03 * most, 1.06 * Math.max(most, 1)], tickvals: ticks.map((t) => t * unit[0]),
    ticktext: ticks.map((t) => String(+t.toPrecision(3))),
    title: { text: `sampled to be learnt from, ${unit[1]}`, standoff: 10 },
  });
}

function learnersChart(curves) {
  const all = curves.flatMap((c) => [...list(c.test), ...list(c.validation)]);
  const label = "Greedy accuracy against sampled tokens, a line for each learner";
  return chart("chart-learners", label, () => {
    const bars = curves.length <= 4; // more of them would hide each other
    const traces = [];
    curves.forEach((curve, index) => {
      const { color, dash, symbol } = lookAt(index);
      const hover = (rows, where) => rows.map((r) => [plain(`${words(curve.name)}, ${where}`),
        intervalText(r), `${count(r.sampled_tokens)} tokens`].join("<br>"));
      const common = { type: "scatter", legendgroup: curve.name, cliponaxis: false, hoverinfo: "text" };
      const lines = list(curve.validation);
      const ends = list(curve.test);
      if (lines.length) {
        traces.push({
          ...common, mode: "lines+markers", name: plain(words(curve.name)), showlegend: true,
          x: lines.map((r) => r.sampled_tokens), y: lines.map((r) => r.value),
          line: { color, dash, width: 2 }, marker: { color, symbol, size: 6 },
          hovertext: hover(lines, "validation problems"),
        });
      }
      traces.push({
        ...common, mode: lines.length ? "markers" : "lines+markers", name: plain(words(curve.name)),
        showlegend: !lines.length, x: ends.map((r) => r.sampled_tokens), y: ends.map((r) => r.value),
        line: { color, dash, width: 2 },
        marker: { color, size: 11, symbol: "diamond", line: { color: css("--panel"), width: 1 } },
        error_y: bars ? errorBars(ends, color) : undefined,
        hovertext: hover(ends, "test problems"),
      });
    });
    const layout = baseLayout({
      height: 430, legend: { ...chartLegend(), y: -0.2 },
      xaxis: tokensAxis(Math.max(...all.map((r) => r.sampled_tokens))),
      yaxis: accuracyAxis(all, { title: { text: "greedy accuracy", standoff: 8 } }),
    });
    return { traces, layout };
  });
}

function learnersSection(results) {
  const curves = list(results.learners).filter((c) => list(c.test).length);
  if (!curves.length) return null;
  const start = curves[0].test[0];
  const rows = curves.map((c) => {
    const end = c.test[c.test.length - 1];
    const change = (results.comparisons || {})[`${c.name}_vs_${start.policy}`]
      || (curves.length === 1 ? (results.comparisons || {}).final_vs_sft_greedy : null);
    return { name: c.name, ...end, sampled_tokens: c.sampled_tokens, change };
  });
  return [
    element("p", { class: "quiet" }, `All learners start from ${words(start.policy)} and from one `
      + "reward model, whose making is not counted. Lines: validation problems while training. "
      + `Diamonds: ${count(start.n)} test problems. Tokens are those the policy sampled to be learnt `
      + "from; evaluations and gates are left out."),
    learnersChart(curves),
    table([
      { head: "learner", name: true, cell: (r) => words(r.name) },
      { head: "sampled tokens", number: true, cell: (r) => count(r.sampled_tokens) },
      { head: "greedy, test", number: true, cell: (r) => percent(r.value) },
      { head: "95 % interval", number: true, cell: (r) => `${percent(r.low)} to ${percent(r.high)}` },
      { head: `points against ${words(start.policy)}`, number: true,
        cell: (r) => (r.change ? points(r.change.difference) : "–") },
      { head: "95 % interval", number: true,
        cell: (r) => (r.change ? `${points(r.change.low)} to ${points(r.change.high)}` : "–") },
      { head: "", cell: (r) => (r.change ? decidedness(r.change) : "") },
    ], rows, { id: "learners-table" }),
  ];
}

// Of each run a panel: the verifier's word and the reward model's on the same held-out solutions.
function guardChart(runs) {
  return chart("chart-guard", "Held-out accuracy and reward model's score by cycle", () => {
    const columns = narrow() ? 1 : Math.min(3, runs.length);
    const lines = Math.ceil(runs.length / columns);
    const height = 250;
    const traces = [];
    const layout = baseLayout({
      height: height * lines + 110, annotations: [], margin: { l: 58, r: 18, t: 34, b: 64 },
      legend: { orientation: "h", x: 0, y: -70 / (height * lines), yanchor: "top" },
    });
    const values = runs.flatMap((r) => [
      ...list(r.evaluations).flatMap((e) => [e.accuracy, e.proxy]), ...list(r.cycles).map((c) => c.correct),
    ]).filter(known);
    const top = accuracyAxis(values.map((value) => ({ value })));
    runs.forEach((run, index) => {
      const suffix = index ? String(index + 1) : "";
      const column = index % columns;
      const line = Math.floor(index / columns);
      const gap = columns > 1 ? 0.06 : 0;
      const part = (1 - gap * (columns - 1)) / columns;
      const tall = 1 / lines;
      const across = [column * (part + gap), column * (part + gap) + part];
      const down = [1 - (line + 1) * tall + (line + 1 < lines ? 0.22 * tall : 0), 1 - line * tall - 0.06 * tall];
      layout[`xaxis${suffix}`] = axis({
        domain: across, anchor: `y${suffix}`,
        title: { text: line === lines - 1 ? "cycle" : "", standoff: 6 },
      });
      layout[`yaxis${suffix}`] = { ...top, domain: down, anchor: `x${suffix}`, showticklabels: column === 0 };
      layout.annotations.push({
        text: plain(words(run.stage)), showarrow: false, xref: "paper", yref: "paper",
        x: across[0], y: down[1], xanchor: "left", yanchor: "bottom", yshift: 4,
        font: { size: 13, color: css("--ink") },
      });
      const add = (name, color, rows, key, look) => {
        const shown = rows.filter((r) => known(r[key]));
        traces.push({
          type: "scatter", mode: look.mode, name, legendgroup: name, showlegend: index === 0,
          xaxis: `x${suffix}`, yaxis: `y${suffix}`, x: shown.map((r) => r.cycle),
          y: shown.map((r) => r[key]), line: { color, width: look.width, dash: look.dash },
          marker: { color, size: 6 }, hoverinfo: "text",
          hovertext: shown.map((r) => plain(`${words(run.stage)}: ${name} ${percent(r[key])}, cycle ${r.cycle}`)),
        });
      };
      add("solved while sampling", css("--sample"), list(run.cycles), "correct", { mode: "lines", width: 1 });
      add("reward model's mean score, held out (proxy)", css("--majority"), list(run.evaluations), "proxy",
        { mode: "lines+markers", width: 2, dash: "dash" });
      add("greedy accuracy, held out (gold)", css("--mcts"), list(run.evaluations), "accuracy",
        { mode: "lines+markers", width: 2.5 });
    });
    return { traces, layout };
  });
}

function cyclesChart(runs, key, title) {
  return chart(`chart-ppo-${key}`, `${title} by cycle`, () => {
    const traces = runs.map((run, index) => {
      const { color, dash } = lookAt(index);
      const shown = list(run.cycles).filter((c) => known(c[key]));
      return {
        type: "scatter", mode: "lines", name: plain(words(run.stage)), line: { color, dash, width: 1.8 },
        x: shown.map((c) => c.cycle), y: shown.map((c) => c[key]), hoverinfo: "text",
        hovertext: shown.map((c) => plain(`${words(run.stage)}: ${decimals(c[key])}, cycle ${c.cycle}`)),
      };
    });
    const layout = baseLayout({
      height: 290, showlegend: runs.length > 1 && key === "kl", legend: { ...chartLegend(), y: -0.3 },
      xaxis: axis({ title: { text: "cycle", standoff: 6 } }),
      yaxis: axis({ title: { text: title, standoff: 8 }, rangemode: "tozero" }),
    });
    if (layout.showlegend) layout.height += 24 * Math.ceil(runs.length / 2);
    return { traces, layout };
  });
}

function ppoSection(results) {
  const runs = list(results.ppo).filter((r) => list(r.cycles).length);
  if (!runs.length) return null;
  const measured = runs.some((r) => list(r.evaluations).length);
  const ends = (run, key) => {
    const values = list(run.evaluations).map((e) => e[key]).filter(known);
    return values.length ? `${percent(values[0])} → ${percent(values[values.length - 1])}` : "–";
  };
  return [
    measured ? element("p", { class: "quiet" }, "The same held-out solutions judged twice: by the "
      + "verifier, which is right, and by the reward model, which can be gamed. Training stops, and "
      + "goes back to the best policy, where the second rises while the first falls.")
      : "No held-out problems were solved while PPO trained.",
    measured ? guardChart(runs) : null,
    element("div", { class: "two" }, cyclesChart(runs, "kl", "KL, nats a solution"),
      cyclesChart(runs, "reward", "reward, KL apart")),
    element("div", { class: "two" }, cyclesChart(runs, "length", "tokens a solution"),
      cyclesChart(runs, "entropy", "entropy, nats a token")),
    table([
      { head: "run", name: true, cell: (r) => words(r.stage) },
      { head: "outcome", name: true, cell: (r) => words(r.outcome) },
      { head: "process reward", name: true, cell: (r) => (r.shape === "outcome" ? "none" : words(r.shape)) },
      { head: "critic starts from", name: true, cell: (r) => words(r.critic) },
      { head: "sampled tokens", number: true, cell: (r) => count(r.sampled_tokens) },
      { head: "gold", number: true, cell: (r) => ends(r, "accuracy") },
      { head: "proxy", number: true, cell: (r) => ends(r, "proxy") },
      { head: "stopped early", cell: (r) => (r.stopped ? pill("bad", "yes") : "no") },
    ], runs, { id: "ppo-table" }),
    ...runs.filter((r) => r.stopped).map((r) =>
      element("p", { class: "quiet" }, `${words(r.stage)} was stopped: ${r.stopped}.`)),
  ].filter((part) => part !== null);
}
