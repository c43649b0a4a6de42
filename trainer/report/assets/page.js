// The page from top to bottom. Every section has a sentence for when its numbers are missing, or is
// left out.

const LABELS = {
  final_vs_sft_greedy: "Last policy against the first, both greedy",
  mcts_vs_greedy: "Tree search against greedy",
  best_of_n_vs_greedy: "Best of N against greedy",
  mcts_vs_best_of_n: "Tree search against best of N at nearly equal compute",
  mcts_vs_uniform_control: "Guided tree search against the unguided control",
};

function list(value) {
  return Array.isArray(value) ? value : [];
}

function decidedness(row) {
  if (!known(row.low) || !known(row.high)) return pill("open", "no interval");
  if (row.low > 0) return pill("good", "decided: better");
  if (row.high < 0) return pill("bad", "decided: worse");
  return pill("open", "undecided");
}

function headline(results) {
  const curve = list(results.training_curve);
  const learners = list(results.learners).filter((c) => list(c.test).length);
  if (learners.length > 1) {
    const { policy, value } = learners[0].test[0];
    return `${learners.length} learners from one policy: greedy accuracy on test problems was `
      + `${percent(value)} (${words(policy)}), and is ${spread(learners)}.`;
  }
  const [first, last] = [curve[0], curve[curve.length - 1]];
  if (!first || first === last) return "What this run measured";
  const change = (results.comparisons || {}).final_vs_sft_greedy;
  const values = `from ${percent(first.value)} to ${percent(last.value)}`;
  if (!change || !known(change.low)) return `Greedy accuracy on test problems went ${values}.`;
  const interval = `95 % interval ${points(change.low)} to ${points(change.high)}`;
  if (change.low > 0) {
    return `Greedy accuracy on test problems rose ${values}: ${points(change.difference)} points `
      + `(${interval}).`;
  }
  if (change.high < 0) {
    return `Greedy accuracy on test problems fell ${values}: ${points(change.difference)} points `
      + `(${interval}).`;
  }
  return `Greedy accuracy on test problems went ${values}; whether it changed is undecided `
    + `(${points(change.difference)} points, ${interval}).`;
}

function spread(learners) {
  const ends = learners.map((c) => ({ name: c.name, value: c.test[c.test.length - 1].value }))
    .sort((a, b) => a.value - b.value);
  const [least, most] = [ends[0], ends[ends.length - 1]];
  return `from ${percent(least.value)} (${words(least.name)}) to ${percent(most.value)} (${words(most.name)})`;
}

function subline(results) {
  const rows = list(results.accuracy);
  const curve = list(results.training_curve);
  const last = curve.length ? curve[curve.length - 1].policy : (rows[rows.length - 1] || {}).policy;
  const searches = rows.filter((r) => r.policy === last && r.strategy === "mcts");
  const search = searches.sort((a, b) => b.budget - a.budget)[0];
  if (!search) return "";
  const pair = (results.comparisons || {}).mcts_vs_best_of_n;
  let text = `With ${count(search.budget)} simulations of tree search the last policy solves `
    + `${percent(search.value)}.`;
  if (pair && known(pair.low)) {
    const size = `${points(pair.difference)} points, 95 % interval `
      + `${points(pair.low)} to ${points(pair.high)}`;
    text += pair.low > 0 ? ` That is better than best of N at nearly equal compute (${size}).`
      : pair.high < 0 ? ` That is worse than best of N at nearly equal compute (${size}).`
        : ` Against best of N at nearly equal compute it is undecided (${size}).`;
  }
  return text;
}

