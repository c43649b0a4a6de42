// The search tree explorer: a drawn map, an outline that opens and closes, and the picked step.

const VERDICTS = {
  correct: { sign: "✓", kind: "good", fill: "yes", text: "correct" },
  wrong: { sign: "✗", kind: "bad", fill: "no", text: "wrong" },
  unverifiable: { sign: "?", kind: "open", fill: "maybe", text: "unverifiable" },
};
const RAMP = ["#00306f", "#39486b", "#575d6d", "#707173", "#8a8779", "#a69d75", "#c4b56c",
  "#e4cf5b", "#ffea46"]; // cividis: readable with every kind of colour vision
const MAX_MAP_NODES = 1200;

function valueColor(value) {
  const place = Math.max(0, Math.min(1, known(value) ? value : 0)) * (RAMP.length - 1);
  return RAMP[Math.round(place)];
}

// Raises Error in words for the reader when the row is not a tree.
function readTree(row) {
  if (!row || !Array.isArray(row.nodes) || !row.nodes.length) throw new Error("it has no nodes");
  const nodes = row.nodes.map((node) => ({ ...node, children: [], depth: 0 }));
  const byId = new Map(nodes.map((node) => [node.id, node]));
  let root = null;
  for (const node of nodes) {
    const parent = byId.get(node.parent);
    if (parent && parent !== node) {
      node.depth = parent.depth + 1;
      parent.children.push(node);
    } else if (!root) root = node;
    else throw new Error(`node ${node.id} has no parent`);
  }
  if (!root) throw new Error("it has no root");
  for (const node of nodes) {
    node.children.sort((a, b) => (b.visit_count || 0) - (a.visit_count || 0));
  }
  const tree = { row, root, nodes, byId, parent: (node) => byId.get(node.parent) };
  tree.answer = byId.get(answerOf(row)) || null;
  tree.onPath = new Set(tree.answer ? pathTo(tree, tree.answer) : []);
  return tree;
}

function answerOf(row) {
  if (known(row.answer)) return row.answer;
  const last = Array.isArray(row.snapshots) ? row.snapshots[row.snapshots.length - 1] : null;
  return last ? last.answer_node : null;
}

function pathTo(tree, node) {
  const path = [];
  for (let at = node; at && path.length <= tree.nodes.length; at = tree.parent(at)) path.push(at);
  return path.reverse();
}

function stepText(node, root) {
  if (node === root) return "(problem)";
  const text = String(node.text ?? "").replace(/\n+$/, "");
  return text === "" ? "(empty)" : text;
}

function verdictOf(node) {
  if (!node.terminal) return null;
  if (node.terminal === "length") return { sign: "…", kind: "open", fill: "maybe", text: "cut off" };
  return VERDICTS[node.verdict] || { sign: "■", kind: "open", fill: "maybe", text: "finished" };
}

