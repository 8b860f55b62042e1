/** Final losses of one optimizer over its learning rate and a second hyperparameter. */

import { descend, hyperparameters } from "./descent.js";
import { RULES } from "./rules.js";

const COLUMNS = 49;
const ROWS = 25;
/** Largest −log₁₀(1 − β): 0.9999. */
const TOP = 4;

/**
 * Return the axes of the map of an optimizer: the decimal logarithms of its learning rates, and either −log₁₀(1 − β) of
 * its first other hyperparameter (`key`), or the steps if it has none.
 */
export function sweepAxes(name, steps) {
  const { lr, ...others } = RULES[name].hyperparameters;
  const key = Object.keys(others)[0] ?? null;
  const box = [[Math.log10(lr.low), Math.log10(lr.high)], key === null ? [0, steps] : [0, TOP]];
  return { key, label: key === null ? "step" : others[key].label, box };
}

/** Return the centres of evenly spaced cells between two ends. */
const centres = ([low, high], count) =>
  Array.from({ length: count }, (_, k) => low + ((high - low) * (k + 0.5)) / count);

/** Return the value of a hyperparameter at a place on its axis; zero would remove a term from the rule. */
export const decayAt = (place) => Math.min(Math.max(1 - 10 ** -place, 1e-6), 0.999999);

/** Return the losses above zero of all cells, row by row from the bottom, and the loss at the start. */
export function sweep(name, given, place, steps, start) {
  const { key, box } = sweepAxes(name, steps);
  const [rates, places] = [centres(box[0], COLUMNS), centres(box[1], ROWS)];
  const rule = RULES[name];
  const losses = new Float64Array(COLUMNS * ROWS);
  let initial = 0;
  rates.forEach((rate, column) => {
    const run = (own) =>
      descend([{ rule, h: hyperparameters(rule, { ...given, ...own, lr: 10 ** rate }) }], place, steps, start)
        .losses[0];
    const only = key === null ? run({}) : null;
    places.forEach((value, row) => {
      const curve = only ?? run({ [key]: decayAt(value) });
      losses[row * COLUMNS + column] = only ? curve[Math.round(value)] : curve[steps];
      initial = curve[0];
    });
  });
  return { losses, initial, columns: COLUMNS, rows: ROWS };
}
