/** Marks of optimizers in figures: line, marker, and the elements that are highlighted together. */

import { tag } from "./svg.js";

const DASHES = { solid: null, dashed: "7 3", dashdot: "8 3 2 3", dotted: "2 2.5" };
const round = (value) => Math.round(value * 10) / 10;

/** Return the attributes of an optimizer's line. */
export const lineStyle = (name, styles) => ({
  stroke: styles[name].colour,
  "stroke-dasharray": DASHES[styles[name].dash],
  fill: "none",
  "stroke-linejoin": "round",
});
/** Return the width of a line with so many points: thinner for long ones, which would hide each other. */
export const lineWidth = (count) => (count > 300 ? "1.1" : "1.7");

/** Return a part of a figure that belongs to an optimizer, and is highlighted with it. */
export const member = (name, content) => tag("g", { class: "member", "data-name": name }, content);

const MARKERS = {
  circle: (x, y, r) => tag("circle", { cx: x, cy: y, r }),
  diamond: (x, y, r) =>
    polygon([
      [x, y - 1.3 * r],
      [x + 1.3 * r, y],
      [x, y + 1.3 * r],
      [x - 1.3 * r, y],
    ]),
  square: (x, y, r) => tag("rect", { x: x - 0.9 * r, y: y - 0.9 * r, width: 1.8 * r, height: 1.8 * r }),
  triangle: (x, y, r) =>
    polygon([
      [x, y - 1.2 * r],
      [x + 1.15 * r, y + 0.9 * r],
      [x - 1.15 * r, y + 0.9 * r],
    ]),
  plus: (x, y, r) =>
    polygon(
      [
        [-1.3, -0.45],
        [-0.45, -0.45],
        [-0.45, -1.3],
        [0.45, -1.3],
        [0.45, -0.45],
        [1.3, -0.45],
        [1.3, 0.45],
        [0.45, 0.45],
        [0.45, 1.3],
        [-0.45, 1.3],
        [-0.45, 0.45],
        [-1.3, 0.45],
      ].map(([a, b]) => [x + a * r, y + b * r]),
    ),
};
const polygon = (points) => tag("polygon", { points: points.map((point) => point.map(round).join(" ")).join(",") });

/** Return the marker of an optimizer, with a border in the colour of the page. */
export const drawMarker = (name, x, y, styles, theme, radius = 5) =>
  tag(
    "g",
    { fill: styles[name].colour, stroke: theme.page, "stroke-width": "1.3" },
    MARKERS[styles[name].marker](x, y, radius),
  );

/** Return the attributes of words with a border in the colour of the page, which stand on lines. */
export const haloed = (theme) => ({
  stroke: theme.page,
  "stroke-width": 3,
  "paint-order": "stroke",
  "stroke-linejoin": "round",
});
