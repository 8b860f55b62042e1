/** The surface from above: heat map, contour lines, axes and colour bar. */

import { colourBarTicks, contourLevels, contourSegments } from "./heights.js";
import { formatNumber } from "./format.js";
import { axes, linearTicks, tag, text } from "./svg.js";

const MARGIN = { left: 58, right: 74, top: 12, bottom: 42 };

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
    invert: (px, py) => [
      x0 + ((px - plot.left) / plot.width) * (x1 - x0),
      y1 - ((py - plot.top) / plot.height) * (y1 - y0),
    ],
  };
}

/** Paint the heat map of a surface on a canvas, one pixel per grid point; `colour` maps a part of the height. */
export function paintHeat(canvas, sample, colour) {
  canvas.width = sample.columns;
  canvas.height = sample.rows;
  const context = canvas.getContext("2d");
  const image = context.createImageData(sample.columns, sample.rows);
  const colours = Array.from({ length: 256 }, (_, k) => [...colour(k / 255), 255]);
  sample.values.forEach((value, i) =>
    image.data.set(colours[Math.round((255 * sample.height(value)) / sample.highest)], 4 * i),
  );
  context.putImageData(image, 0, 0);
}

/** Return the contour lines, axes and minima of a surface, and the colour bar of its heat map if it has one. */
export function drawGround(layout, sample, theme, hasHeat) {
  const { plot, x, y } = layout;
  const [sx, sy] = [plot.width / (sample.columns - 1), plot.height / (sample.rows - 1)];
  const lines = contourLevels(sample).map((level, k) => {
    const d = contourSegments(sample, level)
      .map(
        ([a, b, c, e]) =>
          `M${round(plot.left + a * sx)} ${round(plot.top + b * sy)}L${round(plot.left + c * sx)} ${round(plot.top + e * sy)}`,
      )
      .join("");
    return tag("path", {
      d,
      fill: "none",
      stroke: theme.contour,
      "stroke-width": "0.7",
      "stroke-opacity": k % 5 === 4 ? "0.9" : "0.45",
    });
  });
  const [[x0, x1], [y0, y1]] = sample.surface.box;
  const label = (value) => [value, formatNumber(value)];
  const frame = axes({
    plot,
    theme,
    x,
    y,
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
  return tag(
    "g",
    {},
    `<title>minimum</title>${tag("path", { d, stroke: theme.page, "stroke-width": 4 })}${tag("path", { d, stroke: theme.ink, "stroke-width": "1.5" })}`,
  );
}

function drawColourBar({ plot }, sample, theme) {
  const left = plot.left + plot.width + 14;
  const place = (value) => plot.top + plot.height * (1 - sample.height(value) / sample.highest);
  const slices = Array.from({ length: 48 }, (_, k) => {
    const fill = `rgb(${theme.ramp(1 - (k + 0.5) / 48)})`;
    return tag("rect", {
      x: left,
      y: plot.top + (plot.height * k) / 48,
      width: 10,
      height: plot.height / 48 + 0.5,
      fill,
    });
  });
  const ticks = colourBarTicks(sample).map((value) =>
    text(left + 14, place(value) + 4, formatNumber(value, 2), { fill: theme.soft, "font-size": 11 }),
  );
  const border = tag("rect", {
    x: left,
    y: plot.top,
    width: 10,
    height: plot.height,
    fill: "none",
    stroke: theme.line,
  });
  return (
    slices.join("") + border + ticks.join("") + text(left - 2, plot.top + plot.height + 17, "loss", { fill: theme.ink })
  );
}
