// Plays a search. A frame is one batch of simulations where the tree's row tells them. Else it is one
// sample, or one new path of a tree search, as nodes are numbered in the order in which the search
// made them; the numbers are then those of the whole search.

const FRAME_MILLISECONDS = 500;

// Frames: how many nodes there are, the answer's node if it is known, and `place`, what is counted.
// `backups` holds the node and the value of each visit since the frame before.
function framesOf(tree) {
  const answers = list(tree.row.answers);
  const answerAt = (place) => (answers.filter(([budget]) => budget <= place).pop() || [])[1];
  if (list(tree.row.simulations).length) {
    const batches = tree.row.simulations.map(([done, nodes, backups]) =>
      ({ nodes, place: done, backups, answer: answerAt(done) }));
    batches[batches.length - 1].nodes = tree.nodes.length; // the answer may be completed at the end
    return [{ nodes: 1, place: 0, backups: [] }, ...batches];
  }
  const frames = [{ nodes: 1, place: 0 }];
  const sampled = tree.nodes.every((node) => !node.simulations); // budgets count samples
  tree.nodes.forEach((node, place) => {
    if (place === 0) return;
    const goesOn = place > 1 && node.parent === tree.nodes[place - 1].id;
    if (goesOn) frames[frames.length - 1].nodes = place + 1; // a further step of the same sample
    else frames.push({ nodes: place + 1, place: frames.length });
  });
  if (sampled) frames.forEach((frame) => { frame.answer = answerAt(frame.place); });
  return frames;
}

function frameWord(tree) {
  if (list(tree.row.simulations).length) return "simulation";
  return tree.nodes.some((node) => node.simulations) ? "new path" : "sample";
}

function showFrame(tree, frames, at) {
  const whole = at === frames.length - 1;
  tree.nodes.forEach((node, place) => {
    const { visit_count, value } = tree.row.nodes[place];
    Object.assign(node, { later: place >= frames[at].nodes, visit_count, value });
  });
  if (!whole && frames[at].backups) countVisits(tree, frames.slice(0, at + 1));
  chooseAnswer(tree, tree.byId.get(whole ? answerOf(tree.row) : frames[at].answer) || null);
}

// Visits and mean values after these frames.
function countVisits(tree, frames) {
  const [visits, sums] = [new Map(), new Map()];
  for (const { backups } of frames) {
    for (const [id, value] of backups) {
      for (const node of pathTo(tree, tree.byId.get(id))) {
        visits.set(node, (visits.get(node) || 0) + 1);
        sums.set(node, (sums.get(node) || 0) + value);
      }
    }
  }
  for (const node of tree.nodes) {
    node.visit_count = visits.get(node) || 0;
    node.value = node.visit_count ? sums.get(node) / node.visit_count : node.score;
  }
}

// The controls. `moved` is called when another frame is shown.
function player(tree, moved) {
  const frames = framesOf(tree);
  const last = frames.length - 1;
  const what = frameWord(tree);
  let timer = null;
  const slider = element("input", { type: "range", min: "0", max: String(last), step: "1",
    "aria-label": `Place in the search, by ${what}` });
  slider.value = String(last);
  const place = element("output", {});
  const button = element("button", { type: "button", class: "play" }, "▶ Play");
  const stop = () => {
    clearInterval(timer);
    timer = null;
    button.textContent = "▶ Play";
  };
  const show = (at) => {
    slider.value = String(Math.max(0, Math.min(last, at)));
    showFrame(tree, frames, Number(slider.value));
    say();
    moved();
  };
  const say = () => {
    place.textContent = `${what} ${count(frames[Number(slider.value)].place)} `
      + `of ${count(frames[last].place)}`;
    slider.setAttribute("aria-valuetext", place.textContent);
  };
  const tick = () => {
    if (!button.isConnected) return stop(); // another tree is shown
    show(Number(slider.value) + 1);
    if (Number(slider.value) >= last) stop();
  };
  button.addEventListener("click", () => {
    if (timer !== null) return stop();
    button.textContent = "❚❚ Pause";
    if (Number(slider.value) >= last) show(0);
    timer = setInterval(tick, FRAME_MILLISECONDS);
  });
  slider.addEventListener("input", () => { stop(); show(Number(slider.value)); });
  const go = (by, sign, name) => element("button", { type: "button", "aria-label": name,
    onclick: () => { stop(); show(Number(slider.value) + by); } }, sign);
  say();
  return element("div", { class: "controls player" }, button, go(-1, "◀", `One ${what} back`),
    go(1, "▶", `One ${what} on`), slider, place);
}
