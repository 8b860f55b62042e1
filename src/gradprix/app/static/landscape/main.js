/** The landscape page: its state, and what follows from it. */

import { buildControls, buildViewControls, selectedRacer } from "./controls.js";
import { element } from "./elements.js";
import { describeSettings, download, makePng, makeStandalone, makeSvg } from "./export.js";
import { LossFigure, SurfaceFigure } from "./figures.js";
import { formatNumber } from "./format.js";
import { buildPlayer } from "./player.js";
import { buildPresets, fillIn } from "./presets.js";
import { Results, findBasins, findRates, findSweep } from "./results.js";
import { computeRun } from "./run.js";
import { readState, settingKey, writeState } from "./state.js";
import { trackPointers } from "./pointers.js";
import { SURFACES } from "./surfaces.js";
import { sweepAxes } from "./sweep.js";
import { settingAt } from "./sweep_view.js";
import { makeBasinsCsv, makeCsv, makeTable } from "./table.js";
import { readTheme } from "./theme.js";

const BASIN_SIZE = 31;
const root = document.documentElement;
const find = (id) => document.getElementById(id);
const { styles, presets, standalone } = JSON.parse(find("page-data").textContent);
/** Source of a page that is one file, to be saved with another state: read before anything is changed. */
const pageSource = standalone === null ? `<!DOCTYPE html>\n${root.outerHTML}` : null;

let state = null;
let run = [];
let runKey = "";
let rates = {};
let pending = [];
let preview = null;
let hovered = null;
let map;
let isScheduled = false;
/** Comment that is shown: a preset and its words; null if there is none. */
let commented = null;
const tunedLast = {};
const problems = find("problems");
const report = (words) => problems.append(element("p", {}, words));
const results = new Results(schedule, report);
const surfaceFigure = new SurfaceFigure(find("surface-stage"));
const lossFigure = new LossFigure(find("loss-stage"));
const showControls = buildControls(find("controls"), change, styles);
const showViews = buildViewControls(find("views"), change);
const player = buildPlayer(find("player"), (t) => change({ t: t === state.steps ? null : t }, false));
const menu = buildPresets(find("presets"), presets, (query) => {
  open(query, true);
  requestAnimationFrame(showExample); // after it is drawn
});

/** Show the state of a query string; `isNew` adds it to the browser's history. */
function open(query, isNew) {
  const read = readState(query);
  player.stop();
  state = read.state;
  problems.replaceChildren();
  read.problems.forEach(report);
  if (isNew) writeAddress(true);
  schedule();
}

/** Change parts of the state; `isFinal` is false while a slider or the starting point is being dragged. */
function change(changes, isFinal) {
  const before = settingKey(state);
  state = { ...state, ...changes };
  if (settingKey(state) !== before) player.stop();
  problems.replaceChildren(); // they are about the address that the page was opened with
  clearTimeout(change.timer);
  change.timer = setTimeout(() => writeAddress(false), isFinal ? 0 : 300);
  schedule();
}

/** Write the state to the address, so that the address can be shared. Files have no query, so it follows a `#` there. */
function writeAddress(isNew) {
  const query = writeState(state);
  const sign = location.protocol === "file:" ? "#" : "?";
  const address = location.pathname + (query ? sign + query : "");
  if (sign === "#") history.replaceState(null, "", query ? `#${query}` : "#");
  else history[isNew ? "pushState" : "replaceState"](null, "", address);
}

/** Draw the page before the next frame, once, however often it is asked for. */
function schedule() {
  if (isScheduled) return;
  isScheduled = true;
  requestAnimationFrame(() => {
    isScheduled = false;
    render();
  });
}

/** Return the step that is shown: the one that is pointed at in the loss plot, or that of the playback. */
const shownStep = () => Math.min(preview ?? state.t ?? state.steps, state.steps);

