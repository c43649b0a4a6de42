// All trees of a run: a table of problems with one column per search of a policy, a search by
// text, filters, and up to two trees of a problem side by side.

const ROWS_AT_ONCE = 50;

// A store of trees: {policies, searches: [[policy, name]], problems: [{prompt, trees}], given}.
// `trees` is a Map from the index of a search to {outcome, nodes, row()}; row() gives a promise.
function packedStore(index) {
  const chunks = new Map();
  const chunk = (number) => {
    if (!chunks.has(number)) chunks.set(number, unpackChunk(number));
    return chunks.get(number);
  };
  const problems = list(index.prompts).map((prompt) => ({ prompt, trees: new Map() }));
  for (const [problem, search, outcome, nodes, number, place] of list(index.trees)) {
    const [policy, name] = index.searches[search];
    problems[problem].trees.set(search, { outcome, nodes, row: async () => ({
      ...unpackTree((await chunk(number))[place]),
      problem: { prompt: problems[problem].prompt }, policy, search: name, outcome,
    }) });
  }
  return { searches: list(index.searches), problems, given: index.given || 0 };
}

async function unpackChunk(number) {
  if (document.readyState === "loading") { // the chunks come last, so that the page is seen first
    await new Promise((resolve) =>
      document.addEventListener("DOMContentLoaded", resolve, { once: true }));
  }
  const text = atob(document.getElementById(`trees-${number}`).textContent);
  const bytes = Uint8Array.from(text, (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

// A tree from its columns; a column that is not an array holds one value for all nodes.
function unpackTree({ nodes: columns, ...rest }) {
  const keys = Object.keys(columns);
  const nodes = columns.parent.map((_, id) => {
    const node = { id };
    for (const key of keys) node[key] = Array.isArray(columns[key]) ? columns[key][id] : columns[key];
    return node;
  });
  return { ...rest, nodes };
}

// A row of a file, with what the page's own trees have.
function withAnswers(row) {
  const { policy, reward } = row.usage || {};
  return { ...row, flops: ((policy || {}).flops || 0) + ((reward || {}).flops || 0),
    answers: list(row.snapshots).map((s) => [s.budget, s.answer_node]) };
}

// The rows of a file as a store.
function fileStore(rows) {
  const [searches, problems] = [new Map(), new Map()];
  for (const row of rows) {
    const tree = readTree(row);
    const name = JSON.stringify([String(row.policy ?? ""), String(row.search ?? row.strategy ?? "")]);
    if (!searches.has(name)) searches.set(name, searches.size);
    const problem = row.problem || {};
    const prompt = String(problem.prompt ?? problem.id ?? "");
    const id = JSON.stringify([problem.id ?? "", prompt]);
    if (!problems.has(id)) problems.set(id, { prompt, trees: new Map() });
    const outcome = row.outcome || (tree.answer ? tree.answer.verdict : null);
    problems.get(id).trees.set(searches.get(name),
      { outcome, nodes: row.nodes.length, row: async () => withAnswers(row) });
  }
  return { searches: [...searches.keys()].map((name) => JSON.parse(name)),
    problems: [...problems.values()], given: problems.size };
}

// What can be asked of a problem, for the searches of one policy: [words, problem => boolean].
function filtersOf(store, columns) {
  const outcome = (problem, search) => (problem.trees.get(search) || {}).outcome;
  const right = (problem, search) => outcome(problem, search) === "correct";
  const filters = [["all problems", () => true]];
  const named = (name) => columns.find((search) => store.searches[search][1] === name);
  const [mcts, best] = [named("mcts"), named("best_of_n_weighted")];
  if (mcts !== undefined && best !== undefined) {
    const both = (problem) => problem.trees.has(mcts) && problem.trees.has(best);
    filters.push(
      ["tree search and best of N disagree",
        (p) => both(p) && right(p, mcts) !== right(p, best)],
      ["only tree search solves", (p) => both(p) && right(p, mcts) && !right(p, best)],
      ["only best of N solves", (p) => both(p) && !right(p, mcts) && right(p, best)]);
  }
  for (const search of columns) {
    const { label } = strategyOf(store.searches[search][1]);
    filters.push([`solved by ${label}`, (p) => right(p, search)],
      [`not solved by ${label}`, (p) => p.trees.has(search) && !right(p, search)]);
  }
  return filters;
}

function treeButton(store, problem, search, open) {
  const tree = problem.trees.get(search);
  if (!tree) return element("td", {}, "–");
  const look = VERDICTS[tree.outcome] || { sign: "–", kind: "open", text: "no verdict" };
  const [policy, name] = store.searches[search];
  const button = element("button", {
    type: "button", class: `pill ${look.kind}`,
    "aria-label": `${problem.prompt.trim()}: ${words(policy)}, ${strategyOf(name).label}: `
      + `${look.text}, ${count(tree.nodes)} nodes`,
    onclick: () => open(problem, search),
  }, `${look.sign} ${count(tree.nodes)}`);
  Object.assign(button, { problem, search });
  return element("td", {}, button);
}

// Marks the cell and the row of the shown tree.
function markPicked(table, picked) {
  for (const button of table.querySelectorAll("button.pill")) {
    const here = button.problem === picked.problem;
    button.setAttribute("aria-pressed", String(here && button.search === picked.search));
    button.closest("tr").classList.toggle("picked", here);
  }
}

// Arrow keys move between the buttons of the table.
function moveInTable(event) {
  const by = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  const cell = event.target.closest("td");
  if (!by || !cell) return;
  const row = cell.parentElement;
  const to = by[0] ? (by[0] > 0 ? row.nextElementSibling : row.previousElementSibling) : row;
  const target = to && to.children[cell.cellIndex + by[1]];
  const button = target && target.querySelector("button");
  if (!button) return;
  event.preventDefault();
  button.focus();
}

// The whole explorer over the trees of `index`.
function treeExplorer(index) {
  let store = packedStore(index);
  let columns = [];
  let filters = [];
  let limit = ROWS_AT_ONCE;
  let asked = 0; // the newest request for a tree: an older one that ends later is dropped
  const picked = { problem: null, search: null, other: null, paints: [] };
  const [first, second] = [element("div", { id: "tree" }), element("div", { id: "tree-beside" })];
  const panes = element("div", { class: "panes" }, first, second);
  const note = element("p", { class: "quiet", role: "status" });
  const body = element("div", { class: "scroll problems" });
  body.addEventListener("keydown", moveInTable);
  const search = element("input", { type: "search", id: "tree-search", placeholder: "words of a problem" });
  const choices = (id) => element("select", { id });
  const [policy, filter, color, beside] = ["tree-policy", "tree-filter", "tree-color",
    "tree-compare"].map(choices);
  const fill = (select, options) => select.replaceChildren(...options.map(([value, text]) =>
    element("option", { value: String(value) }, text)));
  fill(color, Object.entries(COLORS).map(([name, { label }]) => [name, label]));

  const matching = () => {
    const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const [, keeps] = filters[Number(filter.value)] || [null, () => true];
    return store.problems.filter((problem) => columns.some((c) => problem.trees.has(c))
      && keeps(problem) && wanted.every((word) => problem.prompt.toLowerCase().includes(word)));
  };
  const drawList = () => {
    const found = matching();
    const heads = columns.map((c) => element("th", { scope: "col" },
      strategyOf(store.searches[c][1]).label));
    const rows = found.slice(0, limit).map((problem) => element("tr", {},
      element("th", { scope: "row" }, element("span", { title: problem.prompt },
        problem.prompt.trim() || "(empty)")),
      ...columns.map((c) => treeButton(store, problem, c, open))));
    body.replaceChildren(element("table", { id: "tree-table" },
      element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "problem"), ...heads)),
      element("tbody", {}, ...rows)));
    markPicked(body, picked);
    if (found.length > limit) {
      body.append(element("button", { type: "button", class: "more",
        onclick: () => { limit += ROWS_AT_ONCE; drawList(); } },
      `Show more of ${count(found.length)} problems`));
    }
    const left = store.given - store.problems.length;
    note.textContent = `${count(found.length)} of ${count(store.problems.length)} problems. `
      + (left > 0 ? `${count(left)} more are in the run's folder: open its files of trees.` : "");
    return found;
  };
  const drawPanes = async () => {
    const number = ++asked;
    const shown = [[first, picked.search], [second, picked.other]];
    const rows = await Promise.all(shown.map(([, wanted]) => {
      const tree = wanted === null ? null : picked.problem.trees.get(wanted);
      return tree ? tree.row().catch(() => ({})) : null; // a row without nodes says so in its panel
    }));
    if (number !== asked) return;
    panes.classList.toggle("pair", Boolean(rows[1]));
    picked.paints = [];
    shown.forEach(([box], i) => {
      if (rows[i]) picked.paints.push(showTree(box, rows[i], color.value));
      else box.replaceChildren();
    });
  };
  const open = (problem, wanted) => {
    if (picked.other === wanted || !problem.trees.has(picked.other)) picked.other = null;
    Object.assign(picked, { problem, search: wanted });
    const others = [...problem.trees.keys()].filter((other) => other !== wanted);
    fill(beside, [["", "nothing"], ...others.map((other) => [other,
      `${words(store.searches[other][0])}: ${strategyOf(store.searches[other][1]).label}`])]);
    beside.value = picked.other === null ? "" : String(picked.other);
    markPicked(body, picked);
    return drawPanes();
  };
  const choosePolicy = () => {
    columns = store.searches.map((_, i) => i).filter((i) => store.searches[i][0] === policy.value);
    filters = filtersOf(store, columns);
    fill(filter, filters.map(([text], i) => [i, text]));
    restart();
  };
  const restart = () => {
    limit = ROWS_AT_ONCE;
    const [problem] = drawList();
    if (picked.problem || !problem) return;
    open(problem, columns.find((c) => problem.trees.has(c)));
  };
  const start = () => {
    Object.assign(picked, { problem: null, search: null, other: null });
    const names = [...new Set(store.searches.map(([name]) => name))];
    fill(policy, names.map((name) => [name, words(name)]));
    if (!names.length) {
      first.replaceChildren(element("p", { class: "empty" }, "No search tree is in this report."));
    }
    choosePolicy();
  };
  policy.addEventListener("change", choosePolicy);
  for (const [box, on] of [[filter, "change"], [search, "input"]]) box.addEventListener(on, restart);
  color.addEventListener("change", () => picked.paints.forEach((paint) => paint(color.value)));
  beside.addEventListener("change", () => {
    picked.other = beside.value === "" ? null : Number(beside.value);
    drawPanes();
  });
  const file = fileChoice((name, found) => {
    store = found;
    start();
    note.textContent += ` They are those of ${name}, and stay on this computer.`;
  }, (text) => { note.textContent = text; });
  start();
  const field = (label, box) => element("label", {}, `${label} `, box);
  return [
    element("div", { class: "controls" }, field("Search", search), field("Policy", policy),
      field("Show", filter), element("label", { class: "file" }, "Open trees from a file …", file)),
    note, body,
    element("div", { class: "controls" }, field("Compare with", beside), field("Colour", color)),
    panes,
  ];
}

function fileChoice(opened, failed) {
  const file = element("input", { type: "file", accept: ".jsonl,.json" });
  file.addEventListener("change", async () => {
    if (!file.files.length) return;
    const name = file.files[0].name;
    try {
      const lines = (await file.files[0].text()).split("\n").filter((line) => line.trim());
      opened(name, fileStore(lines.map((line) => JSON.parse(line))));
    } catch (error) {
      failed(`${name} cannot be read as trees: ${error.message}.`);
    }
  });
  return file;
}