function comparisonsSection(results) {
  const rows = Object.entries(results.comparisons || {}).filter(([, row]) => row)
    .map(([name, row]) => ({ name, ...row, value: row.difference }));
  const order = Object.keys(LABELS);
  const place = (row) => (order.includes(row.name) ? order.indexOf(row.name) : order.length);
  rows.sort((a, b) => place(a) - place(b));
  if (!rows.length) return ["No comparisons were made in this run."];
  const ends = rows.flatMap((r) => [r.low, r.high, r.difference]).filter(known).map(Math.abs);
  const reach = Math.max(0.01, ...ends) * 1.08;
  return [
    element("p", { class: "quiet" }, "Differences in accuracy on the same test problems, in points. "
      + "A difference is decided when its 95 % interval does not contain 0."),
    table([
      { head: "comparison", cell: (r) => element("span", {}, LABELS[r.name] || words(r.name),
        element("span", { class: "under" }, r.metric || "")) },
      { head: "points", number: true, cell: (r) => points(r.difference) },
      { head: "95 % interval", number: true, cell: (r) => `${points(r.low)} to ${points(r.high)}` },
      { head: "around 0", cell: (r) => range(r, -reach, reach, true) },
      { head: "problems", number: true, cell: (r) => count(r.n) },
      { head: "", cell: decidedness },
    ], rows, { id: "comparisons-table" }),
  ];
}

function gainsSection(results) {
  const gains = list(results.gains);
  if (!gains.length) return null;
  const rows = gains.flatMap((gain) => [
    { group: `${LABELS[gain.comparison] || words(gain.comparison)}: ${points(gain.difference)} points `
      + `(${points(gain.low)} to ${points(gain.high)})` },
    ...list(gain.controls),
    ...list(gain.missing).map((control) => ({ control, missing: true })),
  ]);
  return [
    element("p", { class: "quiet" }, "Each gain, and below it what remains of it over its controls. A "
      + "control is a simple thing that costs about the same."),
    table([
      { head: "over the control", name: true, cell: (r) => r.control },
      { head: "points", number: true, cell: (r) => (r.missing ? "–" : points(r.difference)) },
      { head: "95 % interval", number: true,
        cell: (r) => (r.missing ? "–" : `${points(r.low)} to ${points(r.high)}`) },
      { head: "", cell: (r) => (r.missing ? pill("open", "not in this run")
        : decidedness(r)) },
    ], rows, { id: "gains-table" }),
  ];
}

function warningsSection(results) {
  const rows = list(results.warnings);
  if (!rows.length) return null;
  return [table([
    { head: "stage", name: true, cell: (r) => words(r.stage) },
    { head: "warning", cell: (r) => r.text },
  ], rows, { id: "warnings-table" })];
}

function supervisedSection(results) {
  const curves = list(results.supervised);
  if (!curves.length) return null;
  const ending = (c) => (c.stopped_early ? "stopped: no evaluation was better"
    : c.still_rising ? "still rising at its end" : "not rising at its end");
  const rows = curves.flatMap((c) => [
    { group: `${words(c.stage)}: ${ending(c)}` },
    ...list(c.points).map((p, i) => ({ ...p, update: c.updates[i], best: c.updates[i] === c.best_update })),
  ]);
  return [
    element("p", { class: "quiet" }, "Greedy accuracy on validation problems during training on the "
      + "demonstrations. What a learner gains over a policy that was still rising, more updates may "
      + "give too."),
    table([
      { head: "updates", number: true, cell: (r) => count(r.update) },
      { head: "accuracy", number: true, cell: (r) => percent(r.value) },
      { head: "95 % interval", number: true, cell: (r) => `${percent(r.low)} to ${percent(r.high)}` },
      { head: "0 to 100 %", cell: (r) => range(r, 0, 1, false) },
      { head: "n", number: true, cell: (r) => count(r.n) },
      { head: "", cell: (r) => (r.best ? pill("good", "kept") : "") },
    ], rows, { id: "supervised-table" }),
  ];
}

function times(ratio) {
  return `${ratio < 10 ? decimals(ratio, 1) : count(ratio)} times`;
}

