/* Losses that are interpolated between grid points: the same numbers as gradprix/explain/loss_grid.py. */

const clamp = (a, low, high) => Math.min(Math.max(a, low), high);
const square = (a) => a * a;

const weights = (f) => [
  0.5 * (2 * square(f) - f - f * f * f),
  0.5 * (2 - 5 * square(f) + 3 * (f * f * f)),
  0.5 * (f + 4 * square(f) - 3 * (f * f * f)),
  0.5 * (f * f * f - square(f)),
];
const slopes = (f) => [
  0.5 * (4 * f - 1 - 3 * square(f)),
  0.5 * (9 * square(f) - 10 * f),
  0.5 * (1 + 8 * f - 9 * square(f)),
  0.5 * (3 * square(f) - 2 * f),
];

/** Return the functions {value, gradient} of a surface, given its box and rows of values on a regular grid. */
export function lossGrid(box, values) {
  const size = values.length;

  function locate(point, [low, high]) {
    const position = clamp((point - low) / (high - low), 0, 1) * (size - 1);
    const corner = clamp(Math.floor(position), 1, size - 3);
    return { f: position - corner, corner, beyond: point - clamp(point, low, high) };
  }

  function combine(column, row, across, along) {
    const inRow = (i) => {
      const line = values[row + i - 1], j = column - 1;
      return across[0] * line[j] + across[1] * line[j + 1] + across[2] * line[j + 2] + across[3] * line[j + 3];
    };
    return along[0] * inRow(0) + along[1] * inRow(1) + along[2] * inRow(2) + along[3] * inRow(3);
  }

  const slope = (part, place, [low, high]) =>
    (place.beyond === 0 ? part * ((size - 1) / (high - low)) : 0) + 2 * place.beyond;

  return {
    value(h, x, y) {
      const a = locate(x, box[0]), b = locate(y, box[1]);
      return combine(a.corner, b.corner, weights(a.f), weights(b.f)) + (square(a.beyond) + square(b.beyond));
    },
    gradient(h, x, y) {
      const a = locate(x, box[0]), b = locate(y, box[1]);
      return [
        slope(combine(a.corner, b.corner, slopes(a.f), weights(b.f)), a, box[0]),
        slope(combine(a.corner, b.corner, weights(a.f), slopes(b.f)), b, box[1]),
      ];
    },
  };
}
