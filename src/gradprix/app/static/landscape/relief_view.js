/** The surface in three dimensions, as SVG: faces and pieces of the paths are drawn from the back to the front. */

import { colourBarTicks, sampleSurface } from "./heights.js";
import { escapeText, formatNumber } from "./format.js";
import { drawMarker, haloed, lineStyle, member } from "./optimizer_marks.js";
import { spreadLabels, tag, text } from "./svg.js";

const COLUMNS = 46;
const HEIGHT = 0.7;
/** Distance of the paths from the surface, and how much nearer to the viewer they count, so that they do not sink. */
const LIFT = 0.015;
const NEARER = 0.07;

/** Return the camera's initial angles in degrees: `turn` around the vertical, `tilt` above the horizon. */
export const initialCamera = () => ({ turn: -35, tilt: 38 });

/** Return the map from x, y and height (each within its range as a part from 0 to 1) to `[x, y, depth]` in pixels. */
function makeProjection({ turn, tilt }, width, height) {
  const [a, b] = [(turn * Math.PI) / 180, (tilt * Math.PI) / 180];
  const scale = Math.min(width / 3.5, height / 2.35);
  return (u, v, h) => {
    const [px, py, pz] = [2 * u - 1, 2 * v - 1, HEIGHT * (h - 0.45)];
    const [rx, ry] = [px * Math.cos(a) - py * Math.sin(a), px * Math.sin(a) + py * Math.cos(a)];
    return [
      width / 2 + scale * rx,
      height / 2 - scale * (ry * Math.sin(b) + pz * Math.cos(b)),
      ry * Math.cos(b) - pz * Math.sin(b),
    ];
  };
}

/** Return the grid of a surface for this view. */
export const sampleRelief = (surface, parameters) => sampleSurface(surface, parameters, COLUMNS);

/** Return the figure: surface, paths up to step `t`, markers and names. */
export function drawRelief({ sample, camera, width, height, run, t, styles, theme, dimmed = new Set() }) {
  const project = makeProjection(camera, width, height);
  const items = drawFaces(sample, project, theme);
  const [[x0, x1], [y0, y1]] = sample.surface.box;
  const top = sample.highest;
  const place = ([x, y], loss) => {
    const [u, v] = [(x - x0) / (x1 - x0), (y - y0) / (y1 - y0)];
    if (!(u >= 0 && u <= 1 && v >= 0 && v <= 1)) return null;
    return project(u, v, Math.min(sample.height(loss + sample.minimum) / top, 1.2) + LIFT);
  };
  const heads = [];
  for (const { name, points, losses } of run) {
    const style = {
      ...lineStyle(name, styles),
      "stroke-width": 2,
      "stroke-linecap": "round",
      opacity: dimmed.has(name) ? "0.3" : null,
    };
    let before = null;
    for (let step = 0; step <= t; step++) {
      const point = place(points[step], losses[step]);
      if (point && before && step < t && Math.hypot(point[0] - before[0], point[1] - before[1]) < 2) continue;
      if (point && before) {
        const ends = { x1: before[0], y1: before[1], x2: point[0], y2: point[1] };
        items.push({
          depth: Math.min(before[2], point[2]) - NEARER,
          name,
          source: tag("line", { ...ends, ...style, "stroke-dasharray": null }),
        });
      }
      before = point;
    }
    const head = place(points[t], losses[t]);
    if (head) heads.push({ name, x: head[0], y: head[1] });
  }
  items.sort((a, b) => b.depth - a.depth);
  const drawn = items.map(({ name, source }) => (name ? member(name, source) : source));
  const labels = spreadLabels(heads, 14, 12, height - 8).map(({ name, x, y }, i) =>
    member(
      name,
      `<title>${escapeText(name)}</title>${drawMarker(name, heads[i].x, heads[i].y, styles, theme)}` +
        text(x + 10, y + 4, name, {
          fill: styles[name].colour,
          "font-weight": 600,
          ...haloed(theme),
        }),
    ),
  );
  return drawn.join("") + drawAxes(sample, project, theme) + labels.join("");
}

/** Direction of the light, in the coordinates of the box: from the left, the front and above. */
const LIGHT = [-0.45, -0.55, 0.7];