function render() {
  const theme = readTheme();
  const racer = selectedRacer(state);
  surfaceFigure.drawGround(state, racer, theme);
  const { minimum } = surfaceFigure.sample(state);
  ({ rates, pending } = findRates(state, results, tunedLast));
  const key = settingKey(state) + JSON.stringify(rates);
  if (key !== runKey) {
    run = computeRun(state, rates, minimum);
    runKey = key;
  }
  map = racer && findMap(racer);
  const t = shownStep();
  const drawn = { state, run, racer, t, theme, styles, dimmed: new Set(pending), map, minimum, rates };
  surfaceFigure.drawFront(drawn);
  lossFigure.draw(drawn);
  player.show(t, state.steps);
  showControls(state, rates, pending);
  showViews(state);
  showWords(t);
  find("table").replaceChildren(makeTable(run, pending, styles));
  document.querySelectorAll("a[data-with-state]").forEach((link) => {
    link.search = writeState(state);
  });
  highlight();
  root.dataset.ready = String(
    !pending.length && (map !== undefined || !racer || !["starts", "sweep"].includes(state.view)),
  );
}

/** Return the data of the map that the view shows; undefined if it shows none, or while it is computed. */
function findMap(racer) {
  if (state.view === "sweep") return findSweep(state, results, racer);
  if (state.view !== "starts" || pending.includes(racer.name)) return undefined;
  return findBasins(state, results, racer, rates[racer.name], BASIN_SIZE);
}

/**
 * Write the comment of a preset. It stays while its settings are varied, as comments suggest: with the numbers of the
 * example, which it says, and a button that restores the settings.
 */
function showComment() {
  const preset = menu.find(state);
  menu.show(preset);
  if (preset) {
    const words = pending.length ? "Tuning the learning rates for this comment…" : fillIn(preset.text, run);
    commented = { preset, words, isComplete: !pending.length };
  } else if (commented && !(commented.isComplete && menu.isRelated(commented.preset, state))) commented = null;
  const comment = find("comment");
  comment.hidden = !commented;
  if (!commented) return;
  const { title, works, query } = commented.preset;
  const key = JSON.stringify([title, commented.words, Boolean(preset)]);
  if (comment.dataset.key === key) return; // a button that is replaced while it is pressed is not clicked
  comment.dataset.key = key;
  const restore = element("button", { type: "button", onclick: () => open(query, true) }, "Restore");
  const changed = ["The settings are changed; the comment is on the example. ", restore];
  const heading = element("b", {}, `${title} `, element("small", {}, works ? "works" : "fails"));
  comment.classList.toggle("changed", !preset);
  comment.replaceChildren(
    heading,
    element("span", { class: "note", hidden: Boolean(preset) }, " ", ...changed),
    element("p", {}, commented.words),
  );
}

/** Bring the comment, figures and player of an example into view, if they are not. */
function showExample() {
  const isVisible = find("player").getBoundingClientRect().bottom <= innerHeight;
  if (!isVisible) find("comment").scrollIntoView({ block: "start" });
}

/** Write the values at the step that is shown, and what is being computed. */
function showWords(t) {
  showComment();
  find("status").textContent = pending.length ? `Tuning learning rates: ${pending.join(", ")}…` : "";
  const name = selectedRacer(state)?.name ?? "no optimizer";
  const [title, note] = {
    contour: ["Paths on the surface", "Drag the ring, or click, to move the starting point. + marks a minimum."],
    relief: ["Paths on the surface", "Drag to turn. The height is the loss on a logarithmic scale."],
    starts: [
      `Where ${name} ends, from each starting point`,
      "Each square is a starting point. Point at it to see where it ends.",
    ],
    sweep: [
      `Loss of ${name}, by its hyperparameters`,
      "Drag the ring to change the hyperparameters; the curves follow. Point at a square to see its loss.",
    ],
  }[state.view];
  find("surface-title").textContent = title;
  find("surface-note").textContent = note;
  find("rotate").hidden = state.view !== "relief";
  find("loss-readout").textContent =
    `Step ${t}: ${run.map(({ name, losses }) => `${name} ${formatNumber(losses[t])}`).join(", ")}`;
}

