/** The page "Step": one step of one optimizer on a surface, with arrows, numbers and equations. */

import { buildControls } from "../landscape/controls.js";
import { descend, hyperparameters, stepAt, trace } from "../landscape/descent.js";
import { element } from "../landscape/elements.js";
import { describeSettings, download, makePng, makeSvg } from "../landscape/export.js";
import { formatExact, formatNumber } from "../landscape/format.js";
import { buildPlayer } from "../landscape/player.js";
import { Results, findRates } from "../landscape/results.js";
import { RULES } from "../landscape/rules.js";
import { findProblem, parseNumber, readState, settingKey, startRanges, writeState } from "../landscape/state.js";
import { SURFACES } from "../landscape/surfaces.js";
import { readTheme } from "../landscape/theme.js";
import { trackEquations } from "./equations.js";
import { makeNumbersTable } from "./numbers_table.js";
import { trackPoint } from "./point_handle.js";
import { drawnQuantities, isFar, selectRegion } from "./quantities.js";
import { StepFigure } from "./step_figure.js";
import { makeStepsCsv } from "./steps_csv.js";

const find = (id) => document.getElementById(id);
const { styles, kinds } = JSON.parse(find("page-data").textContent);
const root = document.documentElement;
const tunedLast = {};
let state = null;
let shown = null; // what the page shows: {racer, place, step, rates}
let isScheduled = false;
/** The region that is shown, and whether it is held still, because the point in it is being dragged. */
let region = null;
let isHeld = false;

const problems = find("problems");
const report = (words) => problems.append(element("p", {}, words));
const results = new Results(schedule, report);
const figure = new StepFigure(find("step-stage"));
const showControls = buildControls(find("controls"), change, styles);
const player = buildPlayer(find("player"), (step) => change({ step, at: null }, false), 1);
const showEquations = trackEquations(find("equations"), markReady);

/** Read what a URL says of the step: its number, the region shown, and the point if it was moved. */
function readStep(fields, base) {
  const number = (text, range, usual) => {
    if (text === null || text === undefined) return usual;
    const problem = findProblem(parseNumber(text), range);
    if (problem) report(`${problem} The address says “${text}”, which is not used.`);
    return problem ? usual : parseNumber(text);
  };
  const step = number(fields.get("step"), { label: "Step", low: 1, high: base.steps, integer: true }, Math.min((base.t ?? 0) + 1, base.steps));
  const zoom = fields.get("zoom") === "whole" ? "whole" : "near";
  const at = fields.get("at")?.split(",").map(parseNumber);
  return { step, zoom, at: at?.length === 2 && at.every((value) => Math.abs(value) < 1e6) ? at : null };
}

function open(query) {
  player.stop();
  problems.replaceChildren();
  const read = readState(query);
  read.problems.forEach(report);
  const { of } = read.state;
  if (!read.state.racers.length) read.state.racers = [{ name: of, own: {} }];
  if (!read.state.racers.some(({ name }) => name === of)) read.state.of = read.state.racers[0].name;
  state = { ...read.state, ...readStep(new URLSearchParams(query), read.state) };
  schedule();
}

/** Change parts of the state; `isFinal` is false while something is being dragged. */
function change(changes, isFinal) {
  const before = settingKey(state);
  const next = { ...state, ...changes };
  if (!next.racers.length) {
    report("The page needs an optimizer: add another before you remove this one.");
    return;
  }
  const added = next.racers.find(({ name }) => !state.racers.some((each) => each.name === name));
  if (added) next.of = added.name;
  else if (!next.racers.some(({ name }) => name === next.of)) next.of = next.racers[0].name;
  state = { ...next, step: Math.min(next.step, next.steps) };
  if (settingKey(state) !== before) {
    state.at = changes.at ?? null;
    player.stop();
  }
  problems.replaceChildren();
  clearTimeout(change.timer);
  change.timer = setTimeout(writeAddress, isFinal ? 0 : 300);
  schedule();
}

function writeAddress() {
  const setting = writeState({ ...state, t: null });
  const own = { step: state.step === 1 ? "" : state.step, zoom: state.zoom === "near" ? "" : state.zoom, at: state.at?.map(formatExact).join() ?? "" };
  const fields = [setting, ...Object.entries(own).filter(([, value]) => value).map((pair) => pair.join("="))];
  const query = fields.filter(Boolean).join("&");
  history.replaceState(null, "", location.pathname + (query ? `?${query}` : ""));
  document.querySelectorAll("a[data-with-state]").forEach((link) => {
    link.search = writeState({ ...state, t: state.step - 1 });
  });
}

function schedule() {
  if (isScheduled) return;
  isScheduled = true;
  root.dataset.ready = "false";
  requestAnimationFrame(() => {
    isScheduled = false;
    render();
  });
}

