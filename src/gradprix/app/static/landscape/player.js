/** Playback: buttons, slider, speed, and keys. */

import { element } from "./elements.js";

const SPEEDS = { 3: "very slow", 10: "slow", 30: "medium", 120: "fast" };

/**
 * Build the playback controls in an element.
 *
 * Args: the element; `seek(t)`, called with the step to show; the first step.
 * Returns an object with `show(t, steps)` and `stop()`.
 */
export function buildPlayer(root, seek, first = 0) {
  let shown = { t: first, steps: 1 };
  let timer = null;
  const button = (label, words, action) =>
    element("button", { type: "button", title: words, "aria-label": words, onclick: action }, label);
  const move = (by) => {
    stop();
    seek(Math.min(Math.max(shown.t + by, first), shown.steps));
  };
  const play = element(
    "button",
    { type: "button", title: "Play or pause (space)", onclick: () => (timer ? stop() : start()) },
    "▶ Play",
  );
  const slider = element("input", {
    type: "range",
    min: first,
    step: 1,
    "aria-label": "Step",
    oninput: () => {
      stop();
      seek(Number(slider.value));
    },
  });
  const output = element("output", { id: "step-readout" });
  const speed = element(
    "select",
    { "aria-label": "Speed" },
    ...Object.entries(SPEEDS).map(([value, label]) => element("option", { value }, label)),
  );
  speed.value = "30";
  root.replaceChildren(
    button("|◀", `To step ${first} (Home)`, () => move(-Infinity)),
    button("◀", "One step back (←)", () => move(-1)),
    play,
    button("▶", "One step forward (→)", () => move(1)),
    button("▶|", "To the last step (End)", () => move(Infinity)),
    slider,
    output,
    speed,
  );
  play.id = "play";

  function start() {
    let last = performance.now();
    let due = 0;
    if (shown.t >= shown.steps) seek(first);
    play.textContent = "❚❚ Pause";
    const tick = (now) => {
      due += (Math.max(now - last, 0) / 1000) * Number(speed.value); // a frame may have begun before the click
      last = now;
      const by = Math.floor(due);
      due -= by;
      if (by) seek(Math.min(shown.t + by, shown.steps));
      if (shown.t >= shown.steps) stop();
      else timer = requestAnimationFrame(tick);
    };
    timer = requestAnimationFrame(tick);
  }

  function stop() {
    if (timer) cancelAnimationFrame(timer);
    timer = null;
    play.textContent = "▶ Play";
  }

  const KEYS = {
    " ": () => play.click(),
    ArrowLeft: () => move(-1),
    ArrowRight: () => move(1),
    Home: () => move(-Infinity),
    End: () => move(Infinity),
  };
  document.addEventListener("keydown", (event) => {
    const isOwn =
      event.target.closest("input, select, textarea, button, a, summary, [data-arrows]") &&
      !(event.key !== " " && event.target.closest(".player"));
    if (!KEYS[event.key] || isOwn || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    KEYS[event.key]();
  });

  return {
    stop,
    show(t, steps) {
      shown = { t, steps };
      slider.max = steps;
      slider.value = t;
      output.textContent = `step ${t} of ${steps}`;
    },
  };
}
