/* Line and point charts as SVG, which take their colours of axes and text from the style sheet. */

import {formatNumber} from "./landscape/format.js";
import {linearTicks, spreadLabels} from "./landscape/svg.js";

const SVG = "http://www.w3.org/2000/svg";
const MARGIN = {left: 58, right: 96, top: 8, bottom: 40};

function element(name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

/* Numbers from 10,000 are in thousands or millions. */
function formatShort(value) {
  const size = Math.abs(value);
  if (size >= 1e4 && size < 1e9) return size >= 1e6 ? `${formatNumber(value / 1e6)} M` : `${formatNumber(value / 1e3)} k`;
  return formatNumber(value);
}

/* Ticks at 1, 2 and 5 times powers of ten; on a logarithmic axis of more than two decades at powers of ten alone. */
function ticks(low, high, isLog) {
  if (isLog) {
    const decades = Math.log10(high / low), steps = decades > 2 ? [1] : [1, 2, 5];
    const found = [];
    for (let p = Math.floor(Math.log10(low)); p <= Math.ceil(Math.log10(high)); p++) {
      for (const step of steps) {
        const value = step * 10 ** p;
        if (value >= low * 0.999 && value <= high * 1.001) found.push(value);
      }
    }
    const skip = Math.ceil(found.length / 8);
    return found.filter((_, i) => i % skip === 0);
  }
  return linearTicks(low, high, 5);
}

function makeScale(values, isLog, from, to) {
  const good = values.filter(value => Number.isFinite(value) && (!isLog || value > 0));
  let low = Math.min(...good), high = Math.max(...good);
  if (!good.length) [low, high] = [1, 10];
  if (isLog) { if (low === high) { low /= 2; high *= 2; } else { const pad = (high / low) ** 0.04; low /= pad; high *= pad; } }
  else if (low === high) high = low + 1;
  const map = isLog ? Math.log : value => value;
  const scale = value => from + (to - from) * (map(value) - map(low)) / (map(high) - map(low));
  return Object.assign(scale, {low, high, isLog});
}

const MARKERS = {
  circle: "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
  diamond: "M0-5.5L5.5 0L0 5.5L-5.5 0z",
  square: "M-4-4h8v8h-8z",
  triangle: "M0-5L5 4.5H-5z",
  plus: "M-1.5-5h3v3.5H5v3H1.5V5h-3V1.5H-5v-3h3.5z",
};

/* Draw series {entry, kind, colour, dash, x, y} and points {entry, colour, marker, isFilled, x, y} into an SVG element.
   options: xLabel, yLabel, xLog, yLog. A logarithmic vertical axis becomes linear if there are negative values. */
export function draw(svg, series, points, options) {
  const {width, height} = svg.getBoundingClientRect();
  if (!width) return;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const isLabelled = series.some(each => each.kind !== "faint") && width > 420;
  const right = width - (isLabelled ? MARGIN.right : 16), bottom = height - MARGIN.bottom;
  const ys = [...series.flatMap(each => each.y), ...points.map(point => point.y)];
  const strong = series.filter(each => each.kind !== "faint").flatMap(each => each.y).concat(points.map(p => p.y));
  const yLog = options.yLog && ys.every(value => value >= 0); // a negative log-likelihood may be below 0
  const low = Math.min(...ys.filter(value => !yLog || value > 0)), high = Math.max(...(strong.length ? strong : ys));
  const top = yLog ? Math.min(high * 1.05, low * 1e6) : high + 0.05 * (high - low);
  const x = makeScale([...series.flatMap(each => each.x), ...points.map(point => point.x)], options.xLog, MARGIN.left, right);
  const y = makeScale(ys.filter(value => value <= top), yLog, bottom, MARGIN.top);
  const nodes = [...axis(x, y, right, bottom, options)];
  const clip = value => Math.max(MARGIN.top, Math.min(bottom, y(value)));
  const labels = [];
  for (const each of [...series].sort((a, b) => (a.kind !== "faint") - (b.kind !== "faint"))) {
    if (!each.x.length) continue;
    const path = each.x.map((value, i) => `${i ? "L" : "M"}${x(value).toFixed(1)} ${clip(each.y[i]).toFixed(1)}`).join("");
    if (each.kind === "faint") {
      nodes.push(element("path", {d: path, class: "faint", stroke: each.colour, "data-entry": each.entry}));
      continue;
    }
    nodes.push(element("path", {d: path, class: `line ${each.dash}`, stroke: each.colour, "data-entry": each.entry}));
    const hit = element("path", {d: path, class: "hit", "data-entry": each.entry});
    hit.append(element("title", {}, `${each.entry}: ${formatShort(each.y.at(-1))}`));
    nodes.push(hit);
    labels.push({entry: each.entry, y: clip(each.y.at(-1)), colour: each.colour});
  }
  for (const point of points) {
    const node = element("path", {
      d: MARKERS[point.marker] || MARKERS.circle, transform: `translate(${x(point.x).toFixed(1)} ${clip(point.y).toFixed(1)})`,
      class: point.isFilled ? "filled" : "open", stroke: point.colour, "data-entry": point.entry,
      ...(point.isFilled ? {fill: point.colour} : {}),
    });
    node.append(element("title", {}, `${point.entry} at ${formatShort(point.x)}: ${formatShort(point.y)}`));
    nodes.push(node);
  }
  if (isLabelled) nodes.push(...labelNodes(labels, right + 6, bottom));
  svg.replaceChildren(...nodes);
}

function* axis(x, y, right, bottom, options) {
  for (const value of ticks(y.low, y.high, y.isLog)) {
    yield element("line", {class: "grid", x1: MARGIN.left, x2: right, y1: y(value), y2: y(value)});
    yield element("text", {x: MARGIN.left - 6, y: y(value) + 4, "text-anchor": "end"}, formatShort(value));
  }
  for (const value of ticks(x.low, x.high, x.isLog)) {
    yield element("line", {class: "grid", x1: x(value), x2: x(value), y1: MARGIN.top, y2: bottom});
    yield element("text", {x: x(value), y: bottom + 16, "text-anchor": "middle"}, formatShort(value));
  }
  yield element("text", {x: (MARGIN.left + right) / 2, y: bottom + 34, "text-anchor": "middle"}, options.xLabel);
  yield element("text", {transform: `translate(13 ${bottom / 2}) rotate(-90)`, "text-anchor": "middle"}, options.yLabel);
}

/* Names at the ends of curves, moved apart where they would overlap. */
function labelNodes(labels, left, bottom) {
  return spreadLabels(labels, 14, MARGIN.top, bottom).map(label => {
    const node = element("text", {x: left, y: label.y + 4, class: "label", "data-entry": label.entry}, label.entry);
    node.style.fill = label.colour;
    return node;
  });
}
