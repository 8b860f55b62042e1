/** The picture of a step: the surface around the point, the descent, and arrows and squares. */

import { formatNumber } from "../landscape/format.js";
import { sampleSurface } from "../landscape/heights.js";
import { drawMarker, lineStyle } from "../landscape/optimizer_marks.js";
import { drawGround, layOutPlot, paintHeat } from "../landscape/surface_view.js";
import { FONT, linePath, tag, text } from "../landscape/svg.js";
import { COLOURS, isFar } from "./quantities.js";

const HIGHEST = 480;

/** Return the source of an arrow between two pixels, with a halo in the colour of the page. */
export function drawArrow([x0, y0], [x1, y1], { colour, dash, page, width = 2.6 }) {
  const size = Math.hypot(x1 - x0, y1 - y0);
  if (!Number.isFinite(size) || size < 0.5) return "";
  const head = Math.min(10, 0.6 * size), [ux, uy] = [(x1 - x0) / size, (y1 - y0) / size];
  const [bx, by] = [x1 - head * ux, y1 - head * uy];
  const tip = [[x1, y1], [bx - 0.5 * head * uy, by + 0.5 * head * ux], [bx + 0.5 * head * uy, by - 0.5 * head * ux]];
  const points = tip.map((each) => each.map((value) => value.toFixed(1)).join()).join(" ");
  const d = linePath([[x0, y0], [bx, by]]);
  return tag("path", { d, stroke: page, "stroke-width": width + 3, "stroke-opacity": "0.7" })
    + tag("polygon", { points, fill: colour, stroke: page, "stroke-width": "1.5", "stroke-opacity": "0.7", "paint-order": "stroke" })
    + tag("path", { d, stroke: colour, "stroke-width": width, "stroke-dasharray": dash });
}

/** Return the source of the squares of a size: one to the right of the point for x, one above it for y. */
function drawSquares([px, py], [a, b], dash) {
  const own = { fill: COLOURS.size, "fill-opacity": "0.2", stroke: COLOURS.size, "stroke-width": "1.6", "stroke-dasharray": dash };
  return tag("rect", { x: px, y: py, width: a, height: a, ...own }) + tag("rect", { x: px, y: py - b, width: b, height: b, ...own });
}

/** The picture on the page. */
export class StepFigure {
  constructor(root) {
    const svg = root.querySelector("svg");
    svg.setAttribute("font-family", FONT);
    svg.innerHTML = "<g></g><g></g>";
    Object.assign(this, { root, svg, ground: svg.children[0], front: svg.children[1] });
    Object.assign(this, { canvas: root.querySelector("canvas"), handle: root.querySelector("button"), key: null });
  }

  /** Draw the surface in a region, unless what is drawn is the same. */
  drawGround(surface, parameters, box, theme, key) {
    const width = Math.floor(this.root.clientWidth);
    const all = JSON.stringify([width, theme.name, key, parameters, box]);
    if (all === this.key) return;
    this.key = all;
    this.layout = layOutPlot(box, width, HIGHEST);
    const { plot, height } = this.layout;
    const isInside = (point) => point.every((value, i) => value > box[i][0] && value < box[i][1]);
    // Contour lines are relative to the lowest point of the region.
    const sample = sampleSurface({ ...surface, box, minima: [] }, parameters);
    sample.surface = { ...surface, box, minima: surface.minima.filter(isInside) };
    for (const [name, value] of [["width", width], ["height", height], ["viewBox", `0 0 ${width} ${height}`]]) this.svg.setAttribute(name, value);
    this.root.style.height = `${height}px`;
    this.ground.innerHTML = drawGround(this.layout, sample, theme, true);
    paintHeat(this.canvas, sample, theme.ramp);
    Object.assign(this.canvas.style, { left: `${plot.left}px`, top: `${plot.top}px`, width: `${plot.width}px`, height: `${plot.height}px` });
  }

  /** Return the figure for export. */
  export() {
    const { plot, width, height } = this.layout;
    return { source: this.ground.innerHTML + this.front.innerHTML, heat: { canvas: this.canvas, ...plot }, width, height };
  }

  /** Draw the descent `path`, from its start to before the step and after it, and the quantities of the step. */
  drawFront({ name, path, step, quantities, styles, theme }) {
    const { plot, x, y } = this.layout;
    const limit = (value) => Math.min(Math.max(value, -1e5), 1e5);
    const pixel = ([a, b]) => [limit(x(a)), limit(y(b))];
    const perUnit = plot.width / (this.layout.invert(plot.left + plot.width, 0)[0] - this.layout.invert(plot.left, 0)[0]);
    const own = lineStyle(name, styles);
    const lines = [[path, 1.4, "0.4"], [path.slice(0, step.t), 2.2, "1"]].map(([points, width, opacity]) =>
      tag("path", { d: linePath(points.map(pixel), this.layout.plot), ...own, "stroke-width": width, "stroke-opacity": opacity }));
    const here = pixel(step.x), shapes = [], labels = [];
    for (const { kind, short, drawn, dash, values } of quantities) {
      if (!drawn.every(Number.isFinite) || isFar(step.x)) continue;
      const title = `<title>${short}: ${values.map((value) => formatNumber(value, 4)).join(", ")}</title>`;
      if (kind === "size") {
        shapes.push(tag("g", { "data-quantity": short }, title + drawSquares(here, drawn.map((side) => side * perUnit), dash)));
        continue;
      }
      const end = pixel(step.x.map((value, i) => value + drawn[i]));
      shapes.push(tag("g", { "data-quantity": short }, title + drawArrow(here, end, { colour: COLOURS[kind], dash, page: theme.page, width: kind === "update" ? 3.4 : 2.6 })));
      if (Math.hypot(end[0] - here[0], end[1] - here[1]) > 24) labels.push({ end, short });
    }
    const clip = `<clipPath id="step-clip">${tag("rect", { x: plot.left, y: plot.top, width: plot.width, height: plot.height })}</clipPath>`;
    this.front.innerHTML = clip + tag("g", { "clip-path": "url(#step-clip)" }, lines.join("") + shapes.join("") + drawMarker(name, ...here, styles, theme, 6))
      + drawLabels(labels, here, plot, theme);
    Object.assign(this.handle.style, { left: `${here[0]}px`, top: `${here[1]}px` });
  }
}

/** Return the labels at the tips of arrows, on the far side, moved apart where they would overlap. */
function drawLabels(labels, here, plot, theme) {
  const placed = [];
  for (const { end, short } of labels) {
    const onLeft = end[0] < here[0];
    const at = { x: end[0] + (onLeft ? -6 : 6), y: end[1] + (end[1] < here[1] ? -5 : 14), onLeft, short };
    at.y = Math.min(Math.max(at.y, plot.top + 12), plot.top + plot.height - 5);
    while (placed.some((other) => other.onLeft === onLeft && Math.abs(other.x - at.x) < 60 && Math.abs(other.y - at.y) < 13)) at.y += 13;
    placed.push(at);
  }
  return placed.map(({ x, y, onLeft, short }) => text(x, y, short, {
    fill: theme.ink, "font-weight": 600, "text-anchor": onLeft ? "end" : "start", stroke: theme.page, "stroke-width": 3, "paint-order": "stroke", "stroke-linejoin": "round",
  })).join("");
}
