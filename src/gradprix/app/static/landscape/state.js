/** State of the landscape page, the ranges of its values, and its form in a URL. */

import { defaultParameters } from "./descent.js";
import { formatExact, formatLimit } from "./format.js";
import { RULES } from "./rules.js";
import { SURFACES } from "./surfaces.js";

export const VIEWS = { contour: "Contour", relief: "3-D", starts: "Basins of attraction", sweep: "Hyperparameter map" };

/** Label and range of each number. `log` marks a logarithmic slider, `slider` the upper end of a shorter one. */
export const NUMBERS = {
  steps: { label: "Steps", low: 1, high: 2000, integer: true, log: true },
  noise: { label: "Noise σ", low: 0, high: 20, slider: 3 },
  seed: { label: "Seed of the noise", low: 0, high: 999999, integer: true },
  lr: { label: "Learning rate", low: 1e-9, high: 1e5, log: true },
  t: { label: "Step", low: 0, high: 2000, integer: true },
};

const DEFAULT_SURFACE = "ravine";
const DEFAULT_RACERS = ["gd", "momentum", "nesterov", "adagrad", "adam"];

/** Return the adjustable hyperparameters of an optimizer other than the learning rate, with their descriptions. */
export function decays(name) {
  const { lr: _, ...others } = RULES[name].hyperparameters;
  return others;
}

/** Return the default state of a surface. */
export function defaultState(surface = DEFAULT_SURFACE) {
  const { start, noise } = SURFACES[surface];
  return {
    surface,
    parameters: defaultParameters(SURFACES[surface]),
    noise,
    seed: 0,
    steps: 200,
    start: [...start],
    racers: DEFAULT_RACERS.map((name) => ({ name, own: {} })),
    view: "contour",
    of: "momentum",
    t: null,
    mark: "",
  };
}

/** Return a problem with a number as a sentence, or "" if it is valid. */
export function findProblem(value, { label, low, high, integer }) {
  const range = `${label}: ${formatLimit(low)} to ${formatLimit(high)}`;
  if (!Number.isFinite(value)) return `${range}, as a number.`;
  if (integer && !Number.isInteger(value)) return `${range}, without decimals.`;
  return value < low || value > high ? `${range}.` : "";
}

/** Return a text as a number; text that is not a number gives NaN. Accepts a typographic minus and `1e-3`. */
export function parseNumber(text) {
  const plain = String(text).trim().replaceAll("−", "-");
  return plain === "" ? NaN : Number(plain);
}

/** Return descriptions of both coordinates of the starting point, whose range is the drawn region. */
export const startRanges = (surface) =>
  SURFACES[surface].box.map(([low, high], i) => ({ label: `Start ${"xy"[i]}`, low, high }));

/**
 * Read the state from the query string of a URL, such as `surface=bowl&steps=50&who=gd:lr=0.1,adam`.
 *
 * Returns the state and a list of problems: one sentence for each value that is not used.
 */
export function readState(query) {
  const fields = new URLSearchParams(query);
  const problems = [];
  const choose = (key, choices, usual) => {
    const given = fields.get(key);
    if (given === null || given === "") return usual;
    if (Object.hasOwn(choices, given)) return given;
    problems.push(`${key}=${given} in the address: no such ${key}. Known: ${Object.keys(choices).join(", ")}.`);
    return usual;
  };
  const number = (text, range, usual) => {
    if (text === null || text === undefined) return usual;
    const value = parseNumber(text);
    const problem = findProblem(value, range);
    if (problem) problems.push(`${problem} The address says “${text}”, which is not used.`);
    return problem ? usual : value;
  };
  const base = defaultState(choose("surface", SURFACES, DEFAULT_SURFACE));
  const described = SURFACES[base.surface].parameters;
  for (const key of Object.keys(described))
    base.parameters[key] = number(fields.get(key), described[key], base.parameters[key]);
  for (const key of ["noise", "seed", "steps"]) base[key] = number(fields.get(key), NUMBERS[key], base[key]);
  const start = (fields.get("start") ?? "").split(",");
  if (fields.get("start"))
    base.start = startRanges(base.surface).map((range, i) => number(start[i] ?? "", range, base.start[i]));
  if (fields.has("who")) base.racers = readRacers(fields.get("who"), number, problems);
  base.view = choose("view", VIEWS, base.view);
  base.of = choose("of", RULES, base.of);
  base.mark = fields.get("mark") === "crossing" ? "crossing" : "";
  base.t = number(fields.get("t"), { ...NUMBERS.t, high: base.steps }, null);
  return { state: base, problems };
}

function readRacers(text, number, problems) {
  const racers = new Map();
  for (const part of text.split(",").filter(Boolean)) {
    const [name, ...rest] = part.split(":");
    if (!Object.hasOwn(RULES, name)) {
      problems.push(`who=${name} in the address: no such optimizer.`);
      continue;
    }
    const own = {};
    const ranges = { ...decays(name), lr: NUMBERS.lr };
    for (const each of rest) {
      const [key, value] = each.split("=");
      if (!Object.hasOwn(ranges, key)) {
        problems.push(`${name}:${key} in the address: no such hyperparameter.`);
        continue;
      }
      const read = number(value, { ...ranges[key], label: `${ranges[key].label} of ${name}` }, null);
      if (read !== null) own[key] = read;
    }
    racers.set(name, { name, own });
  }
  return [...racers.values()];
}

const writeRacer = ({ name, own }) =>
  [name, ...Object.entries(own).map(([key, value]) => `${key}=${formatExact(value)}`)].join(":");

/** Return the state as a query string without `?`, the inverse of `readState`. Default values are left out. */
export function writeState(state) {
  const base = defaultState(state.surface);
  const racers = (each) => each.racers.map(writeRacer).join(",");
  const fields = [
    ["surface", state.surface, DEFAULT_SURFACE],
    ...Object.entries(state.parameters).map(([key, value]) => [key, value, base.parameters[key]]),
    ...["noise", "seed", "steps", "view", "of", "t", "mark"].map((key) => [key, state[key], base[key]]),
    ["start", state.start.map(formatExact).join(","), base.start.map(formatExact).join(",")],
    ["who", racers(state), racers(base)],
  ];
  return fields
    .filter(([, value, usual]) => value !== usual)
    .map(
      ([key, value]) =>
        `${key}=${encodeURIComponent(typeof value === "number" ? formatExact(value) : value).replace(/%(2C|3A|3D)/g, decodeURIComponent)}`,
    )
    .join("&");
}

/** Return the part of a state that determines the numbers, as text: two states with the same text have the same run. */
export const settingKey = ({ surface, parameters, noise, seed, steps, start, racers }) =>
  JSON.stringify([surface, parameters, noise, seed, steps, start, racers]);