function trainingSentence(curve) {
  const [first, last] = [curve[0], curve[curve.length - 1]];
  if (first === last) return `One policy was measured: ${percent(first.value)} greedy.`;
  const cost = first.training_flops > 0
    ? `, with ${times(last.training_flops / first.training_flops)} the training compute` : "";
  return `Learning: greedy accuracy went from ${percent(first.value)} (${words(first.policy)}) to `
    + `${percent(last.value)} (${words(last.policy)})${cost}.`;
}

function fitSentence(fit) {
  if (!fit) return "";
  const traded = list(fit.exchange).map((x) => `a doubling of the compute of ${strategyOf(x.strategy).label} `
    + `brings as much as ${decimals(x.training_doublings, 1)} doublings of the training compute`);
  return ` ${points(fit.slope.value)} points per doubling of the training compute (${points(fit.slope.low)} to `
    + `${points(fit.slope.high)}, ${count(fit.policies.length)} policies)`
    + `${traded.length ? `; ${traded.join("; ")}` : ""}.`;
}

function testTimeSentence(rows) {
  const greedy = rows.find((r) => r.strategy === "greedy");
  const searches = rows.filter((r) => r.strategy === "mcts").sort((a, b) => b.budget - a.budget);
  if (greedy && !searches.length) {
    const chains = rows.filter((r) => r.strategy === "thinking").sort((a, b) => a.budget - b.budget);
    if (chains.length > 1) return chainSentence(chains[0], chains[chains.length - 1]);
  }
  if (!greedy || !searches.length) return `Accuracies of ${words(rows[0].policy)}.`;
  const most = searches[0];
  return `Thinking longer: ${words(most.policy)} solves ${percent(greedy.value)} greedily and `
    + `${percent(most.value)} with ${count(most.budget)} simulations, at `
    + `${times(most.flops / greedy.flops)} the compute per problem.`;
}

function chainSentence(first, last) {
  return `Thinking longer: one chain of ${words(last.policy)} solves ${percent(first.value)} with at most `
    + `${count(first.budget)} tokens of thought and ${percent(last.value)} with ${count(last.budget)}, at `
    + `${times(last.flops / first.flops)} the compute per problem.`;
}

// The two curves of o1. The strategies of the second one are those of the last policy of the first.
function curvesSection(results) {
  const curve = list(results.training_curve).filter((r) => known(r.value) && known(r.training_flops));
  const rows = list(results.accuracy).filter((r) => known(r.value) && known(r.flops));
  if (!curve.length && !rows.length) return ["Accuracy against compute was not measured in this run."];
  const last = curve.length ? curve[curve.length - 1].policy : rows[rows.length - 1].policy;
  const shown = rows.filter((r) => r.policy === last
    && ["greedy", "thinking", "mcts", "best_of_n_weighted", "majority"].includes(r.strategy));
  const half = (title, sentence, drawn) => element("div", {}, element("h3", {}, title),
    element("p", { class: "quiet" }, sentence), drawn);
  const left = curve.length
    ? half("Against training compute", trainingSentence(curve) + fitSentence(results.training_fit),
      trainingChart(curve))
    : element("p", { class: "empty" }, "The training curve was not measured in this run.");
  const right = shown.length
    ? half("Against test-time compute", testTimeSentence(shown), testTimeChart(shown, "chart-thinking", 400))
    : element("p", { class: "empty" }, "Test-time compute was not measured in this run.");
  const tested = curve.length ? `The training curve counts ${count(curve[0].n)} test problems and all `
    + "compute spent before each policy was ready, labelling and search included. " : "";
  return [
    element("div", { class: "two" }, left, right),
    element("p", { class: "quiet" }, `${tested}Bars are 95 % intervals.`),
  ];
}

function testTimeSection(results) {
  const rows = list(results.accuracy).filter((r) => known(r.value) && known(r.flops));
  if (!rows.length) return ["Test-time compute was not measured in this run."];
  return [
    element("p", { class: "quiet" }, "Accuracy against the mean compute spent on one problem by "
      + "policy and reward model together. Bars are 95 % intervals. The dashed line is no strategy: "
      + "pass@N counts a problem as solved if any of N samples is right, which only an oracle could "
      + "pick out."),
    testTimeChart(rows, "chart-test-time", 470),
    ...scalingTable(list(results.scaling)),
  ];
}

