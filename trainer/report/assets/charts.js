// Charts by plotly.js. Labels are plain text: see report.py for what the page's policy forbids.

// Functions that draw, and say whether they did; run again when colours or width class change.
const CHARTS = [];

function css(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function plain(text) { // plotly reads pseudo-HTML in labels; ours are text
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function chart(id, label, draw) {
  const box = element("div", { class: "chart", id, role: "img", "aria-label": label });
  CHARTS.push(() => {
    if (box.closest("details:not([open])")) return false; // it has no width there
    const { traces, layout } = draw();
    layout.width = undefined;
    Plotly.react(box, traces, layout, { displayModeBar: false, responsive: true, scrollZoom: false });
    return true;
  });
  return box;
}

function drawCharts() {
  document.body.dataset.drawn = String(CHARTS.filter((draw) => draw()).length);
}

// Parts that are shown when their title is chosen. Their charts are drawn then.
function folded(title, parts) {
  return element("details", { ontoggle: drawCharts }, element("summary", {}, title), ...parts);
}

function narrow() {
  return window.matchMedia("(max-width: 860px)").matches;
}

function axis(extra) {
  return {
    gridcolor: css("--grid"), linecolor: css("--line"), zeroline: false, showline: true,
    tickcolor: css("--line"), ticks: "outside", ticklen: 4, fixedrange: true, automargin: true,
    ...extra,
  };
}

function baseLayout(extra) {
  return {
    autosize: true, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: css("--sans"), size: 13, color: css("--ink") },
    margin: { l: 58, r: 18, t: 14, b: 52 }, dragmode: false, hovermode: "closest",
    hoverlabel: {
      bgcolor: css("--panel"), bordercolor: css("--line"), align: "left",
      font: { family: css("--sans"), size: 13, color: css("--ink") },
    },
    ...extra,
  };
}

// Range and ticks of a FLOPs axis. Logarithmic where the values span a factor of 5 or more.
function flopsAxis(values, title) {
  const low = Math.min(...values);
  const high = Math.max(...values);
  if (low > 0 && high / low >= 5) {
    const [from, to] = [Math.log10(low) - 0.16, Math.log10(high) + 0.16];
    const factors = to - from < 1.2 ? [1, 2, 3, 5, 7] : to - from < 2.6 ? [1, 3] : [1];
    const ticks = [];
    for (let e = Math.floor(from); e <= Math.ceil(to); e += 1) {
      for (const factor of factors) ticks.push([factor, e]);
    }
    return axis({
      type: "log", range: [from, to], title: { text: title, standoff: 10 },
      tickvals: ticks.map(([f, e]) => f * 10 ** e),
      ticktext: ticks.map(([f, e]) => (f === 1 ? "" : `${f}×`) + `10${superscript(e)}`),
    });
  }
  const exponent = high > 0 ? Math.floor(Math.log10(high)) : 0;
  const unit = 10 ** exponent;
  const step = [0.1, 0.2, 0.5, 1, 2].find((s) => high / unit / s <= 7) || 2;
  const ticks = [];
  for (let i = 0; i * step <= (high / unit) * 1.1; i += 1) ticks.push(i * step);
  return axis({
    type: "linear", range: [0, high > 0 ? high * 1.1 : 1],
    title: { text: `${title}, × 10${superscript(exponent)}`, standoff: 10 },
    tickvals: ticks.map((t) => t * unit), ticktext: ticks.map((t) => String(+t.toFixed(1))),
  });
}

function accuracyAxis(rows, extra) {
  const top = Math.max(0.05, ...rows.map((r) => (known(r.high) ? r.high : r.value)));
  const to = Math.min(1.02, top * 1.1);
  const step = to > 0.5 ? 0.2 : to > 0.25 ? 0.1 : 0.05;
  const ticks = [];
  for (let i = 0; i * step <= to; i += 1) ticks.push(i * step);
  return axis({
    range: [0, to], tickvals: ticks, ticktext: ticks.map((t) => `${Math.round(100 * t)} %`), ...extra,
  });
}

function errorBars(rows, color) {
  return {
    type: "data", symmetric: false, color, thickness: 1.3, width: 3,
    array: rows.map((r) => (known(r.high) ? Math.max(0, r.high - r.value) : 0)),
    arrayminus: rows.map((r) => (known(r.low) ? Math.max(0, r.value - r.low) : 0)),
  };
}

function intervalText(row) {
  return `${percent(row.value)}  [${percent(row.low)}, ${percent(row.high)}], n = ${count(row.n)}`;
}

// The evaluated policies, each joined to the one it goes on from.
function trainingChart(curve) {
  return chart("chart-training", "Greedy test accuracy against training compute", () => {
    const color = css("--mcts");
    const joined = { x: [], y: [] };
    curve.forEach((row, index) => {
      const name = row.after === undefined ? (curve[index - 1] || {}).policy : row.after;
      const before = curve.find((r) => r.policy === name);
      if (!before) return;
      joined.x.push(before.training_flops, row.training_flops, null);
      joined.y.push(before.value, row.value, null);
    });
    return {
      traces: [{
        type: "scatter", mode: "lines", ...joined, line: { color, width: 2.5 }, hoverinfo: "skip",
      }, {
        type: "scatter", mode: curve.length > 6 ? "markers" : "markers+text", cliponaxis: false,
        x: curve.map((r) => r.training_flops), y: curve.map((r) => r.value),
        text: curve.map((r) => plain(words(r.policy))), textposition: "top left",
        textfont: { color: css("--ink") },
        marker: { color, size: 10 }, error_y: errorBars(curve, color),
        hovertext: curve.map((r) => plain(`${words(r.policy)}\n${intervalText(r)}\n`
          + `${power(r.training_flops)} FLOPs, ${seconds(r.training_seconds)}`).replace(/\n/g, "<br>")),
        hoverinfo: "text", name: "greedy",
      }],
      layout: baseLayout({
        height: 400, showlegend: false,
        xaxis: flopsAxis(curve.map((r) => r.training_flops),
          "training compute so far, FLOPs"),
        yaxis: accuracyAxis(curve, { title: { text: "greedy accuracy, test", standoff: 8 } }),
      }),
    };
  });
}

// One panel a policy, all on the same axes; one line a strategy in each.
function testTimeChart(rows, id, height) {
  const searched = rows.filter((r) => !["greedy", "sample"].includes(r.strategy));
  const policies = [...new Set((searched.length ? searched : rows).map((r) => r.policy))];
  const drawn = rows.filter((r) => policies.includes(r.policy) && r.flops > 0);
  return chart(id, "Accuracy against test-time compute by strategy", () => {
    const stacked = narrow();
    const named = new Set();
    const traces = [];
    const layout = baseLayout({
      height: stacked ? 330 * policies.length + 150 : height,
      margin: { l: 58, r: 18, t: 34, b: 52 },
      legend: {
        orientation: "h", x: 0, y: stacked ? -0.12 : -70 / (height - 200), yanchor: "top", itemsizing: "constant",
      },
      annotations: [],
    });
    policies.forEach((policy, column) => {
      const suffix = column ? String(column + 1) : "";
      const gap = stacked ? 0.13 : 0.05;
      const part = (1 - gap * (policies.length - 1)) / policies.length;
      const start = column * (part + gap);
      const across = [start, start + part];
      const down = [1 - start - part, 1 - start];
      layout[`xaxis${suffix}`] = flopsAxis(drawn.map((r) => r.flops),
        "FLOPs per problem (policy and reward model)");
      Object.assign(layout[`xaxis${suffix}`],
        { domain: stacked ? [0, 1] : across, anchor: `y${suffix}` });
      layout[`yaxis${suffix}`] = accuracyAxis(drawn, {
        domain: stacked ? down : [0, 1], anchor: `x${suffix}`,
        showticklabels: stacked || column === 0,
        title: { text: stacked || column === 0 ? "accuracy, test" : "", standoff: 8 },
      });
      layout.annotations.push({
        text: plain(`policy: ${words(policy)}`), showarrow: false, xref: "paper", yref: "paper",
        x: stacked ? 0 : across[0], y: stacked ? down[1] : 1, xanchor: "left", yanchor: "bottom",
        yshift: 6, font: { size: 14, color: css("--ink") },
      });
      for (const name of strategyOrder(drawn)) {
        const line = drawn.filter((r) => r.policy === policy && r.strategy === name)
          .sort((a, b) => a.flops - b.flops);
        if (!line.length) continue;
        const look = strategyOf(name);
        const color = css(look.color);
        traces.push({
          type: "scatter", mode: line.length > 1 ? "lines+markers" : "markers",
          name: plain(look.label), legendgroup: name, showlegend: !named.has(name),
          xaxis: `x${suffix}`, yaxis: `y${suffix}`, cliponaxis: false,
          x: line.map((r) => r.flops), y: line.map((r) => r.value), error_y: errorBars(line, color),
          line: { color, width: name === "mcts" ? 3 : 2, dash: look.dash || "solid" },
          marker: { color, size: look.size || 8, symbol: look.symbol }, hoverinfo: "text",
          hovertext: line.map((r) => [
            plain(`${look.label}, ${words(policy)}`), `budget ${count(r.budget)}`,
            intervalText(r), `${power(r.flops)} FLOPs, ${count(r.generated_tokens)} tokens`,
          ].join("<br>")),
        });
        named.add(name);
      }
    });
    return { traces, layout };
  });
}

function strategyOrder(rows) {
  const present = [...new Set(rows.map((r) => r.strategy))];
  const order = Object.keys(STRATEGIES);
  const place = (name) => (order.includes(name) ? order.indexOf(name) : order.length);
  return present.sort((a, b) => place(a) - place(b));
}

function reliabilityChart(bins) {
  return chart("chart-reliability", "Reliability diagram of the reward model", () => {
    const color = css("--mcts");
    const most = Math.max(...bins.map((b) => b.count || 0), 1);
    const ticks = [0, 0.2, 0.4, 0.6, 0.8, 1];
    const side = (text) => axis({
      range: [-0.04, 1.04], tickvals: ticks, ticktext: ticks.map((t) => t.toFixed(1)),
      title: { text, standoff: 8 },
    });
    return {
      traces: [
        {
          type: "scatter", mode: "lines", x: [0, 1], y: [0, 1], hoverinfo: "skip",
          line: { color: css("--sample"), dash: "dash", width: 1.5 }, name: "perfect",
        },
        {
          type: "scatter", mode: "lines+markers", x: bins.map((b) => b.predicted),
          y: bins.map((b) => b.observed), line: { color, width: 2 }, name: "reward model",
          cliponaxis: false, error_y: errorBars(bins.map((b) => ({ ...b, value: b.observed })), color),
          marker: {
            color, opacity: 0.9,
            size: bins.map((b) => 7 + 17 * Math.sqrt((b.count || 0) / most)),
          },
          hoverinfo: "text",
          hovertext: bins.map((b) => `predicted ${decimals(b.predicted)}<br>`
            + `observed ${decimals(b.observed)}<br>${count(b.count)} prefixes`),
        },
      ],
      layout: baseLayout({
        height: 370, showlegend: false, xaxis: side("predicted chance of success"),
        yaxis: side("observed share of successes"),
      }),
    };
  });
}