/** Fade all optimizers but the one that is pointed at, in figures, table and controls. */
function highlight() {
  const isAny = hovered !== null && run.some(({ name }) => name === hovered);
  document.body.classList.toggle("highlighting", isAny);
  document
    .querySelectorAll(".member")
    .forEach((each) => each.classList.toggle("on", isAny && each.dataset.name === hovered));
}

function setHovered(event) {
  const name = event.type === "pointerleave" ? null : (event.target.closest?.(".member")?.dataset.name ?? null);
  if (name === hovered) return;
  hovered = name;
  highlight();
}

/** Save a figure or its numbers, or the page; `form` is "png", "svg", "csv" or "html". */
async function save(what, form) {
  const name = `gradprix-${what}-${state.surface}`;
  if (form === "html")
    return download(await makeStandalone(writeState(state), pageSource, standalone), `${name}.html`, "text/html");
  if (form === "csv") return download(makeData(what), `${name}.csv`, "text/csv");
  const figure = what === "losses" ? lossFigure.export() : surfaceFigure.export(state);
  const svg = makeSvg(figure, makeTitle(what), [...describeSettings(state, rates), "gradprix"], readTheme());
  return form === "svg"
    ? download(svg, `${name}.svg`, "image/svg+xml")
    : download(await makePng(svg), `${name}.png`, "image/png");
}

function makeData(what) {
  if (what !== "surface" || state.view !== "starts" || !map) return makeCsv(run);
  const { name } = selectedRacer(state);
  return makeBasinsCsv(name, rates[name], map, surfaceFigure.sample(state).minimum);
}

/** Return the title of an exported figure: that of the preset, that of the figure, and the step if it shows one. */
function makeTitle(what) {
  const preset = menu.find(state);
  const words = what === "losses" ? "Loss above the minimum" : find("surface-title").textContent;
  const step = what === "losses" || map === undefined ? `, step ${shownStep()}` : "";
  return `${preset ? `${preset.title}: ${words[0].toLowerCase()}${words.slice(1)}` : words}${step}`;
}

for (const button of document.querySelectorAll("[data-save]")) {
  button.addEventListener("click", () =>
    save(...button.dataset.save.split(" ")).catch((error) => report(`The file could not be made: ${error.message}.`)),
  );
}
document.addEventListener("pointerover", setHovered);
document.addEventListener("focusin", setHovered);
root.addEventListener("pointerleave", setHovered);
trackPointers({
  surfaceFigure,
  lossFigure,
  state: () => state,
  move: (point, isFinal) => {
    const inside = clampToBox(point, surfaceFigure.layout.box);
    const racer = selectedRacer(state);
    if (state.view !== "sweep") return change({ start: inside }, isFinal);
    const own = { ...racer.own, ...settingAt(sweepAxes(racer.name, state.steps), inside) };
    return change({ racers: state.racers.map((each) => (each === racer ? { ...each, own } : each)) }, isFinal);
  },
  turn: (by, tilt) => {
    const { camera } = surfaceFigure;
    surfaceFigure.camera = { turn: camera.turn + by, tilt: Math.min(Math.max(camera.tilt + tilt, 5), 88) };
    schedule();
  },
  seek: (t) => {
    player.stop();
    change({ t: t === state.steps ? null : t }, false);
  },
  preview: (t) => {
    if (preview === t) return;
    preview = t;
    schedule();
  },
  readOut: (words) => {
    find("surface-readout").textContent = words;
  },
});

const clampToBox = (point, box) =>
  point.map((value, i) => Number(Math.min(Math.max(value, box[i][0]), box[i][1]).toPrecision(4)));

addEventListener("popstate", () => open(location.search.slice(1), false));
addEventListener("hashchange", () => open(location.hash.slice(1), false));
root.addEventListener("themechange", schedule);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", schedule);
document.querySelector(".examples").open = innerWidth > 800;
new ResizeObserver(schedule).observe(find("figures"));
open(location.search.slice(1) || location.hash.slice(1) || root.dataset.query || "", false);