function scalingTable(rows) {
  if (!rows.length) return [];
  return [
    element("p", { class: "quiet" }, "What a doubling of the compute per problem brings: the slope of the "
      + "least-squares line of accuracy over the logarithm of the compute. The interval covers the choice "
      + "of problems, not the seed of a training."),
    table([
      { head: "policy", name: true, cell: (r) => words(r.policy) },
      { head: "strategy", cell: (r) => strategyOf(r.strategy).label },
      { head: "budgets", number: true, cell: (r) => count(r.points) },
      { head: "from FLOPs", number: true, cell: (r) => power(r.low_flops) },
      { head: "to FLOPs", number: true, cell: (r) => power(r.high_flops) },
      { head: "points per doubling", number: true, cell: (r) => points(r.slope.value) },
      { head: "95 % interval", number: true,
        cell: (r) => `${points(r.slope.low)} to ${points(r.slope.high)}` },
      { head: "n", number: true, cell: (r) => count(r.slope.n) },
    ], rows, { id: "scaling-table" }),
  ];
}

function accuracySection(results) {
  const rows = list(results.accuracy);
  if (!rows.length) return ["No accuracies were measured in this run."];
  const order = strategyOrder(rows);
  const grouped = [...new Set(rows.map((r) => r.policy))].flatMap((policy) => [
    { group: `Policy: ${words(policy)}` },
    ...rows.filter((r) => r.policy === policy).sort((a, b) =>
      order.indexOf(a.strategy) - order.indexOf(b.strategy) || a.budget - b.budget),
  ]);
  return [
    element("p", { class: "quiet" }, "Tokens and FLOPs are means for one problem. Format: the share of "
      + "answers that can be read as a solution. Cut off: the share that reached the token limit. "
      + "Seen: the share of a problem's whole tree of legal steps that a tree search saw."),
    table([
      { head: "strategy", name: true, cell: (r) => strategyOf(r.strategy).label },
      { head: "budget", number: true, cell: (r) => count(r.budget) },
      { head: "accuracy", number: true, cell: (r) => percent(r.value) },
      { head: "95 % interval", number: true,
        cell: (r) => `${percent(r.low)} to ${percent(r.high)}` },
      { head: "0 to 100 %", cell: (r) => range(r, 0, 1, false) },
      { head: "n", number: true, cell: (r) => count(r.n) },
      { head: "format", number: true, cell: (r) => percent(r.format_rate) },
      { head: "cut off", number: true, cell: (r) => percent(r.truncation_rate) },
      { head: "seen", number: true, cell: (r) => percent(r.visited_share) },
      { head: "tokens", number: true, cell: (r) => count(r.generated_tokens) },
      { head: "policy FLOPs", number: true, cell: (r) => power(r.policy_flops) },
      { head: "reward FLOPs", number: true, cell: (r) => power(r.reward_flops) },
    ], grouped, { id: "accuracy-table" }),
  ];
}

const BEHAVIOURS = ["analysis", "decomposition", "completion", "alternative", "evaluation", "correction"];