function svg(tag, properties, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(properties)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// x by depth, y by the order of the leaves, parents in the middle of their children.
function placeNodes(tree) {
  let leaves = 0;
  const visit = (node) => {
    node.children.forEach(visit);
    node.row = node.children.length
      ? (node.children[0].row + node.children[node.children.length - 1].row) / 2 : leaves++;
  };
  visit(tree.root);
  const deepest = Math.max(1, ...tree.nodes.map((node) => node.depth));
  const step = leaves > 60 ? 14 : leaves > 24 ? 18 : 24;
  const width = Math.min(1040, Math.max(420, 220 * deepest));
  for (const node of tree.nodes) {
    node.x = 30 + (node.depth * (width - 70)) / deepest;
    node.y = 18 + node.row * step;
  }
  return { width, height: 36 + Math.max(0, leaves - 1) * step };
}

function drawMap(tree, pick) {
  if (tree.nodes.length > MAX_MAP_NODES) {
    return element("p", { class: "empty" },
      `This tree has ${count(tree.nodes.length)} nodes: too many to draw. The outline shows it.`);
  }
  const { width, height } = placeNodes(tree);
  const most = Math.max(1, ...tree.nodes.filter((n) => n !== tree.root)
    .map((n) => n.visit_count || 0));
  const drawing = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": "Drawn search tree; the outline below holds the same nodes" });
  const ordered = [...tree.nodes].sort((a, b) => tree.onPath.has(a) - tree.onPath.has(b));
  for (const node of ordered) {
    const parent = tree.parent(node);
    if (node === tree.root || !parent) continue;
    const middle = (parent.x + node.x) / 2;
    drawing.append(svg("path", {
      class: tree.onPath.has(node) ? "edge on" : "edge",
      d: `M${parent.x},${parent.y}C${middle},${parent.y} ${middle},${node.y} ${node.x},${node.y}`,
    }));
  }
  for (const node of ordered) {
    const share = node === tree.root ? 1 : Math.min(1, (node.visit_count || 0) / most);
    const group = svg("g", { class: tree.onPath.has(node) ? "node on" : "node" },
      svg("title", {}, `${stepText(node, tree.root)}\nvisits ${count(node.visit_count)}, `
        + `value ${decimals(node.value)}`),
      svg("circle", { cx: node.x, cy: node.y, r: 4 + 6 * Math.sqrt(share),
        fill: valueColor(node.value) }));
    const verdict = verdictOf(node);
    if (verdict) {
      group.append(svg("text", { x: node.x + 14, y: node.y + 4, class: verdict.fill }, verdict.sign));
    }
    group.addEventListener("click", () => pick(node));
    node.drawn = group;
    drawing.append(group);
  }
  return element("div", { class: "map", tabindex: "0", "aria-label": "Map of the tree" }, drawing);
}

function mapKey() {
  const ramp = element("div", {});
  for (const color of RAMP) {
    const swatch = element("i", {});
    swatch.style.background = color;
    ramp.append(swatch);
  }
  return element("div", { class: "key" },
    element("span", { class: "ramp" }, "value 0", ramp, "1"),
    element("span", {}, "size: visits"), element("span", {}, "orange: the chosen answer"),
    element("span", {}, "✓ correct"), element("span", {}, "✗ wrong"),
    element("span", {}, "? unverifiable"), element("span", {}, "… cut off"));
}

function outlineRow(tree, node, open, pick, toggle) {
  const most = Math.max(1, ...tree.root.children.map((n) => n.visit_count || 0));
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
  element("span", { class: "visits" }, bar((node.visit_count || 0) / most, 34),
    count(node.visit_count)),
  element("span", { class: "figure" }, decimals(node.value)),
  element("span", { class: "figure" }, decimals(node.score)));
  node.listed = row;
  return row;
}

function drawDetail(tree, node, box) {
  const verdict = verdictOf(node);
  const path = pathTo(tree, node).slice(1);
  const facts = [
    ["node", String(node.id)], ["prior", decimals(node.prior, 3)],
    ["visits", count(node.visit_count)], ["value", decimals(node.value, 3)],
    ["process reward", decimals(node.score, 3)], ["children", count(node.children.length)],
    ["verdict", verdict ? verdict.text : "not finished"],
  ];
  box.replaceChildren(
    element("h3", {}, node === tree.answer ? "The chosen answer" : "The steps so far"),
    element("pre", { class: "steps" }, String((tree.row.problem || {}).prompt ?? "")
      + path.map((n) => String(n.text ?? "")).join("")),
    element("dl", {}, ...facts.flatMap(([name, value]) =>
      [element("dt", {}, name), element("dd", {}, value)])));
}

