/* Calculations in a web worker. */

let worker = null, count = 0;
const pending = new Map();

/**
 * Run a task of worker.js, and return a promise of its result.
 *
 * `task` is "tune", "basins" or "sweep". `args` has the fields {name, given, place, steps}: name of the rule, hyperparameters that
 * differ from its defaults, place as in descent.js but with the name of the surface as `surface`, and number of steps;
 * "basins" also takes `size`, and "sweep" the starting point `start`.
 */
export function inBackground(task, args) {
  if (!worker) {
    worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    worker.addEventListener("message", ({ data: { id, result, error } }) => {
      const { resolve, reject } = pending.get(id);
      pending.delete(id);
      if (error === undefined) resolve(result);
      else reject(new Error(error));
    });
    worker.addEventListener("error", ({ message }) => {
      for (const { reject } of pending.values()) reject(new Error(message || "the worker did not start"));
      pending.clear();
    });
  }
  return new Promise((resolve, reject) => {
    pending.set(++count, { resolve, reject });
    worker.postMessage({ id: count, task, ...args });
  });
}

/** Stop all running tasks: their promises are never settled. */
export function cancelBackground() {
  worker?.terminate();
  worker = null;
  pending.clear();
}
