/** Results of the worker: tuned learning rates and basins of attraction, each computed once. */

import { inBackground } from "./background.js";
import { RULES } from "./rules.js";
import { sweepAxes } from "./sweep.js";

/** Tasks of the worker, with the results that are known. */
export class Results {
  /** Args: `onResult()`, called when a result is there; `onError(words)`. */
  constructor(onResult, onError) {
    Object.assign(this, { onResult, onError, known: new Map(), waiting: new Map(), current: null });
  }

  /**
   * Return the result of a task, or undefined if it is not known yet; then `onResult` is called when it is.
   *
   * Of several waiting tasks of one kind for one optimizer only the newest is done: the others belong to settings that a
   * slider has left.
   */
  ask(task, args) {
    const key = JSON.stringify([task, args]);
    if (this.known.has(key)) return this.known.get(key);
    if (this.current !== key) this.waiting.set(`${task} ${args.name}`, { key, task, args });
    this.startNext();
    return undefined;
  }

  async startNext() {
    if (this.current || !this.waiting.size) return;
    const [slot, { key, task, args }] = this.waiting.entries().next().value;
    this.waiting.delete(slot);
    this.current = key;
    try {
      this.known.set(key, await inBackground(task, args));
    } catch (error) {
      this.known.set(key, null);
      this.onError(
        `${args.name}: the ${{ tune: "learning rate", basins: "map of basins", sweep: "map of hyperparameters" }[task]} could not be computed (${error.message}).`,
      );
    }
    if (this.known.size > 2000) this.known.delete(this.known.keys().next().value);
    this.current = null;
    this.startNext();
    this.onResult();
  }
}

const place = ({ surface, parameters, noise }, seed) => ({ surface, parameters, noise, seed });
const withoutRate = ({ lr: _, ...others }) => others;

/**
 * Return the learning rate of each optimizer of a state, and the names of those whose rate is being tuned.
 *
 * Until a rate is known, the one that was tuned last for this optimizer stands in (`last`, which is updated), or the
 * default: the curves are those of the new setting, and are dimmed.
 */
export function findRates(state, results, last) {
  const rates = {};
  const pending = [];
  for (const { name, own } of state.racers) {
    const asked = { name, given: withoutRate(own), place: place(state, 0), steps: state.steps };
    const tuned = own.lr ?? results.ask("tune", asked);
    if (tuned === undefined) pending.push(name);
    else if (own.lr === undefined && tuned !== null) last[name] = tuned;
    rates[name] = tuned ?? last[name] ?? RULES[name].defaults.lr;
  }
  return { rates, pending };
}

/** Return the basins of attraction of an optimizer at a learning rate, or undefined if they are not known yet. */
export const findBasins = (state, results, { name, own }, lr, size) =>
  results.ask("basins", { name, given: { ...own, lr }, place: place(state, state.seed), steps: state.steps, size });

/** Return the final losses over the hyperparameters of an optimizer, or undefined if they are not known yet. */
export function findSweep(state, results, { name, own }) {
  const { key } = sweepAxes(name, state.steps);
  const given = Object.fromEntries(Object.entries(own).filter(([each]) => each !== "lr" && each !== key));
  return results.ask("sweep", { name, given, place: place(state, state.seed), steps: state.steps, start: state.start });
}
