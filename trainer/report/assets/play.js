// Plays a search. Nodes are numbered in the order in which the search made them: a frame is one
// sample, or one new path of a tree search, whose numbers are those of the whole search.

const FRAME_MILLISECONDS = 500;

// Frames: how many nodes there are, and the answer's node if it is known.
function framesOf(tree) {
  const frames = [{ nodes: 1 }];
  tree.nodes.forEach((node, place) => {
    if (place === 0) return;
    const goesOn = place > 1 && node.parent === tree.nodes[place - 1].id;
    if (goesOn) frames[frames.length - 1].nodes = place + 1; // a further step of the same sample
    else frames.push({ nodes: place + 1 });
  });
  const last = frames.length - 1;
  if (tree.nodes.every((node) => !node.simulations)) {
    for (const [budget, node] of list(tree.row.answers)) { // of samples: their number
      if (budget < last) frames[budget].answer = node;
    }
    frames.forEach((frame, i) => { if (i && !("answer" in frame)) frame.answer = frames[i - 1].answer; });
  }
  return frames;
}

function showFrame(tree, frames, at) {
  const frame = frames[at];
  const whole = at === frames.length - 1;
  tree.nodes.forEach((node, place) => { node.later = place >= frame.nodes; });
  const answer = whole ? answerOf(tree.row) : frame.answer;
  chooseAnswer(tree, tree.byId.get(answer) || null);
}

// The controls. `moved` is called when another frame is shown.
function player(tree, moved) {
  const frames = framesOf(tree);
  const last = frames.length - 1;
  const what = tree.nodes.some((node) => node.simulations) ? "new path" : "sample";
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
    place.textContent = `${what} ${count(Number(slider.value))} of ${count(last)}`;
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
