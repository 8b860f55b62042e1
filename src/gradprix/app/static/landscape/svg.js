/** Parts of figures as SVG source. All styles are attributes: an exported figure looks as on the page. */

import { escapeText } from "./format.js";

export const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif';
const round = (value) => Math.round(value * 10) / 10;

/** Return an element; attributes that are `null` or `false` are left out. */
export function tag(name, attributes = {}, content = "") {
  const written = Object.entries(attributes)
    .filter(([, value]) => value !== null && value !== undefined && value !== false)
    .map(([key, value]) => ` ${key}="${typeof value === "number" ? round(value) : escapeText(value)}"`);
  return `<${name}${written.join("")}>${content}</${name}>`;
}

/** Return a text, whose size is 12 pixels unless given. */
export const text = (x, y, content, attributes = {}) =>
  tag("text", { x, y, "font-size": 12, ...attributes }, escapeText(content));

/**
 * Return the `d` of a line through points `[x, y]`, as far as it is inside the plot if one is given.
 *
 * Browsers take seconds to draw dashes of a line that diverges. Points within half a pixel of the last one are left out.
 */
export function linePath(points, plot = null) {
  let path = "";
  let [last, end] = [null, null];
  for (let i = 1; i < points.length; i++) {
    last ??= points[i - 1];
    const isNear = Math.abs(points[i][0] - last[0]) < 0.5 && Math.abs(points[i][1] - last[1]) < 0.5;
    if (isNear && i < points.length - 1) continue;
    const inside = plot ? clipLine(last, points[i], plot) : [last, points[i]];
    if (inside) {
      const [from, to] = inside.map(([x, y]) => `${round(x)} ${round(y)}`);
      path += end === from ? `L${to}` : `M${from}L${to}`;
      end = to;
    }
    last = points[i];
  }
  return path;
}

/** Distance in pixels beyond which float64 cannot tell where a line between two points crosses the plot. */
const FAR = 1e9;

/** Return the part of a line that is inside a rectangle, as two points, or null (Liang & Barsky 1984). */
function clipLine([x0, y0], [x1, y1], { left, top, width, height }) {
  if (Math.hypot(x0, y0) > FAR || Math.hypot(x1, y1) > FAR) return null;
  const [dx, dy] = [x1 - x0, y1 - y0];
  let [from, to] = [0, 1];
  for (const [step, distance] of [
    [-dx, x0 - left],
    [dx, left + width - x0],
    [-dy, y0 - top],
    [dy, top + height - y0],
  ]) {
    if (step === 0 && distance < 0) return null;
    if (step < 0) from = Math.max(from, distance / step);
    if (step > 0) to = Math.min(to, distance / step);
  }
  return from < to
    ? [
        [x0 + from * dx, y0 + from * dy],
        [x0 + to * dx, y0 + to * dy],
      ]
    : null;
}

/**
 * Move labels apart vertically, so that none overlaps another.
 *
 * Each label has `y`, its wanted place; the result has the same order and the places that it gets, inside the range.
 */
export function spreadLabels(labels, gap, low, high) {
  const order = labels.map((_, i) => i).sort((a, b) => labels[a].y - labels[b].y);
  const places = labels.map(({ y }) => y);
  for (let k = 0; k < order.length; k++) {
    places[order[k]] = Math.max(places[order[k]], low, k ? places[order[k - 1]] + gap : low);
  }
  for (let k = order.length - 1; k >= 0; k--) {
    places[order[k]] = Math.min(places[order[k]], k + 1 < order.length ? places[order[k + 1]] - gap : high);
  }
  return labels.map((label, i) => ({ ...label, y: places[i] }));
}

/** Return round numbers between two ends, about `count` of them. */
export function linearTicks(low, high, count = 6) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((digit) => digit * power).find((each) => each >= raw * 0.99);
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++)
    ticks.push(Number((k * step).toPrecision(12)));
  return ticks;
}

/** Return the frame, ticks and titles of two axes. `x` and `y` map values to pixels, `ticks` are `[value, label]`. */
export function axes({ plot, theme, x, y, xTicks, yTicks, xTitle, yTitle, grid = false }) {
  const { left, top, width, height } = plot;
  const bottom = top + height;
  const parts = [];
  for (const [value, label] of xTicks) {
    parts.push(tag("path", { d: `M${x(value)} ${bottom}v4`, stroke: theme.soft, fill: "none" }));
    parts.push(text(x(value), bottom + 17, label, { fill: theme.soft, "text-anchor": "middle", "font-size": 11.5 }));
  }
  for (const [value, label] of yTicks) {
    const d = `M${left} ${y(value)}h${grid ? width : -4}`;
    parts.push(tag("path", { d, stroke: grid ? theme.line : theme.soft, fill: "none" }));
    parts.push(text(left - 7, y(value) + 4, label, { fill: theme.soft, "text-anchor": "end", "font-size": 11.5 }));
  }
  parts.push(tag("rect", { x: left, y: top, width, height, fill: "none", stroke: theme.line }));
  parts.push(text(left + width / 2, bottom + 34, xTitle, { fill: theme.ink, "text-anchor": "middle" }));
  const side = `rotate(-90 12 ${round(top + height / 2)})`;
  parts.push(text(12, top + height / 2, yTitle, { fill: theme.ink, "text-anchor": "middle", transform: side }));
  return parts.join("");
}