// Shows one tree in `box`.
function showTree(box, row) {
  let tree;
  try {
    tree = readTree(row);
  } catch (error) {
    box.replaceChildren(element("p", { class: "empty" }, `This tree cannot be shown: ${error.message}.`));
    return;
  }
  const opened = new Set();
  const nearby = () => {
    opened.clear();
    opened.add(tree.root);
    for (const node of tree.onPath) opened.add(node);
  };
  nearby();
  if (tree.nodes.length <= 40) for (const node of tree.nodes) opened.add(node);
  let picked = tree.answer || tree.root;
  const outline = element("div", { class: "outline" });
  const detail = element("aside", { class: "detail", "aria-live": "polite" });
  const mark = () => {
    for (const node of tree.nodes) {
      if (node.listed) node.listed.classList.toggle("picked", node === picked);
      if (node.drawn) node.drawn.classList.toggle("picked", node === picked);
    }
    drawDetail(tree, picked, detail);
  };
  const list = () => {
    const rows = [];
    const walk = (node) => {
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
    picked = node;
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
  const all = (event) => { event.preventDefault(); tree.nodes.forEach((n) => opened.add(n)); list(); };
  box.replaceChildren(treeFacts(tree), drawMap(tree, pick), mapKey(),
    element("div", { class: "controls" },
      element("button", { type: "button", id: "open-all", onclick: all }, "Open all"),
      element("button", { type: "button", id: "open-answer",
        onclick: () => { nearby(); picked = tree.answer || tree.root; list(); } },
      "Only the way to the answer")),
    element("div", { class: "explorer" }, outline, detail));
  list();
}

function treeFacts(tree) {
  const { row } = tree;
  const problem = row.problem || {};
  const usage = row.usage || {};
  const flops = ((usage.policy || {}).flops || 0) + ((usage.reward || {}).flops || 0);
  const outcome = row.outcome || (tree.answer ? tree.answer.verdict : null);
  const look = VERDICTS[outcome];
  const fact = (name, value) => element("div", {}, element("span", {}, name), value);
  return element("div", { class: "facts" },
    fact("problem", element("code", {}, String(problem.prompt ?? problem.id ?? "").trim())),
    fact("answer", look ? pill(look.kind, `${look.sign} ${look.text}`) : String(outcome ?? "none")),
    fact("policy", words(row.policy ?? "–")), fact("strategy", strategyOf(row.strategy).label),
    fact("nodes", count(tree.nodes.length)), fact("FLOPs", flops ? power(flops) : "–"));
}

function treeTitle(row, index) {
  const problem = (row && row.problem) || {};
  const look = VERDICTS[row && row.outcome];
  return `${index + 1}. ${look ? `${look.sign} ` : ""}`
    + `${String(problem.prompt ?? problem.id ?? "").trim().split("\n")[0]}  (${((row && row.nodes) || []).length} nodes)`;
}

// The whole explorer; `given` is how many trees the run had to show.
function treeExplorer(trees, given) {
  const box = element("div", { id: "tree" });
  const note = element("p", { class: "quiet", role: "status" });
  const choice = element("select", { id: "tree-choice" });
  let rows = trees;
  const fill = () => {
    choice.replaceChildren(...rows.map((row, i) =>
      element("option", { value: String(i) }, treeTitle(row, i))));
    if (rows.length) showTree(box, rows[0]);
    else box.replaceChildren(element("p", { class: "empty" }, "No search tree is in this report."));
  };
  choice.addEventListener("change", () => showTree(box, rows[Number(choice.value)]));
  const file = element("input", { type: "file", accept: ".jsonl,.json" });
  file.addEventListener("change", async () => {
    if (!file.files.length) return;
    const name = file.files[0].name;
    try {
      const lines = (await file.files[0].text()).split("\n").filter((line) => line.trim());
      const found = lines.map((line) => JSON.parse(line));
      found.forEach(readTree);
      rows = found;
      note.textContent = `${count(found.length)} trees of ${name}. They stay on this computer.`;
      fill();
    } catch (error) {
      note.textContent = `${name} cannot be read as trees: ${error.message}.`;
    }
  });
  if (given > trees.length) {
    note.textContent = `${count(trees.length)} of ${count(given)} trees are in this file; `
      + "the others can be opened from the run's folder.";
  }
  fill();
  return [
    element("div", { class: "controls" }, element("label", { for: "tree-choice" }, "Tree"), choice,
      element("label", { class: "file" }, "Open trees from a file …", file)),
    note, box,
  ];
}