function drawFaces(sample, project, theme) {
  const { columns, rows, values, highest } = sample;
  const part = (i, j) => sample.height(values[i * columns + j]) / highest;
  const corner = (i, j) => project(j / (columns - 1), 1 - i / (rows - 1), part(i, j));
  const faces = [];
  for (let i = 0; i + 1 < rows; i++) {
    for (let j = 0; j + 1 < columns; j++) {
      const corners = [corner(i, j), corner(i, j + 1), corner(i + 1, j + 1), corner(i + 1, j)];
      const alongX = (HEIGHT * (part(i, j + 1) - part(i, j)) * (columns - 1)) / 2;
      const alongY = (HEIGHT * (part(i, j) - part(i + 1, j)) * (rows - 1)) / 2;
      const cosine = (LIGHT[2] - LIGHT[0] * alongX - LIGHT[1] * alongY) / Math.hypot(1, alongX, alongY);
      const mean = (part(i, j) + part(i, j + 1) + part(i + 1, j) + part(i + 1, j + 1)) / 4;
      const fill = `rgb(${theme.ramp(0.25 + 0.75 * mean).map((c) => Math.round(c * (0.8 + 0.2 * Math.max(cosine, 0))))})`;
      const points = corners.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join(",");
      const source = `<polygon points="${points}" fill="${fill}" stroke="${theme.contour}" stroke-opacity="0.22" stroke-width="0.5"/>`;
      faces.push({ depth: corners.reduce((sum, each) => sum + each[2], 0) / 4, source });
    }
  }
  return faces;
}

/** Return the names and ends of the axes, along the edges of the base that face the viewer, and the axis of the loss. */
function drawAxes(sample, project, theme) {
  const [[x0, x1], [y0, y1]] = sample.surface.box;
  const front = [0, 1].map((v) => project(0.5, v, 0)[2])[0] < project(0.5, 1, 0)[2] ? 0 : 1;
  const side = project(0, 0.5, 0)[2] < project(1, 0.5, 0)[2] ? 0 : 1;
  const out = 0.07;
  const yOut = front ? 1 + out : -out;
  const xOut = side ? 1 + out : -out;
  const label = (place, content, size = 11) =>
    text(place[0], place[1] + 8, content, {
      fill: size > 11 ? theme.ink : theme.soft,
      "font-size": size,
      "text-anchor": "middle",
    });
  const edge = (a, b) =>
    tag("path", {
      d: `M${a[0].toFixed(1)} ${a[1].toFixed(1)}L${b[0].toFixed(1)} ${b[1].toFixed(1)}`,
      stroke: theme.soft,
      fill: "none",
    });
  const parts = [
    edge(project(0, front, 0), project(1, front, 0)),
    edge(project(side, 0, 0), project(side, 1, 0)),
    label(project(0.5, yOut + (front ? out : -out), 0), "parameter x", 12),
    label(project(xOut + (side ? out : -out), 0.5, 0), "parameter y", 12),
    ...[
      [0.02, x0],
      [0.98, x1],
    ].map(([u, value]) => label(project(u, yOut, 0), formatNumber(value))),
    ...[
      [0.02, y0],
      [0.98, y1],
    ].map(([v, value]) => label(project(xOut, v, 0), formatNumber(value))),
  ];
  // The vertical axis stands at the corner of the base that is farthest to the left, where it hides nothing.
  const corners = [
    [0, 0],
    [0, 1],
    [1, 0],
    [1, 1],
  ];
  const [u, v] = corners.reduce((best, each) => (project(...each, 0)[0] < project(...best, 0)[0] ? each : best));
  parts.push(edge(project(u, v, 0), project(u, v, 1)));
  for (const value of colourBarTicks(sample, 4)) {
    const [px, py] = project(u, v, sample.height(value) / sample.highest);
    parts.push(
      text(px - 7, py + 4, formatNumber(value, 2), { fill: theme.soft, "font-size": 11, "text-anchor": "end" }),
    );
  }
  const [tx, ty] = project(u, v, 1);
  parts.push(text(tx, ty - 10, "loss", { fill: theme.ink, "text-anchor": "middle" }));
  return parts.join("");
}