function thoughtsSection(results) {
  const rates = list(results.behaviours);
  const rows = list(results.thinking);
  if (!rates.length) return null;
  const accuracy = (r) => list(results.accuracy).find((a) => a.policy === r.policy
    && a.strategy === "thinking" && a.budget === r.budget) || {};
  const parts = [
    element("p", { class: "quiet" }, "Share of the greedy solutions that show a behaviour, and in "
      + "brackets how many lines or sentences of a solution show it. False lines are those of a "
      + "Countdown thought that replaying finds to be false."),
    table([
      { head: "policy", name: true, cell: (r) => words(r.policy) },
      ...BEHAVIOURS.map((name) => ({ head: name, number: true,
        cell: (r) => `${percent(r.rates.shown[name], 0)} (${r.rates.per_solution[name].toFixed(1)})` })),
      { head: "false lines", number: true,
        cell: (r) => (known(r.rates.false_lines) ? percent(r.rates.false_lines) : "") },
    ], rates, { id: "behaviours-table" }),
  ];
  if (!rows.length) return parts;
  return [...parts,
    element("p", { class: "quiet" }, "One greedy chain per problem. A thought that is longer than "
      + "its budget is cut, and the policy is asked for the answer."),
    table([
      { head: "policy", name: true, cell: (r) => words(r.policy) },
      { head: "most tokens of thought", number: true, cell: (r) => count(r.budget) },
      { head: "accuracy", number: true, cell: (r) => percent(accuracy(r).value) },
      { head: "mean tokens of thought", number: true, cell: (r) => r.thinking_tokens.toFixed(1) },
      { head: "cut", number: true, cell: (r) => percent(r.cut) },
      { head: "extended", number: true, cell: (r) => percent(r.extended) },
      { head: "FLOPs", number: true, cell: (r) => power(accuracy(r).flops) },
    ], rows, { id: "thinking-table" }),
  ];
}

function prmSection(results) {
  const prm = results.prm;
  if (!prm || !known(prm.auroc)) return ["The reward model's quality was not measured in this run."];
  const tile = (value, text) => element("div", { class: "tile" }, element("b", {}, value),
    element("span", {}, text));
  const bins = list(prm.reliability).filter((b) => known(b.predicted) && known(b.observed));
  const tiles = element("div", { class: "tiles" },
    tile(decimals(prm.auroc, 3), `AUROC within a problem, 95 % interval ${decimals(prm.auroc_low, 3)} `
      + `to ${decimals(prm.auroc_high, 3)}, ${count(prm.pairs)} pairs; 0.5 is a coin`),
    tile(decimals(prm.brier_skill), "Brier skill; 0 is the base rate, 1 is perfect"),
    tile(decimals(prm.calibration_error, 3), "expected calibration error; 0 is perfect"),
    tile(count(prm.prefixes), `prefixes, each with ${count(prm.rollouts_per_prefix)} completions as `
      + "ground truth"));
  const depths = list(prm.auroc_by_depth);
  const byDepth = depths.length ? [aurocText(), aurocTable(depths, "prm-auroc-table")] : [];
  if (!bins.length) {
    return [tiles, element("p", { class: "empty" }, "There is no reliability diagram."), ...byDepth];
  }
  return [
    element("p", { class: "quiet" }, "The reward model's chance of success after each step, against "
      + "the share of completions from there that were right."),
    element("div", { class: "two" }, reliabilityChart(bins),
      element("div", {}, tiles, element("p", { class: "quiet" }, "On the dashed line a prediction of "
        + "30 % comes true 30 % of the time. Larger points hold more prefixes."))),
    ...byDepth,
  ];
}

function gatesSection(results) {
  const rows = list(results.gates);
  if (!rows.length) return ["No policy went through a gate in this run."];
  return [
    element("p", { class: "quiet" }, "A new policy is kept only if it beats the policy before it on "
      + "fresh validation problems (exact one-sided test on pairs)."),
    table([
      { head: "round", name: true, cell: (r) => words(r.round) },
      { head: "", cell: (r) => pill(r.accepted ? "good" : "bad", r.accepted ? "kept" : "refused") },
      { head: "before", number: true, cell: (r) => percent(r.incumbent_accuracy) },
      { head: "candidate", number: true, cell: (r) => percent(r.candidate_accuracy) },
      { head: "won", number: true, cell: (r) => count(r.wins) },
      { head: "lost", number: true, cell: (r) => count(r.losses) },
      { head: "problems", number: true, cell: (r) => count(r.n) },
      { head: "p", number: true, cell: (r) => chance(r.p_value) },
      { head: "reason", cell: (r) => r.reason || "–" },
    ], rows, { id: "gates-table" }),
  ];
}

