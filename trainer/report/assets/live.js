// The page of a running recipe: it asks its server for the run's state and draws it again.

const POLL_MILLISECONDS = 3000;
const STATES = { done: ["good", "done"], running: ["open", "running"], waiting: ["open", "waiting"] };

function progressCell(stage) {
  if (stage.state === "waiting") return "";
  const share = known(stage.share) ? percent(stage.share, 0) : "";
  const box = element("div", {});
  if (known(stage.share)) box.append(bar(stage.share, 110));
  const text = [share, stage.left && `${stage.left} left`].filter(Boolean).join(", ");
  if (stage.state === "running" && text) box.append(element("span", { class: "under" }, text));
  return box;
}

function stagesTable(run) {
  return table([
    { head: "stage", cell: (s) => element("div", {}, s.name,
      element("span", { class: "under" }, words(s.kind))) },
    { head: "state", cell: (s) => pill(...STATES[s.state]) },
    { head: "progress", cell: progressCell },
    { head: "time", number: true, cell: (s) => (s.state === "waiting" ? "" : seconds(s.seconds)) },
  ], run.stages, { "aria-label": "Stages" });
}

// The stage whose `key` is shown: the running one, or the last that has some.
function latest(run, key) {
  const having = run.stages.filter((s) => s[key].length > 0);
  return having.find((s) => s.state === "running") || having[having.length - 1];
}

function lineOf(box, rows, title, share) {
  const tick = share ? { tickformat: ".0%", rangemode: "tozero" } : { rangemode: "tozero" };
  Plotly.react(box, [{
    type: "scatter", mode: rows.length < 30 ? "lines+markers" : "lines",
    x: rows.map((p) => p.step), y: rows.map((p) => p.value),
    line: { color: css("--mcts"), width: 2 }, hovertemplate: "%{x}: %{y:.3f}<extra></extra>",
  }], baseLayout({
    height: 250, xaxis: axis({ title: { text: "update or cycle", standoff: 8 } }),
    yaxis: axis({ title: { text: title, standoff: 8 }, ...tick }),
  }), { displayModeBar: false, responsive: true });
}

function drawLine(place, run, key, title, share) {
  const stage = latest(run, key);
  place.box.hidden = !stage;
  if (!stage) return;
  const rows = stage[key];
  const text = JSON.stringify([stage.name, rows]);
  if (place.chart.dataset.shown === text) return;
  place.chart.dataset.shown = text;
  place.chart.hidden = rows.length < 2;
  if (place.chart.hidden) return;
  const last = rows[rows.length - 1];
  const value = share ? percent(last.value) : decimals(last.value, 3);
  place.head.textContent = `${title} of ${stage.name}: ${value} at ${count(last.step)}`;
  lineOf(place.chart, rows, title, share);
}

function samplesOf(run) {
  const stage = latest(run, "samples");
  if (!stage) return [element("p", { class: "empty" }, "No solution has been sampled yet.")];
  return [
    element("p", { class: "quiet" }, `The last solutions in the folder of ${stage.name}.`),
    ...[...stage.samples].reverse().map((sample) => element("div", {},
      element("h3", {}, [sample.prompt.trim(), sample.note].filter(Boolean).join(" · ")),
      element("pre", { class: "steps", tabindex: "0" }, sample.text))),
  ];
}

function gatesOf(run) {
  const gates = run.stages.filter((s) => s.gate);
  if (!gates.length) return [element("p", { class: "empty" }, "No round has been judged yet.")];
  return [table([
    { head: "round", name: true, cell: (s) => s.name },
    { head: "decision", cell: (s) => s.gate },
  ], gates, { "aria-label": "Gates" })];
}

function place(title) {
  const head = element("h3", {}, title);
  const box = element("div", { hidden: "" }, head);
  const drawn = element("div", { class: "chart", role: "img", "aria-label": title });
  box.append(drawn);
  return { box, head, chart: drawn };
}

// Fill `box` again only if `value` is another one than before: what has the focus stays.
function renew(box, value, children) {
  const text = JSON.stringify(value);
  if (box.dataset.shown === text) return;
  box.dataset.shown = text;
  box.replaceChildren(...children());
}

function section(title, ...children) {
  return element("section", { "aria-label": title }, element("h2", {}, title), ...children);
}

function start() {
  const main = document.getElementById("main");
  const stages = element("div", {});
  const loss = place("training loss");
  const accuracy = place("held-out accuracy");
  const gates = element("div", {});
  const samples = element("div", {});
  const line = element("pre", { class: "steps", "aria-label": "Newest line of the log" });
  main.append(
    section("Stages", stages, line),
    section("Training", element("div", { class: "two" }, loss.box, accuracy.box)),
    section("Gates", gates),
    section("Last solutions", samples),
  );
  const lost = element("p", { class: "lead", role: "status" });
  document.querySelector("header").append(lost);
  let shown = "";

  function draw(run) {
    const running = run.stages.find((s) => s.state === "running");
    const done = run.stages.filter((s) => s.state === "done").length;
    document.getElementById("run").textContent = run.recipe;
    document.getElementById("headline").textContent = run.name;
    document.getElementById("subline").textContent =
      `${done} of ${run.stages.length} stages are done` + (running ? `; ${running.name} is running.` : ".");
    renew(stages, run.stages.map((s) => [s.state, s.seconds, s.share, s.left]), () => [stagesTable(run)]);
    line.textContent = running ? running.line : "";
    line.hidden = !line.textContent;
    drawLine(loss, run, "losses", "training loss", false);
    drawLine(accuracy, run, "accuracies", "held-out accuracy", true);
    renew(gates, run.stages.map((s) => s.gate), () => gatesOf(run));
    renew(samples, (latest(run, "samples") || { samples: [] }).samples, () => samplesOf(run));
    document.body.dataset.drawn = String(done);
  }

  async function poll() {
    try {
      const answer = await fetch("state.json", { cache: "no-store" });
      if (!answer.ok) throw new Error(String(answer.status));
      const text = await answer.text();
      lost.textContent = "";
      if (text !== shown) draw(JSON.parse(text));
      shown = text;
    } catch {
      lost.textContent = "The run has ended or was stopped; this is its last state.";
    }
    setTimeout(poll, POLL_MILLISECONDS);
  }

  draw(JSON.parse(document.getElementById("content").textContent));
  poll();
}

window.addEventListener("load", start);
