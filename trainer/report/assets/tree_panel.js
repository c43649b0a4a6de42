// A panel with one tree: its facts, its map, the player, an outline that opens and closes, and the
// picked step with what was sampled from it.

function outlineRow(tree, node, open, pick, toggle) {
  const verdict = verdictOf(node);
  const text = stepText(node, tree.root);
  const step = element("div", { class: "step" },
    node.children.length
      ? element("button", {
        class: "toggle", type: "button", "aria-expanded": String(open),
        "aria-label": `${open ? "Close" : "Open"} ${text}`,
        onclick: (event) => { event.stopPropagation(); toggle(node); },
      }, open ? "▾" : "▸")
      : element("span", { class: "toggle" }),
    element("button", { class: "text", type: "button", title: text }, text));
  step.style.paddingLeft = `${Math.min(node.depth, 14) * 18}px`;
  const marks = element("span", {});
  if (verdict) marks.append(pill(verdict.kind, `${verdict.sign} ${verdict.text}`));
  const answer = node === tree.answer;
  if (answer) marks.append(" ", element("span", { title: "the chosen answer" }, "★"));
  const row = element("div", {
    class: `row${tree.onPath.has(node) ? " on" : ""}`,
    data: { node: String(node.id), ...(answer ? { answer: "yes" } : {}) }, onclick: () => pick(node),
  }, step, marks, element("span", { class: "figure" }, decimals(node.prior)),
  element("span", { class: "visits" }, bar((node.visit_count || 0) / tree.most, 34),
    count(node.visit_count)),
  element("span", { class: "figure" }, decimals(node.value)),
  element("span", { class: "figure" }, decimals(node.score)));
  node.listed = row;
  return row;
}

function drawDetail(tree, node, box, pick) {
  const verdict = verdictOf(node);
  const path = pathTo(tree, node).slice(1);
  const facts = [
    ["node", String(node.id)], ["prior", decimals(node.prior, 3)],
    ["visits", count(node.visit_count)], ["value", decimals(node.value, 3)],
    ["process reward", decimals(node.score, 3)], ["log-probability", decimals(node.logprob, 2)],
    ["times sampled", count(node.proposals)],
    ["simulations through it", count(node.simulations)],
    ["times expanded", count(node.expansions)],
    ["verdict", verdict ? verdict.text : "not finished"],
  ];
  const samples = node.children.filter((child) => !child.later);
  box.replaceChildren(
    element("h3", {}, node === tree.answer ? "The chosen answer" : "The steps so far"),
    element("pre", { class: "steps" }, String((tree.row.problem || {}).prompt ?? "")
      + path.map((n) => String(n.text ?? "")).join("")),
    element("dl", {}, ...facts.flatMap(([name, value]) =>
      [element("dt", {}, name), element("dd", {}, value)])),
    element("h3", { class: "below" }, `Sampled from here: ${count(samples.length)}`),
    element("ul", { class: "samples" }, ...samples.map((child) => sampleRow(tree, child, pick))));
}

function sampleRow(tree, node, pick) {
  const verdict = verdictOf(node);
  const times = known(node.proposals) && node.proposals > 1 ? ` × ${count(node.proposals)}` : "";
  return element("li", {}, element("button", { type: "button", onclick: () => pick(node) },
    element("span", { class: "words" }, stepText(node, tree.root)),
    element("span", { class: "under" }, `${verdict ? `${verdict.sign} ` : ""}prior `
      + `${decimals(node.prior)}${times}, visits ${count(node.visit_count)}, value `
      + `${decimals(node.value)}`)));
}

function treeFacts(tree) {
  const { row } = tree;
  const problem = row.problem || {};
  const outcome = row.outcome || (tree.answer ? tree.answer.verdict : null);
  const look = VERDICTS[outcome];
  const fact = (name, value) => element("div", {}, element("span", {}, name), value);
  return element("div", { class: "facts" },
    fact("problem", element("code", {}, String(problem.prompt ?? problem.id ?? "").trim())),
    fact("answer", look ? pill(look.kind, `${look.sign} ${look.text}`) : String(outcome ?? "none")),
    fact("policy", words(row.policy ?? "–")),
    fact("strategy", strategyOf(row.search ?? row.strategy).label),
    fact("nodes", count(tree.nodes.length)), fact("FLOPs", row.flops ? power(row.flops) : "–"));
}

// Shows one tree in `box`. Returns a function that paints its map in the colours `color`.
function showTree(box, row, color) {
  let tree;
  try {
    tree = readTree(row);
  } catch (error) {
    box.replaceChildren(element("p", { class: "empty" }, `This tree cannot be shown: ${error.message}.`));
    return () => {};
  }
  const opened = new Set();
  const nearby = () => {
    opened.clear();
    opened.add(tree.root);
    for (const node of tree.onPath) opened.add(node);
  };
  nearby();
  if (tree.nodes.length <= 40) for (const node of tree.nodes) opened.add(node);
  tree.picked = tree.answer || tree.root;
  let colored = color;
  const outline = element("div", { class: "outline" });
  const detail = element("aside", { class: "detail", "aria-live": "polite" });
  const key = element("div", {});
  const mark = () => {
    for (const node of tree.nodes) {
      if (node.listed) node.listed.classList.toggle("picked", node === tree.picked);
      if (node.drawn) node.drawn.classList.toggle("picked", node === tree.picked);
    }
    drawDetail(tree, tree.picked, detail, pick);
  };
  const list = () => {
    const rows = [];
    const walk = (node) => {
      if (node.later) return;
      rows.push(outlineRow(tree, node, opened.has(node), pick, toggle));
      if (opened.has(node)) node.children.forEach(walk);
    };
    for (const node of tree.nodes) node.listed = null;
    walk(tree.root);
    outline.replaceChildren(element("div", { class: "row head" }, element("span", {}, "step"),
      element("span", {}, ""), ...["prior", "visits", "value", "PRM"].map((head) =>
        element("span", { class: "figure" }, head))), ...rows);
    mark();
  };
  const pick = (node) => {
    tree.picked = node;
    const hidden = pathTo(tree, node).slice(0, -1).filter((n) => !opened.has(n));
    if (hidden.length) {
      hidden.forEach((n) => opened.add(n));
      list();
    } else mark();
  };
  const toggle = (node) => {
    if (!opened.delete(node)) opened.add(node);
    list();
  };
  const paint = (chosen) => {
    colored = chosen;
    key.replaceChildren(mapKey(colored));
    paintMap(tree, colored);
  };
  const moved = () => {
    if (tree.picked.later) tree.picked = tree.root;
    paintMap(tree, colored);
    list();
  };
  box.replaceChildren(treeFacts(tree), player(tree, moved), drawMap(tree, pick), key,
    element("div", { class: "controls" },
      element("button", { type: "button", class: "open-all",
        onclick: () => { tree.nodes.forEach((n) => opened.add(n)); list(); } }, "Open all"),
      element("button", { type: "button", class: "open-answer",
        onclick: () => { nearby(); tree.picked = tree.answer || tree.root; list(); } },
      "Only the way to the answer")),
    element("div", { class: "explorer" }, outline, detail));
  paint(color);
  list();
  centre(tree);
  return paint;
}
