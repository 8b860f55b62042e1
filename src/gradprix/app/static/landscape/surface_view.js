/** The surface from above: heat map, contour lines, colour bar, and the paths of the optimizers. */

import { colourBarTicks, contourLevels, contourSegments } from "./heights.js";
import { escapeText, formatNumber } from "./format.js";
import { findCrossing } from "./run.js";
import { axes, linePath, linearTicks, spreadLabels, tag, text } from "./svg.js";

const MARGIN = { left: 58, right: 74, top: 12, bottom: 42 };
const DASHES = { solid: null, dashed: "7 3", dashdot: "8 3 2 3", dotted: "2 2.5" };

/**
 * Return the place of the plot in a figure of some width, and the maps from coordinates to pixels and back.
 *
 * Both axes have the same scale, so that gradients are at right angles to contour lines, unless `ratio` gives the height
 * as a part of the width.
 */
export function layOutPlot(box, width, highest, ratio = null) {
  const [[x0, x1], [y0, y1]] = box;
  const plot = { left: MARGIN.left, top: MARGIN.top, width: Math.max(width - MARGIN.left - MARGIN.right, 120) };
  plot.height = plot.width * (ratio ?? (y1 - y0) / (x1 - x0));
  if (plot.height > highest) {
    const narrower = (plot.width * highest) / plot.height;
    plot.left += (plot.width - narrower) / 2;
    Object.assign(plot, { width: narrower, height: highest });
  }
  return {
    box,
    plot,
    width,
    height: plot.top + plot.height + MARGIN.bottom,
    x: (value) => plot.left + (plot.width * (value - x0)) / (x1 - x0),
    y: (value) => plot.top + (plot.height * (y1 - value)) / (y1 - y0),
    invert: (px, py) => [x0 + ((px - plot.left) / plot.width) * (x1 - x0), y1 - ((py - plot.top) / plot.height) * (y1 - y0)],
  };
}

/** Paint the heat map of a surface on a canvas, one pixel per grid point; `colour` maps a part of the height. */
export function paintHeat(canvas, sample, colour) {
  canvas.width = sample.columns;
  canvas.height = sample.rows;
  const context = canvas.getContext("2d");
  const image = context.createImageData(sample.columns, sample.rows);
  const colours = Array.from({ length: 256 }, (_, k) => [...colour(k / 255), 255]);
  sample.values.forEach((value, i) => image.data.set(colours[Math.round((255 * sample.height(value)) / sample.highest)], 4 * i));
  context.putImageData(image, 0, 0);
}

/** Return the contour lines, axes and minima of a surface, and the colour bar of its heat map if it has one. */
export function drawGround(layout, sample, theme, hasHeat) {
  const { plot, x, y } = layout;
  const [sx, sy] = [plot.width / (sample.columns - 1), plot.height / (sample.rows - 1)];
  const lines = contourLevels(sample).map((level, k) => {
    const d = contourSegments(sample, level)
      .map(([a, b, c, e]) => `M${round(plot.left + a * sx)} ${round(plot.top + b * sy)}L${round(plot.left + c * sx)} ${round(plot.top + e * sy)}`)
      .join("");
    return tag("path", { d, fill: "none", stroke: theme.contour, "stroke-width": "0.7", "stroke-opacity": k % 5 === 4 ? "0.9" : "0.45" });
  });
  const [[x0, x1], [y0, y1]] = sample.surface.box;
  const label = (value) => [value, formatNumber(value)];
  const frame = axes({
    plot, theme, x, y,
    xTicks: linearTicks(x0, x1, plot.width / 70).map(label),
    yTicks: linearTicks(y0, y1, plot.height / 55).map(label),
    xTitle: "parameter x",
    yTitle: "parameter y",
  });
  const minima = sample.surface.minima.map(([a, b]) => drawMinimum(x(a), y(b), theme));
  return lines.join("") + frame + minima.join("") + (hasHeat ? drawColourBar(layout, sample, theme) : "");
}