function markReady() {
  const isBusy = find("equations").hasAttribute("aria-busy") || find("status").textContent !== "" || isScheduled;
  root.dataset.ready = String(!isBusy);
}

function render() {
  const theme = readTheme(), surface = SURFACES[state.surface], { of: name } = state;
  const { rates, pending } = findRates(state, results, tunedLast);
  const { own } = state.racers.find((racer) => racer.name === name);
  const racer = { rule: RULES[name], h: hyperparameters(RULES[name], { ...own, lr: rates[name] }) };
  const place = { ...state, surface };
  const step = stepAt(racer, place, state.step, state.start, state.at);
  const [flat] = descend([racer], place, state.steps, state.start).points;
  const path = Array.from({ length: state.steps + 1 }, (_, t) => [flat[2 * t], flat[2 * t + 1]]);

  if (!isHeld) region = selectRegion(surface, step, state.zoom);
  const { box, radius } = region;
  const quantities = drawnQuantities(step, racer.rule, kinds[name], radius);
  figure.drawGround(surface, state.parameters, box, theme, state.surface);
  figure.drawFront({ name, path, step, quantities, styles, theme });
  find("step-numbers").replaceChildren(makeNumbersTable(name, step, quantities, styles, theme));
  showEquations(name, racer.h, step);
  showControls(state, rates, pending);
  showWords(racer, step, pending);
  shown = { racer, place, step, rates };
  player.show(state.step, state.steps);
  markReady();
  root.dataset.drawn = String(performance.now());
}

function showWords({ h }, { x }, pending) {
  const { of: name, step, at, racers } = state;
  find("of").replaceChildren(...racers.map((each) => element("option", { value: each.name, selected: each.name === name }, RULES[each.name].label)));
  document.querySelectorAll("[name=zoom]").forEach((input) => {
    input.checked = input.value === state.zoom;
  });
  find("step-title").textContent = `Step ${step} of ${name}, learning rate ${formatNumber(h.lr)}`;
  find("status").textContent = pending.includes(name) ? `Tuning the learning rate of ${name}…` : "";
  find("back").hidden = !at;
  find("step-note").textContent = describeHandle(name, step, at, x);
}

function describeHandle(name, step, at, x) {
  if (at) return `The step from a point that you chose, with the state that ${name} has before step ${step}.`;
  if (isFar(x)) return "The point is too far away to be drawn: the descent diverges.";
  return step === 1 ? "Drag the ring to start elsewhere." : `Drag the ring to see step ${step} from another point, with the same state.`;
}

async function save(form) {
  const { racer, place, step, rates } = shown, { of: name } = state;
  const file = `gradprix-step-${step.t}-of-${name}`;
  if (form === "csv") return download(makeStepsCsv(trace(racer, place, state.steps, state.start), racer.rule.state), `${file}.csv`, "text/csv");
  const theme = readTheme();
  const own = { ...state, racers: state.racers.filter((each) => each.name === name) };
  const moved = state.at ? [`Step from the point (${state.at.map((value) => formatNumber(value)).join(", ")})`] : [];
  const key = "Orange: update, to scale. Green: −gradient. Pink: accumulated gradients. Squares: root of the second moment.";
  const svg = makeSvg(figure.export(), find("step-title").textContent, [key, ...moved, ...describeSettings(own, rates), "gradprix"], theme);
  return form === "svg" ? download(svg, `${file}.svg`, "image/svg+xml") : download(await makePng(svg), `${file}.png`, "image/png");
}

/** Move the point of the step. At step 1 it is the starting point; later, the memory stays that of the descent. */
function movePoint(point, isFinal) {
  const digits = (value) => Number(value.toPrecision(8));
  if (state.step > 1) {
    change({ at: point.map(digits) }, isFinal);
    return;
  }
  const ranges = startRanges(state.surface);
  change({ start: point.map((value, i) => digits(Math.min(Math.max(value, ranges[i].low), ranges[i].high))) }, isFinal);
}

document.querySelectorAll("[data-save]").forEach((button) =>
  button.addEventListener("click", () => save(button.dataset.save).catch((error) => report(`The file could not be made: ${error.message}.`))));
find("of").addEventListener("change", (event) => change({ of: event.target.value, at: null }, true));
find("back").addEventListener("click", () => change({ at: null }, true));
document.querySelectorAll("[name=zoom]").forEach((input) => input.addEventListener("change", () => change({ zoom: input.value }, true)));
figure.handle.setAttribute("aria-label", "Point before the step: drag it, or move it with the arrow keys");
trackPoint(figure, {
  begin: () => {
    isHeld = true;
  },
  move: movePoint,
  end: () => {
    isHeld = false;
    schedule();
  },
});
addEventListener("popstate", () => open(location.search.slice(1)));
root.addEventListener("themechange", schedule);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", schedule);
new ResizeObserver(schedule).observe(find("figures"));
open(location.search.slice(1));
writeAddress();
