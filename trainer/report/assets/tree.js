// One search tree: its nodes, its drawn map, and the colours of the map.

const VERDICTS = {
  correct: { sign: "✓", kind: "good", fill: "yes", text: "correct" },
  wrong: { sign: "✗", kind: "bad", fill: "no", text: "wrong" },
  unverifiable: { sign: "?", kind: "open", fill: "maybe", text: "unverifiable" },
};
const RAMP = ["#00306f", "#39486b", "#575d6d", "#707173", "#8a8779", "#a69d75", "#c4b56c",
  "#e4cf5b", "#ffea46"]; // cividis: readable with every kind of colour vision
const MAX_MAP_NODES = 1200;

// What the colour of a node says: its name, and its share of the ramp, from 0 to 1.
const COLORS = {
  value: { label: "value", share: (node) => node.value },
  score: { label: "reward model", share: (node) => node.score },
  prior: { label: "prior", share: (node) => node.prior },
  visits: { label: "visits", share: (node, most) => Math.sqrt((node.visit_count || 0) / most) },
};

function rampColor(share) {
  return RAMP[Math.round(Math.max(0, Math.min(1, share)) * (RAMP.length - 1))];
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
  tree.most = Math.max(1, ...nodes.filter((n) => n !== root).map((n) => n.visit_count || 0));
  chooseAnswer(tree, byId.get(answerOf(row)) || null);
  return tree;
}

function chooseAnswer(tree, node) {
  tree.answer = node;
  tree.onPath = new Set(node ? pathTo(tree, node) : []);
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
  const drawing = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": "Drawn search tree; the outline below holds the same nodes" });
  const [edges, groups] = [svg("g", {}), svg("g", {})];
  for (const node of tree.nodes) {
    const parent = tree.parent(node);
    if (node !== tree.root && parent) {
      const middle = (parent.x + node.x) / 2;
      node.edge = svg("path", {
        d: `M${parent.x},${parent.y}C${middle},${parent.y} ${middle},${node.y} ${node.x},${node.y}`,
      });
      edges.append(node.edge);
    }
    node.hint = svg("title", {});
    node.circle = svg("circle", { cx: node.x, cy: node.y });
    node.drawn = svg("g", {}, node.hint, node.circle);
    const verdict = verdictOf(node);
    if (verdict) {
      node.drawn.append(
        svg("text", { x: node.x + 14, y: node.y + 4, class: verdict.fill }, verdict.sign));
    }
    node.drawn.addEventListener("click", () => pick(node));
    groups.append(node.drawn);
  }
  drawing.append(edges, groups);
  const box = element("div", { class: "map", tabindex: "0", role: "group", "aria-label":
    "Map of the tree: left and right go to the parent and the first child, up and down to siblings" },
  drawing);
  box.addEventListener("keydown", (event) => {
    const to = neighbour(tree, tree.picked, event.key);
    if (to === undefined) return;
    event.preventDefault();
    if (!to) return;
    pick(to);
    centre(tree);
  });
  tree.map = box;
  return box;
}

// Scrolls the map to the picked node.
function centre({ map, picked }) {
  if (!map) return; // a tree that is too large for the map
  map.scrollTop = picked.y - map.clientHeight / 2;
  map.scrollLeft = picked.x - map.clientWidth / 2;
}

// The node that an arrow key leads to; null where there is none, undefined for another key.
function neighbour(tree, node, key) {
  if (key === "ArrowLeft") return tree.parent(node) || null;
  if (key === "ArrowRight") return node.children.find((child) => !child.later) || null;
  if (key !== "ArrowUp" && key !== "ArrowDown") return undefined;
  const siblings = (tree.parent(node) || { children: [] }).children.filter((n) => !n.later);
  return siblings[siblings.indexOf(node) + (key === "ArrowUp" ? -1 : 1)] || null;
}

// Brings sizes, colours and the marked path of the map up to date.
function paintMap(tree, color) {
  for (const node of tree.nodes) {
    if (!node.drawn) return; // a tree that is too large for the map
    const on = tree.onPath.has(node) ? " on" : "";
    const later = node.later ? " later" : "";
    const size = node === tree.root ? 1 : Math.min(1, (node.visit_count || 0) / tree.most);
    const share = COLORS[color].share(node, node === tree.root ? node.visit_count || 1 : tree.most);
    node.drawn.setAttribute("class",
      `node${on}${later}${node === tree.picked ? " picked" : ""}${known(share) ? "" : " blank"}`);
    if (node.edge) node.edge.setAttribute("class", `edge${on}${later}`);
    node.circle.setAttribute("r", 4 + 6 * Math.sqrt(size));
    node.circle.setAttribute("fill", known(share) ? rampColor(share) : "none");
    node.hint.textContent = `${stepText(node, tree.root)}\nvisits ${count(node.visit_count)}, `
      + `value ${decimals(node.value)}, reward model ${decimals(node.score)}, `
      + `prior ${decimals(node.prior)}`;
  }
}

function mapKey(color) {
  const ramp = element("div", {});
  for (const color of RAMP) {
    const swatch = element("i", {});
    swatch.style.background = color;
    ramp.append(swatch);
  }
  return element("div", { class: "key" },
    element("span", { class: "ramp" }, `${COLORS[color].label} 0`, ramp,
      color === "visits" ? "most" : "1"), element("span", {}, "no colour: none"),
    element("span", {}, "size: visits"), element("span", {}, "orange: the chosen answer"),
    element("span", {}, "✓ correct"), element("span", {}, "✗ wrong"),
    element("span", {}, "? unverifiable"), element("span", {}, "… cut off"));
}
