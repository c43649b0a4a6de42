"use strict";
// Words and numbers, and elements made from text only: nothing here reads markup.

const STRATEGIES = {
  greedy: { label: "greedy", color: "--greedy", symbol: "star", size: 13 },
  sample: { label: "one sample", color: "--sample", symbol: "x", size: 9 },
  best_of_n_weighted: {
    label: "best of N, reward model and likelihood", color: "--best_of_n", symbol: "square",
  },
  best_of_n: {
    label: "best of N, reward model alone", color: "--best_of_n", symbol: "square-open", dash: "dot",
  },
  thinking: { label: "one chain that thinks, cut at a budget", color: "--sample", symbol: "hexagon" },
  majority: { label: "majority of N", color: "--majority", symbol: "triangle-up" },
  mcts: { label: "tree search (MCTS)", color: "--mcts", symbol: "circle" },
  mcts_uniform_control: {
    label: "tree search, unguided control", color: "--control", symbol: "diamond",
  },
  pass_at_n: {
    label: "pass@N (oracle)", color: "--oracle", symbol: "circle-open", dash: "dash",
  },
};

function strategyOf(name) {
  return STRATEGIES[name] || { label: words(name), color: "--quiet", symbol: "circle" };
}

function words(name) {
  const text = String(name).replace(/_/g, " ");
  return text === "sft" ? "SFT" : text;
}

function known(value) {
  return typeof value === "number" && Number.isFinite(value);
}

function percent(value, digits = 1) {
  return known(value) ? `${(100 * value).toFixed(digits)} %` : "–";
}

function points(value) {
  if (!known(value)) return "–";
  const text = Math.abs(100 * value).toFixed(1);
  return `${text === "0.0" ? "" : value < 0 ? "−" : "+"}${text}`;
}

function decimals(value, digits = 2) {
  return known(value) ? value.toFixed(digits).replace("-", "−") : "–";
}

function count(value) {
  return known(value) ? Math.round(value).toLocaleString("en-US") : "–";
}

function superscript(integer) {
  return [...String(integer)].map((c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]).join("");
}

function power(value) {
  if (!known(value)) return "–";
  if (value === 0) return "0";
  let exponent = Math.floor(Math.log10(Math.abs(value)));
  if (Math.abs(exponent) < 4) return value.toLocaleString("en-US", { maximumSignificantDigits: 3 });
  let mantissa = (value / 10 ** exponent).toFixed(1);
  if (mantissa === "10.0") [mantissa, exponent] = ["1.0", exponent + 1];
  return `${mantissa} × 10${superscript(exponent)}`;
}

function seconds(value) {
  if (!known(value)) return "–";
  if (value < 10) return `${value.toFixed(1)} s`;
  if (value < 120) return `${Math.round(value)} s`;
  const whole = Math.round(value);
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor((whole % 3600) / 60);
  return hours ? `${hours} h ${minutes} min` : `${minutes} min ${whole % 60} s`;
}

function chance(value) {
  if (!known(value)) return "–";
  return value !== 0 && value < 1e-3 ? power(value) : value.toPrecision(2);
}

// An element with properties and children; strings become text nodes.
function element(tag, properties, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(properties || {})) {
    if (key === "class") made.className = value;
    else if (key === "data") Object.assign(made.dataset, value);
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// columns: [{head, number?, cell: row => string or element}]; a row {group} spans the table.
function table(columns, rows, properties) {
  const head = element("tr", {}, ...columns.map((c) =>
    element("th", { scope: "col", class: c.number ? "number" : "" }, c.head)));
  const body = rows.map((row) => {
    if (row.group !== undefined) {
      return element("tr", { class: "group" },
        element("td", { colspan: columns.length }, row.group));
    }
    return element("tr", { class: row.total ? "total" : "" }, ...columns.map((c) =>
      element("td", { class: c.number ? "number" : c.name ? "name" : "" }, c.cell(row) ?? "–")));
  });
  return element("div", { class: "scroll", tabindex: "0" },
    element("table", properties || {}, element("thead", {}, head), element("tbody", {}, ...body)));
}

// A value with its interval, drawn on a track from `from` to `to`.
function range(row, from, to, zero) {
  const place = (value) => `${(100 * (Math.min(to, Math.max(from, value)) - from)) / (to - from)}%`;
  const box = element("div", { class: "range", "aria-hidden": "true" }, element("i", { class: "axis" }));
  if (zero) {
    const line = element("i", { class: "zero" });
    line.style.left = place(0);
    box.append(line);
  }
  if (known(row.low) && known(row.high)) {
    const span = element("i", { class: "span" });
    span.style.left = place(row.low);
    span.style.right = `calc(100% - ${place(row.high)})`;
    box.append(span);
  }
  if (known(row.value)) {
    const dot = element("i", { class: "dot" });
    dot.style.left = place(row.value);
    box.append(dot);
  }
  return box;
}

function bar(share, pixels) {
  const made = element("div", { class: "bar" });
  made.style.width = `${Math.max(0, Math.min(1, share)) * pixels}px`;
  return made;
}

function pill(kind, text) {
  return element("span", { class: `pill ${kind}` }, text);
}
