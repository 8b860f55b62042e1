/* Web worker for calculations that would block the page. It gets {id, task, …names and numbers}, and answers {id, result}
   or {id, error}. */

import { basins, hyperparameters, tune } from "./descent.js";
import { RULES } from "./rules.js";
import { SURFACES } from "./surfaces.js";
import { sweep } from "./sweep.js";

const TASKS = {
  tune: ({ name, given, place, steps }) => tune(RULES[name], given, place, steps),
  basins: ({ name, given, place, steps, size }) =>
    basins({ rule: RULES[name], h: hyperparameters(RULES[name], given) }, place, steps, size),
  sweep: ({ name, given, place, steps, start }) => sweep(name, given, place, steps, start),
};

addEventListener("message", ({ data }) => {
  try {
    const place = { ...data.place, surface: SURFACES[data.place.surface] };
    postMessage({ id: data.id, result: TASKS[data.task]({ ...data, place }) });
  } catch (error) {
    postMessage({ id: data.id, error: String(error) });
  }
});