const round = (value) => Math.round(value * 10) / 10;

function drawMinimum(x, y, theme) {
  const d = `M${round(x - 5)} ${round(y)}h10M${round(x)} ${round(y - 5)}v10`;
  return tag("g", {}, `<title>minimum</title>${tag("path", { d, stroke: theme.page, "stroke-width": 4 })}${tag("path", { d, stroke: theme.ink, "stroke-width": "1.5" })}`);
}

function drawColourBar({ plot }, sample, theme) {
  const left = plot.left + plot.width + 14;
  const place = (value) => plot.top + plot.height * (1 - sample.height(value) / sample.highest);
  const slices = Array.from({ length: 48 }, (_, k) => {
    const fill = `rgb(${theme.ramp(1 - (k + 0.5) / 48)})`;
    return tag("rect", { x: left, y: plot.top + (plot.height * k) / 48, width: 10, height: plot.height / 48 + 0.5, fill });
  });
  const ticks = colourBarTicks(sample).map((value) => text(left + 14, place(value) + 4, formatNumber(value, 2), { fill: theme.soft, "font-size": 11 }));
  const border = tag("rect", { x: left, y: plot.top, width: 10, height: plot.height, fill: "none", stroke: theme.line });
  return slices.join("") + border + ticks.join("") + text(left - 2, plot.top + plot.height + 17, "loss", { fill: theme.ink });
}

/** Return the attributes of an optimizer's line, and of its elements, by which they are found and highlighted. */
export const lineStyle = (name, styles) => ({ stroke: styles[name].colour, "stroke-dasharray": DASHES[styles[name].dash], fill: "none", "stroke-linejoin": "round" });
/** Return the width of a line with so many points: thinner for long ones, which would hide each other. */
export const lineWidth = (count) => (count > 300 ? "1.1" : "1.7");
export const member = (name, content) => tag("g", { class: "member", "data-name": name }, content);

const MARKERS = {
  circle: (x, y, r) => tag("circle", { cx: x, cy: y, r }),
  diamond: (x, y, r) => polygon([[x, y - 1.3 * r], [x + 1.3 * r, y], [x, y + 1.3 * r], [x - 1.3 * r, y]]),
  square: (x, y, r) => tag("rect", { x: x - 0.9 * r, y: y - 0.9 * r, width: 1.8 * r, height: 1.8 * r }),
  triangle: (x, y, r) => polygon([[x, y - 1.2 * r], [x + 1.15 * r, y + 0.9 * r], [x - 1.15 * r, y + 0.9 * r]]),
  plus: (x, y, r) => polygon([[-1.3, -0.45], [-0.45, -0.45], [-0.45, -1.3], [0.45, -1.3], [0.45, -0.45], [1.3, -0.45], [1.3, 0.45], [0.45, 0.45], [0.45, 1.3], [-0.45, 1.3], [-0.45, 0.45], [-1.3, 0.45]].map(([a, b]) => [x + a * r, y + b * r])),
};
const polygon = (points) => tag("polygon", { points: points.map((point) => point.map(round).join(" ")).join(",") });

/** Return the marker of an optimizer, with a border in the colour of the page. */
export const drawMarker = (name, x, y, styles, theme, radius = 5) =>
  tag("g", { fill: styles[name].colour, stroke: theme.page, "stroke-width": "1.3" }, MARKERS[styles[name].marker](x, y, radius));

/**
 * Return the paths of all optimizers: strong up to step `t`, faint after it, with a marker at step `t`.
 *
 * A marker outside the plot is replaced by an arrow at the border that points to it.
 */
