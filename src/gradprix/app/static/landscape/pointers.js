/** Pointer and keys on the figures: moving the starting point, turning the relief, seeking in the loss plot. */

import { formatNumber } from "./format.js";
import { SURFACES } from "./surfaces.js";

const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
/** Part of the box by which an arrow key moves the starting point; with Shift ten times as much. */
const KEY_STEP = 1 / 200;

/**
 * Listen to pointers and keys.
 *
 * Args: the figures; `state()`; and what to do: `move(point, isFinal)`, where the point has the coordinates of the plot, `turn(degrees, tilt)`, `seek(t)`,
 *   `preview(t)` with null at the end, `readOut(words)`.
 */
export function trackPointers({ surfaceFigure, lossFigure, state, move, turn, seek, preview, readOut }) {
  const { root: stage, handle } = surfaceFigure;
  let drag = null;
  const place = (event, figure) => {
    const { left, top } = figure.root.getBoundingClientRect();
    return [event.clientX - left, event.clientY - top];
  };
  const isInPlot = ([px, py]) => {
    const { left, top, width, height } = surfaceFigure.layout.plot;
    return px >= left && px <= left + width && py >= top && py <= top + height;
  };

  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    const isRelief = state().view === "relief";
    if (!isRelief && event.target !== handle && !isInPlot(place(event, surfaceFigure))) return;
    drag = { isRelief, isHandle: event.target === handle, x: event.clientX, y: event.clientY, isMoved: false };
    if (isRelief || drag.isHandle) stage.setPointerCapture(event.pointerId);
    if (isRelief) event.preventDefault();
  });
  stage.addEventListener("pointermove", (event) => {
    const at = place(event, surfaceFigure);
    if (drag?.isRelief) {
      turn((event.clientX - drag.x) * 0.5, (event.clientY - drag.y) * 0.4);
      Object.assign(drag, { x: event.clientX, y: event.clientY });
    } else if (drag?.isHandle) {
      drag.isMoved = true;
      move(surfaceFigure.layout.invert(...at), false);
    }
    readOut(
      ["contour", "starts"].includes(state().view) && isInPlot(at)
        ? describePoint(surfaceFigure.layout.invert(...at), state())
        : "",
    );
  });
  stage.addEventListener("pointerup", (event) => {
    const isTap = drag && !drag.isRelief && Math.hypot(event.clientX - drag.x, event.clientY - drag.y) < 6;
    if (drag?.isHandle ? drag.isMoved : isTap) move(surfaceFigure.layout.invert(...place(event, surfaceFigure)), true);
    drag = null;
  });
  stage.addEventListener("pointercancel", () => (drag = null));
  stage.addEventListener("pointerleave", () => readOut(""));
  handle.addEventListener("keydown", (event) => {
    const direction = KEYS[event.key];
    if (!direction) return;
    event.preventDefault();
    event.stopPropagation();
    const { invert, box } = surfaceFigure.layout;
    const part = event.shiftKey ? 10 * KEY_STEP : KEY_STEP;
    const at = invert(parseFloat(handle.style.left), parseFloat(handle.style.top));
    move(
      at.map((value, i) => value + direction[i] * part * (box[i][1] - box[i][0])),
      true,
    );
  });
  for (const [id, by, tilt] of [
    ["turn-left", -15, 0],
    ["turn-right", 15, 0],
    ["tilt-up", 0, 10],
    ["tilt-down", 0, -10],
  ]) {
    document.getElementById(id).addEventListener("click", () => turn(by, tilt));
  }

  const stepAt = (event) => lossFigure.layout.invert(place(event, lossFigure)[0]);
  let isSeeking = false;
  lossFigure.root.addEventListener("pointerdown", (event) => {
    isSeeking = true;
    preview(null);
    seek(stepAt(event));
  });
  lossFigure.root.addEventListener("pointermove", (event) => {
    if (isSeeking) seek(stepAt(event));
    else if (event.pointerType === "mouse") preview(stepAt(event));
  });
  for (const type of ["pointerup", "pointercancel"]) addEventListener(type, () => (isSeeking = false));
  lossFigure.root.addEventListener("pointerleave", () => preview(null));
}

function describePoint([x, y], { surface, parameters }) {
  return `x ${formatNumber(x)}, y ${formatNumber(y)}: loss ${formatNumber(SURFACES[surface].value(parameters, x, y), 4)}`;
}
