/* Descents of optimizers on surfaces: the same numbers as gradprix/explain/descent.py. Pure functions, without a page.

   A rule is a value of RULES (rules.js), a surface one of SURFACES (surfaces.js). A racer is {rule, h}, where h holds all
   hyperparameters, as returned by `hyperparameters`. A place is {surface, parameters, noise, seed}: a surface, an object
   with the values of its parameters, the standard deviation of the gradient noise, and the seed of the noise. */

import { drawNoise } from "./gradient_noise.js";

/** Absolute value of a coordinate above which a descent counts as diverged. */
export const DIVERGED = 1e30;
/** Number of noise samples for tuning the learning rate on a noisy surface. */
export const DRAWS = 5;
/** Distance from the centre of the box, in units of its width, beyond which a point is not drawn. */
export const FAR = 1.5;
/** Distance from a minimum, in units of the box's width, below which it is reached. */
export const NEAR = 0.05;

/** Return all hyperparameters of a rule: the given ones, and defaults of all others. */
export const hyperparameters = (rule, given = {}) => ({ ...rule.defaults, ...given });

/** Return the default parameters of a surface. */
export const defaultParameters = (surface) =>
  Object.fromEntries(Object.entries(surface.parameters).map(([name, each]) => [name, each.default]));

/** Return the standard normal numbers of all steps of a seed, two for each step; null without noise. */
function noiseTable({ noise, seed }, steps) {
  if (!noise) return null;
  const table = new Float64Array(2 * (steps + 1));
  for (let t = 1; t <= steps; t++) table.set(drawNoise(seed, t), 2 * t);
  return table;
}

/** Run one racer from one starting point, and call `record(t, x, y, loss)` before each step and after the last. */
function follow({ rule, h }, { surface, parameters, noise }, steps, start, table, record) {
  const x = Float64Array.from(start), g = new Float64Array(2);
  let state = null;
  for (let t = 1; t <= steps; t++) {
    const a = x[0], b = x[1];
    record(t - 1, a, b, surface.value(parameters, a, b));
    const gradient = surface.gradient(parameters, a, b);
    g[0] = table ? gradient[0] + noise * table[2 * t] : gradient[0];
    g[1] = table ? gradient[1] + noise * table[2 * t + 1] : gradient[1];
    state ??= rule.init(h, x, g);
    rule.step(h, t, x, g, state);
    if (!(Math.abs(x[0]) < DIVERGED && Math.abs(x[1]) < DIVERGED)) {
      x[0] = a; // a descent that diverges stays at its last valid point
      x[1] = b;
    }
  }
  record(steps, x[0], x[1], surface.value(parameters, x[0], x[1]));
}

/**
 * Run several racers from one starting point, all with the same gradient noise.
 *
 * Returns {points, losses} with an array for each racer: the coordinates x₀, y₀, x₁, y₁, … before each step and after
 * the last, and the losses there, without noise.
 */
export function descend(racers, place, steps, start = place.surface.start) {
  const table = noiseTable(place, steps);
  const points = racers.map(() => new Float64Array(2 * (steps + 1)));
  const losses = racers.map(() => new Float64Array(steps + 1));
  racers.forEach((racer, i) => follow(racer, place, steps, start, table, (t, x, y, loss) => {
    points[i][2 * t] = x;
    points[i][2 * t + 1] = y;
    losses[i][t] = loss;
  }));
  return { points, losses };
}

/**
 * Run a racer, and return its steps: [{t, x, g, state, after, stateAfter}, …].
 *
 * `x` is the point before step t, `g` the gradient there, with noise, and `after` the point after the step. The states
 * are the numbers before and after it, with the layout `rule.state`.
 */
export function trace({ rule, h }, place, steps, start = place.surface.start) {
  const seen = [];
  const step = (h, t, x, g, state) => seen.push(takeStep({ rule, h }, t, x, g, state));
  follow({ rule: { ...rule, step }, h }, place, steps, start, noiseTable(place, steps), () => {});
  return seen;
}

/** Perform a step in place, and return it; see `trace`. */
function takeStep({ rule, h }, t, x, g, state) {
  const before = { t, x: Array.from(x), g: Array.from(g), state: Array.from(state) };
  rule.step(h, t, x, g, state);
  return { ...before, after: Array.from(x), stateAfter: Array.from(state) };
}

/**
 * Return step t of a racer; see `trace`.
 *
 * If a point `at` is given, the step is taken from there, with the state that the descent has before step t.
 */