export function drawPaths(layout, run, t, { styles, theme, dimmed = new Set(), box, minima, markCrossing }) {
  const { plot, x, y } = layout;
  const fade = (name, content) => tag("g", { opacity: dimmed.has(name) ? "0.3" : null }, content);
  const pixels = run.map(({ points }) => points.map(([a, b]) => [x(a), y(b)]));
  const heads = run.map(({ name, points }, i) => placeHead(name, pixels[i][t], points[t], plot));
  const labels = spreadLabels(heads, 14, plot.top + 12, plot.top + plot.height - 4);
  const parts = run.map(({ name }, i) => {
    const style = lineStyle(name, styles);
    const d = linePath(pixels[i].slice(0, t + 1), plot);
    const halo = tag("path", { d, ...style, "stroke-dasharray": null, stroke: theme.page, "stroke-width": "3.4", "stroke-opacity": t > 300 ? "0" : "0.55" });
    const rest = t < pixels[i].length - 1 ? linePath(pixels[i].slice(t), plot) : "";
    const whole = rest && tag("path", { d: rest, ...style, "stroke-width": 1, "stroke-opacity": "0.4" });
    return member(name, `<title>${escapeText(name)}</title>${whole}${halo}${tag("path", { d, ...style, "stroke-width": lineWidth(t), class: "trail" })}`);
  });
  const marks = run.map(({ name }, i) => fade(name, member(name, drawHead(heads[i], labels[i], styles, theme))));
  const crossings = markCrossing ? run.map((each) => drawCrossing(each, layout, minima, theme, styles)) : [];
  const lines = parts.map((part, i) => fade(run[i].name, part)).join("");
  return lines + crossings.join("") + marks.join("");
}

function placeHead(name, [px, py], point, plot) {
  const isInside = px >= plot.left - 1 && px <= plot.left + plot.width + 1 && py >= plot.top - 1 && py <= plot.top + plot.height + 1;
  if (isInside) return { name, x: px, y: py, isInside };
  const [cx, cy] = [plot.left + plot.width / 2, plot.top + plot.height / 2];
  const shrink = Math.min((plot.width / 2 - 8) / Math.abs(px - cx || 1e-9), (plot.height / 2 - 8) / Math.abs(py - cy || 1e-9));
  return { name, x: cx + (px - cx) * shrink, y: cy + (py - cy) * shrink, isInside, angle: Math.atan2(py - cy, px - cx) };
}

function drawHead(head, label, styles, theme) {
  const { colour } = styles[head.name];
  const shape = head.isInside
    ? drawMarker(head.name, head.x, head.y, styles, theme)
    : tag("path", { d: "M7 0L-5 -6L-5 6Z", fill: colour, stroke: theme.page, transform: `translate(${round(head.x)} ${round(head.y)}) rotate(${Math.round((head.angle * 180) / Math.PI)})` });
  const onLeft = label.onLeft;
  const name = text(head.x + (onLeft ? -10 : 10), label.y + 4, head.name + (head.isInside ? "" : " (off the plot)"), {
    fill: colour, "font-weight": 600, "text-anchor": onLeft ? "end" : "start", stroke: theme.page, "stroke-width": 3, "paint-order": "stroke", "stroke-linejoin": "round",
  });
  const link = Math.abs(label.y - head.y) > 6 ? tag("path", { d: `M${round(head.x)} ${round(head.y)}L${round(head.x + (onLeft ? -8 : 8))} ${round(label.y)}`, stroke: colour, "stroke-width": "0.8" }) : "";
  return link + shape + name;
}

function drawCrossing({ name, points }, { plot, x, y }, minima, theme, styles) {
  const crossing = findCrossing(points, minima);
  if (!crossing) return "";
  const [px, py] = [x(crossing.point[0]), y(crossing.point[1])];
  const ring = tag("circle", { cx: px, cy: py, r: 9, fill: "none", stroke: styles[name].colour, "stroke-width": 2 });
  const words = `${name} passes the minimum at step ${crossing.step}`;
  const below = py < plot.top + plot.height - 40;
  return member(name, ring + text(px, py + (below ? 26 : -16), words, { fill: theme.ink, "text-anchor": "middle", stroke: theme.page, "stroke-width": 3, "paint-order": "stroke" }));
}
