/** The handle on the point of a step: dragging, and moving with the arrow keys. */

const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
/** Pixels by which an arrow key moves the point; with Shift ten times as many. */
const KEY_STEP = 3;

/**
 * Listen to the handle of a figure.
 *
 * Args: the figure; `begin()`, called when a drag begins; `move(point, isFinal)`, called with a point of the surface; and
 *   `end()`, called when a drag ends.
 */
export function trackPoint(figure, { begin, move, end }) {
  const { root, handle } = figure;
  let drag = null;
  const pointOf = (event) => {
    const { left, top } = root.getBoundingClientRect();
    return figure.layout.invert(event.clientX - left, event.clientY - top);
  };

  handle.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    drag = { isMoved: false };
    begin();
    handle.setPointerCapture(event.pointerId);
  });
  handle.addEventListener("pointermove", (event) => {
    if (!drag) return;
    drag.isMoved = true;
    move(pointOf(event), false);
  });
  for (const type of ["pointerup", "pointercancel"]) {
    handle.addEventListener(type, (event) => {
      const { isMoved } = drag ?? {};
      drag = null;
      end();
      if (isMoved && type === "pointerup") move(pointOf(event), true);
    });
  }
  handle.addEventListener("keydown", (event) => {
    const direction = KEYS[event.key];
    if (!direction) return;
    event.preventDefault();
    event.stopPropagation();
    const by = event.shiftKey ? 10 * KEY_STEP : KEY_STEP;
    const pixels = [handle.style.left, handle.style.top].map((value, i) => parseFloat(value) + by * direction[i]);
    move(figure.layout.invert(...pixels), true);
  });
}
