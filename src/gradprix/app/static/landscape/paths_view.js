/** The paths of the optimizers on the surface. */

import { escapeText } from "./format.js";
import { drawMarker, haloed, lineStyle, lineWidth, member } from "./optimizer_marks.js";
import { findCrossing } from "./run.js";
import { linePath, spreadLabels, tag, text } from "./svg.js";

const round = (value) => Math.round(value * 10) / 10;

/**
 * Return the paths of all optimizers: strong up to step `t`, faint after it, with a marker at step `t`.
 *
 * A marker outside the plot is replaced by an arrow at the border that points to it.
 */
export function drawPaths(layout, run, t, { styles, theme, dimmed = new Set(), minima, markCrossing }) {
  const { plot, x, y } = layout;
  const fade = (name, content) => tag("g", { opacity: dimmed.has(name) ? "0.3" : null }, content);
  const pixels = run.map(({ points }) => points.map(([a, b]) => [x(a), y(b)]));
  const heads = avoidMarkers(run.map(({ name }, i) => placeHead(name, pixels[i][t], plot)), plot);
  const labels = spreadLabels(heads, 14, plot.top + 12, plot.top + plot.height - 4);
  const parts = run.map(({ name }, i) => {
    const style = lineStyle(name, styles);
    const d = linePath(pixels[i].slice(0, t + 1), plot);
    const halo = tag("path", {
      d,
      ...style,
      "stroke-dasharray": null,
      stroke: theme.page,
      "stroke-width": "3.4",
      "stroke-opacity": t > 300 ? "0" : "0.55",
    });
    const rest = t < pixels[i].length - 1 ? linePath(pixels[i].slice(t), plot) : "";
    const whole = rest && tag("path", { d: rest, ...style, "stroke-width": 1, "stroke-opacity": "0.4" });
    return member(
      name,
      `<title>${escapeText(name)}</title>${whole}${halo}${tag("path", { d, ...style, "stroke-width": lineWidth(t), class: "trail" })}`,
    );
  });
  const draw = (part) => run.map(({ name }, i) => fade(name, member(name, part(heads[i], labels[i], styles, theme))));
  const marks = [...draw(drawHead), ...draw(drawLabel)]; // no marker hides a name
  const crossings = markCrossing ? run.map((each) => drawCrossing(each, layout, minima, theme, styles)) : [];
  const lines = parts.map((part, i) => fade(run[i].name, part)).join("");
  return lines + crossings.join("") + marks.join("");
}

function placeHead(name, [px, py], plot) {
  const isInside =
    px >= plot.left - 1 && px <= plot.left + plot.width + 1 && py >= plot.top - 1 && py <= plot.top + plot.height + 1;
  const onLeft = px > plot.left + plot.width - 9 * (name.length + 1); // words to the right would leave the plot
  if (isInside) return { name, x: px, y: py, isInside, onLeft };
  const [cx, cy] = [plot.left + plot.width / 2, plot.top + plot.height / 2];
  const shrink = Math.min(
    (plot.width / 2 - 8) / Math.abs(px - cx || 1e-9),
    (plot.height / 2 - 8) / Math.abs(py - cy || 1e-9),
  );
  return {
    name,
    x: cx + (px - cx) * shrink,
    y: cy + (py - cy) * shrink,
    isInside,
    onLeft: px > cx,
    angle: Math.atan2(py - cy, px - cx),
  };
}

/** Put a name at the left of its marker, if the marker of another optimizer is in its place at the right. */
function avoidMarkers(heads, plot) {
  const covers = (from, to, y) => heads.some((other) => other.x > from && other.x < to && Math.abs(other.y - y) < 12);
  return heads.map((head) => {
    const width = 10 + 8 * head.name.length;
    const isBlocked = covers(head.x + 4, head.x + width, head.y);
    const isFree = head.x - width > plot.left && !covers(head.x - width, head.x - 4, head.y);
    return isBlocked && isFree ? { ...head, onLeft: true } : head;
  });
}

function drawHead(head, _, styles, theme) {
  const { colour } = styles[head.name];
  return head.isInside
    ? drawMarker(head.name, head.x, head.y, styles, theme)
    : tag("path", {
        d: "M7 0L-5 -6L-5 6Z",
        fill: colour,
        stroke: theme.page,
        transform: `translate(${round(head.x)} ${round(head.y)}) rotate(${Math.round((head.angle * 180) / Math.PI)})`,
      });
}

function drawLabel(head, label, styles, theme) {
  const { colour } = styles[head.name];
  const onLeft = label.onLeft;
  const name = text(head.x + (onLeft ? -10 : 10), label.y + 4, head.name + (head.isInside ? "" : " (off the plot)"), {
    fill: colour,
    "font-weight": 600,
    "text-anchor": onLeft ? "end" : "start",
    ...haloed(theme),
  });
  const link =
    Math.abs(label.y - head.y) > 6
      ? tag("path", {
          d: `M${round(head.x)} ${round(head.y)}L${round(head.x + (onLeft ? -8 : 8))} ${round(label.y)}`,
          stroke: colour,
          "stroke-width": "0.8",
        })
      : "";
  return link + name;
}

function drawCrossing({ name, points }, { plot, x, y }, minima, theme, styles) {
  const crossing = findCrossing(points, minima);
  if (!crossing) return "";
  const [px, py] = [x(crossing.point[0]), y(crossing.point[1])];
  const ring = tag("circle", { cx: px, cy: py, r: 9, fill: "none", stroke: styles[name].colour, "stroke-width": 2 });
  const words = `${name} passes the minimum at step ${crossing.step}`;
  const half = 3.6 * words.length;
  const below = py < plot.top + plot.height - 40;
  return member(
    name,
    ring +
      text(Math.min(Math.max(px, plot.left + half), plot.left + plot.width - half), py + (below ? 26 : -16), words, {
        fill: theme.ink,
        "text-anchor": "middle",
        ...haloed(theme),
      }),
  );
}