export function stepAt(racer, place, t, start = place.surface.start, at = null) {
  const own = trace(racer, place, t, start)[t - 1];
  if (!at) return own;
  const { surface, parameters, noise, seed } = place, drawn = noise ? drawNoise(seed, t) : null;
  const g = surface.gradient(parameters, ...at).map((slope, i) => (drawn ? slope + noise * drawn[i] : slope));
  const state = t === 1 ? racer.rule.init(racer.h, at, g) : Float64Array.from(own.state);
  return takeStep(racer, t, Float64Array.from(at), Float64Array.from(g), state);
}

/**
 * Return the learning rate with the lowest final loss from the surface's starting point; of several that reach the same
 * loss, the one with the lowest mean loss over the descent. On a noisy surface, losses are means over five seeds.
 *
 * `given` holds the hyperparameters that differ from the defaults.
 */
export function tune(rule, given, place, steps) {
  const draws = place.noise ? DRAWS : 1;
  const curves = rule.rates.map(() => new Float64Array(steps + 1));
  for (let seed = 0; seed < draws; seed++) {
    const drawn = { ...place, seed }, table = noiseTable(drawn, steps);
    rule.rates.forEach((lr, i) => {
      const racer = { rule, h: hyperparameters(rule, { ...given, lr }) };
      follow(racer, drawn, steps, place.surface.start, table, (t, x, y, loss) => { curves[i][t] += loss; });
    });
  }
  let lowest = Infinity;
  for (const curve of curves) {
    for (let t = 0; t <= steps; t++) {
      curve[t] = Number.isNaN(curve[t]) ? Infinity : curve[t] / draws;
      lowest = Math.min(lowest, curve[t]);
    }
  }
  // Final losses that differ by less than a millionth of the total decrease count as equal.
  const negligible = lowest + 1e-6 * (curves[0][0] - lowest);
  let best = null;
  curves.forEach((curve, i) => {
    const end = Math.max(curve[steps], negligible);
    if (best && end > best.end) return;
    let excess = 0;
    for (const loss of curve) excess += Math.max(loss - end, 0);
    if (!best || end < best.end || excess < best.excess) best = { end, excess, lr: rule.rates[i] };
  });
  return best.lr;
}

/** Return `size` evenly spaced numbers from `low` to `high`. */
export function linspace(low, high, size) {
  const step = (high - low) / (size - 1);
  return Float64Array.from({ length: size }, (_, i) => (2 * i < size ? low + step * i : high - step * (size - 1 - i)));
}

/** Return the loss on a grid over the box of a surface: {x, y, values}, with the values row by row. */
export function grid(surface, parameters, size = 121, box = surface.box) {
  const [x, y] = box.map(([low, high]) => linspace(low, high, size));
  const values = new Float64Array(size * size);
  for (let j = 0; j < size; j++)
    for (let i = 0; i < size; i++) values[j * size + i] = surface.value(parameters, x[i], y[j]);
  return { x, y, values };
}

/** Return the minimum loss of a surface; if no minimum is known, the lowest value on a grid. */
export function minimumValue(surface, parameters) {
  const { minima } = surface;
  return minima.length
    ? Math.min(...minima.map(([x, y]) => surface.value(parameters, x, y)))
    : grid(surface, parameters).values.reduce((a, b) => Math.min(a, b));
}

/** Return true if a point is so near to the box of a surface that it is drawn. */
export const isDrawn = ({ box }, point) =>
  box.every(([low, high], i) => Math.abs(point[i] - (low + high) / 2) / (high - low) < FAR);

/**
 * Run a racer from a grid of starting points, and find the minimum that each reaches.
 *
 * Returns {starts, ends, losses, reached}, row by row: pairs of coordinates x, y before and after, the final losses, and
 * the index of the minimum that is reached, −1 if none is.
 */
export function basins(racer, place, steps, size = 31) {
  const { box, minima } = place.surface, [x, y] = box.map(([low, high]) => linspace(low, high, size));
  const widths = box.map(([low, high]) => high - low), table = noiseTable(place, steps);
  const starts = new Float64Array(2 * size * size), ends = new Float64Array(2 * size * size);
  const losses = new Float64Array(size * size), reached = new Int32Array(size * size).fill(-1);
  for (let k = 0; k < size * size; k++) {
    starts.set([x[k % size], y[Math.floor(k / size)]], 2 * k);
    follow(racer, place, steps, starts.subarray(2 * k, 2 * k + 2), table, (t, a, b, loss) => {
      if (t < steps) return;
      ends.set([a, b], 2 * k);
      losses[k] = loss;
    });
    const distances = minima.map((m) => Math.hypot(...m.map((each, i) => (ends[2 * k + i] - each) / widths[i])));
    const nearest = distances.indexOf(Math.min(...distances));
    if (nearest >= 0 && distances[nearest] < NEAR) reached[k] = nearest;
  }
  return { starts, ends, losses, reached };
}