function makingSection(results) {
  const rows = list(results.data_making);
  if (!rows.length) return ["The making of training data was not compared in this run."];
  const names = { mcts: "tree search with the verifier", sample: "plain sampling, equal tokens",
    sample_equal_flops: "plain sampling, equal FLOPs" };
  return [
    element("p", { class: "quiet" }, "How much verified training data a million tokens buy. Tokens are "
      + "positions run through policy and reward model."),
    table([
      { head: "method", name: true, cell: (r) => names[r.method] || words(r.method) },
      { head: "problems", number: true, cell: (r) => count(r.problems) },
      { head: "solved", number: true, cell: (r) => count(r.solved) },
      { head: "distinct solutions", number: true, cell: (r) => count(r.distinct_solutions) },
      { head: "tokens", number: true, cell: (r) => count(r.tokens) },
      { head: "computed FLOPs", number: true, cell: (r) => power(r.computed_flops) },
      { head: "solved per million tokens", number: true,
        cell: (r) => count(r.solved_per_million_tokens) },
      { head: "distinct per million tokens", number: true,
        cell: (r) => count(r.distinct_per_million_tokens) },
      { head: "distinct per TFLOP", number: true, cell: (r) => count(r.distinct_per_tflop) },
    ], rows, { id: "making-table" }),
  ];
}

function ledgerSection(results) {
  const rows = list(results.ledger);
  if (!rows.length) return ["No compute was recorded in this run."];
  const total = { total: true, stage: "all", model: "", kind: "" };
  const columns = ["prompt_tokens", "cached_tokens", "generated_tokens", "positions", "flops",
    "repeated_positions", "repeated_flops"];
  for (const key of columns) total[key] = rows.reduce((sum, r) => sum + (r[key] || 0), 0);
  const most = Math.max(1, ...rows.map((r) => r.flops || 0));
  return [
    element("p", { class: "quiet" }, "What every stage ran through the models. Failed branches and "
      + "refused rounds are included; training counts forward and backward passes."),
    table([
      { head: "stage", name: true, cell: (r) => words(r.stage) },
      { head: "model", name: true, cell: (r) => words(r.model) },
      { head: "for", name: true, cell: (r) => words(r.kind) },
      { head: "prompt tokens", number: true, cell: (r) => count(r.prompt_tokens) },
      { head: "from cache", number: true, cell: (r) => count(r.cached_tokens) },
      { head: "generated", number: true, cell: (r) => count(r.generated_tokens) },
      { head: "positions", number: true, cell: (r) => count(r.positions) },
      { head: "FLOPs", number: true, cell: (r) => power(r.flops) },
      { head: "positions of known prefixes", number: true,
        cell: (r) => count(r.repeated_positions || 0) },
      { head: "FLOPs of known prefixes", number: true, cell: (r) => power(r.repeated_flops || 0) },
      { head: "", cell: (r) => (r.total ? "" : bar((r.flops || 0) / most, 110)) },
    ], [...rows, total], { id: "ledger-table" }),
    ...serverTable(list(results.servers)),
  ];
}

function serverTable(rows) {
  if (!rows.length) return [];
  return [
    element("p", { class: "quiet" }, "What the policy's servers did for these stages, by their own "
      + "counts. The table above counts what the requests need, whatever a server remembers."),
    table([
      { head: "stage", name: true, cell: (r) => words(r.stage) },
      { head: "requests", number: true, cell: (r) => count(r.requests) },
      { head: "prompt tokens computed", number: true, cell: (r) => count(r.computed_tokens) },
      { head: "prompt tokens from cache", number: true, cell: (r) => count(r.cached_tokens) },
      { head: "share from cache", number: true, cell: (r) => percent(r.cached_share) },
      { head: "generated", number: true, cell: (r) => count(r.generated_tokens) },
    ], rows, { id: "server-table" }),
  ];
}

