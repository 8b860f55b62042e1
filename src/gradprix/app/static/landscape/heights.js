/** Values of a surface on a grid, the scale on which they are displayed, and its contour lines. */

import { minimumValue } from "./descent.js";

const COLUMNS = 150;
const LEVELS = 16;

/**
 * Evaluate a surface on a regular grid over its box, as in a picture: the first row is the top.
 *
 * Returns `values`, the size of the grid, the lowest value, and `height`, the display scale: linear near the minimum and
 * logarithmic above it, so that steep walls do not hide the floor. `loss` is its inverse.
 */
export function sampleSurface(surface, parameters, columns = COLUMNS) {
  const [[left, right], [bottom, top]] = surface.box;
  const rows = Math.max(2, Math.round((columns * (top - bottom)) / (right - left)));
  const values = new Float64Array(rows * columns);
  for (let i = 0; i < rows; i++) {
    const y = top - ((top - bottom) * i) / (rows - 1);
    for (let j = 0; j < columns; j++) {
      values[i * columns + j] = surface.value(parameters, left + ((right - left) * j) / (columns - 1), y);
    }
  }
  const minimum = minimumValue(surface, parameters);
  const sorted = Float64Array.from(values, (value) => value - minimum).sort();
  const unit = sorted[Math.floor(sorted.length / 4)] || sorted[sorted.length - 1] || 1;
  const height = (value) => Math.log1p(Math.max(value - minimum, 0) / unit);
  const loss = (height) => minimum + unit * Math.expm1(height);
  return {
    surface,
    parameters,
    values,
    columns,
    rows,
    minimum,
    height,
    loss,
    highest: height(minimum + sorted[sorted.length - 1]),
  };
}

/** Return the losses at which contour lines are drawn, from the lowest: equally spaced in height. */
export const contourLevels = (sample) =>
  Array.from({ length: LEVELS - 1 }, (_, k) => sample.loss((sample.highest * (k + 1)) / LEVELS));

/**
 * Return the contour line of a level as segments `[x1, y1, x2, y2]` in grid coordinates, by marching squares.
 *
 * A cell in which the line is ambiguous (a saddle) gets two segments that separate its corners by the value at its
 * centre.
 */
export function contourSegments({ values, columns, rows }, level) {
  const segments = [];
  for (let i = 0; i + 1 < rows; i++) {
    for (let j = 0; j + 1 < columns; j++) {
      const at = i * columns + j;
      const isAbove = values[at] >= level;
      const isSame =
        values[at + 1] >= level === isAbove &&
        values[at + columns] >= level === isAbove &&
        values[at + columns + 1] >= level === isAbove;
      if (isSame) continue; // nearly all cells: nothing is allocated for them
      const corners = [values[at], values[at + 1], values[at + columns + 1], values[at + columns]];
      const above = corners.map((value) => value >= level);
      const crossings = [];
      for (let edge = 0; edge < 4; edge++) {
        const next = (edge + 1) % 4;
        if (above[edge] === above[next]) continue;
        const part = (level - corners[edge]) / (corners[next] - corners[edge]);
        crossings.push(
          [
            [j + part, i],
            [j + 1, i + part],
            [j + 1 - part, i + 1],
            [j, i + 1 - part],
          ][edge],
        );
      }
      if (crossings.length === 4 && corners.reduce((sum, value) => sum + value) / 4 >= level === above[0])
        crossings.push(crossings.shift());
      for (let k = 0; k + 1 < crossings.length; k += 2) segments.push([...crossings[k], ...crossings[k + 1]]);
    }
  }
  return segments;
}

/** Return round losses for the colour bar, from the lowest, about `count` of them. */
export function colourBarTicks(sample, count = 6) {
  const low = sample.loss(sample.highest * 0.06) - sample.minimum;
  const high = sample.loss(sample.highest) - sample.minimum;
  const ticks = [sample.minimum];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    for (const digit of [1, 2, 5]) {
      const above = digit * 10 ** power;
      const spaced =
        sample.height(sample.minimum + above) - sample.height(ticks[ticks.length - 1]) > sample.highest / (count + 2);
      if (above <= high && spaced) ticks.push(sample.minimum + above);
    }
  }
  return ticks;
}
