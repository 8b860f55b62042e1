/** Runs of optimizers on a surface, and the summary of each, which the table and the comments of presets show. */

import { descend, hyperparameters, isDrawn } from "./descent.js";
import { RULES } from "./rules.js";
import { SURFACES } from "./surfaces.js";

/**
 * Compute the descents of all optimizers of a state.
 *
 * Args: the state; the learning rate of each optimizer by name; the minimum of the surface.
 * Returns, for each optimizer, its points `[[x, y], …]` and their losses above the minimum, from step 0, and a summary.
 */
export function computeRun(state, rates, minimum) {
  const surface = SURFACES[state.surface];
  const racers = state.racers.map(({ name, own }) => ({
    rule: RULES[name],
    h: hyperparameters(RULES[name], { ...own, lr: rates[name] }),
  }));
  const { points, losses } = descend(racers, { ...state, surface }, state.steps, state.start);
  return state.racers.map(({ name, own }, i) => {
    const path = Array.from(losses[i], (_, t) => [points[i][2 * t], points[i][2 * t + 1]]);
    const above = Array.from(losses[i], (loss) => (Number.isNaN(loss) ? Infinity : Math.max(loss - minimum, 0)));
    return {
      name,
      points: path,
      losses: above,
      summary: summarize(surface, rates[name], own.lr !== undefined, path, above),
    };
  });
}

function summarize(surface, rate, isGiven, points, losses) {
  const last = losses.length - 1;
  let step = last;
  while (step >= 0 && losses[step] <= losses[0] / 100) step--;
  const quarter = losses.slice(Math.floor((losses.length * 3) / 4));
  return {
    rate,
    isGiven,
    start: losses[0],
    end: losses[last],
    maximum: losses.reduce((most, loss) => Math.max(most, loss), 0),
    final_mean: quarter.reduce((sum, loss) => sum + loss, 0) / quarter.length,
    convergence_step: step === last ? null : step + 1,
    crossing_step: findCrossing(points, surface.minima)?.step ?? null,
    point: points[last],
    is_outside: !isDrawn(surface, points[last]),
  };
}

/**
 * Return where a descent first passes the minimum nearest to its end: the step after it and the point of passing.
 *
 * A point has passed the minimum if its projection on the direction from the minimum to the start is negative. Returns
 * null if the descent never does, or if the surface has no known minimum.
 */
export function findCrossing(points, minima) {
  const end = points[points.length - 1];
  const distance = ([x, y]) => Math.hypot(x - end[0], y - end[1]);
  const minimum = [...minima].sort((a, b) => distance(a) - distance(b))[0];
  if (!minimum) return null;
  const direction = [points[0][0] - minimum[0], points[0][1] - minimum[1]];
  const along = ([x, y]) => (x - minimum[0]) * direction[0] + (y - minimum[1]) * direction[1];
  for (let t = 1; t < points.length; t++) {
    const [before, after] = [along(points[t - 1]), along(points[t])];
    if (after < 0 && before >= 0) {
      const part = before / (before - after);
      const [[x, y], [right, up]] = [points[t - 1], points[t]];
      return { step: t, point: [x + part * (right - x), y + part * (up - y)] };
    }
  }
  return null;
}