function secondsSection(results) {
  const rows = Object.entries(results.stages || {}).filter(([, value]) => known(value))
    .map(([name, value]) => ({ name, value }));
  if (!rows.length) return ["The stages' times were not recorded in this run."];
  const total = rows.reduce((sum, r) => sum + r.value, 0);
  const most = Math.max(...rows.map((r) => r.value), 1e-9);
  return [table([
    { head: "stage", name: true, cell: (r) => words(r.name) },
    { head: "time", number: true, cell: (r) => seconds(r.value) },
    { head: "share", number: true, cell: (r) => percent(total ? r.value / total : 0, 0) },
    { head: "", cell: (r) => (r.total ? "" : bar(r.value / most, 420)) },
  ], [...rows, { total: true, name: "all", value: total }], { id: "seconds-table" })];
}

function treesSection(results, content) {
  return [
    element("p", { class: "quiet" }, "Each node is one step. Prior: the policy's share of proposals. "
      + "Value: the mean backed up by the search. PRM: the reward model's chance of success after "
      + "this step. The chosen answer and the way to it are marked."),
    ...treeExplorer(content.trees || {}),
  ];
}

const SECTIONS = [
  ["curves", "Accuracy against compute", curvesSection],
  ["warnings", "Warnings", warningsSection],
  ["gains", "Gains and their controls", gainsSection],
  ["comparisons", "Comparisons", comparisonsSection],
  ["supervised", "Training on the demonstrations", supervisedSection],
  ["learners", "Learners at what they sampled", learnersSection],
  ["ppo", "PPO by cycle", ppoSection],
  ["test-time", "Test-time compute, all strategies", testTimeSection],
  ["accuracy", "All accuracies", accuracySection],
  ["thoughts", "Thoughts", thoughtsSection],
  ["prm", "Reward model", prmSection],
  ["prm-evaluation", "Reward model, evaluated in full", prmEvaluationSection],
  ["gates", "Gates", gatesSection],
  ["making", "Making training data", makingSection],
  ["ledger", "Compute ledger", ledgerSection],
  ["seconds", "Time by stage", secondsSection],
  ["trees", "Search trees", treesSection],
];

function drawPage() {
  const content = JSON.parse(document.getElementById("content").textContent);
  const { results } = content;
  const fill = (id, text) => { document.getElementById(id).textContent = text; };
  fill("run", `${results.run ?? "run"} · seed ${results.seed ?? "unknown"}`);
  fill("headline", headline(results));
  fill("subline", subline(results));
  const task = results.task || {};
  fill("task", [task.verifier, task.description].filter(Boolean).join(": "));
  fill("footer", "");
  document.getElementById("footer").append(element("p", { class: "quiet" },
    "Every number on this page is in results.json beside it. Intervals of accuracies are Wilson's, "
    + "of differences those of paired means; both at 95 %."));
  const main = document.getElementById("main");
  const links = element("ul", {});
  for (const [id, title, build] of SECTIONS) {
    const built = build(results, content);
    if (!built) continue; // a section of a stage that this run did not have
    const parts = built.map((part) =>
      (typeof part === "string" ? element("p", { class: "empty" }, part) : part));
    main.append(element("section", { id, "aria-labelledby": `${id}-title` },
      element("h2", { id: `${id}-title` }, title), ...parts));
    links.append(element("li", {}, element("a", { href: `#${id}` }, title)));
  }
  document.getElementById("sections").append(links);
}

function drawAllCharts() {
  drawCharts();
  for (const query of ["(prefers-color-scheme: dark)", "(max-width: 860px)"]) {
    window.matchMedia(query).addEventListener("change", drawCharts);
  }
}

drawPage();
// The library of charts stands below this script: words and tables are seen before it is read.
document.addEventListener("DOMContentLoaded", drawAllCharts);
