/* Live view of a race: asks the server for its progress every second. */

import {draw} from "./chart.js";
import {linkHighlights, showHighlight} from "./highlight.js";

const EVERY = 1000;
const live = document.getElementById("live"), url = live.dataset.url;
const part = id => document.getElementById(id);
const wasRunning = live.dataset.state !== "finished";
let last = null;

function cell(text, name = "td", className = "") {
  const node = document.createElement(name);
  node.textContent = text;
  node.className = className;
  return node;
}

function swatch(entry) {
  const sample = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  sample.setAttribute("class", "swatch");
  sample.setAttribute("width", 20);
  sample.setAttribute("height", 8);
  sample.setAttribute("aria-hidden", "true");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  for (const [key, value] of Object.entries({class: entry.dash, x1: 1, x2: 19, y1: 4, y2: 4, stroke: entry.colour})) {
    line.setAttribute(key, value);
  }
  sample.append(line);
  return sample;
}

/* Columns without a value are hidden. */
function showRanking(entries) {
  part("ranking-table").classList.toggle("has-finals", entries.some(entry => entry.final_runs));
  part("ranking-table").classList.toggle("has-diverged", entries.some(entry => entry.diverged));
  part("ranking").replaceChildren(...entries.map((entry, i) => {
    const row = document.createElement("tr"), name = cell(entry.name, "th");
    row.dataset.entry = entry.name;
    name.scope = "row";
    name.prepend(swatch(entry));
    row.append(cell(i + 1), name, cell(entry.best), cell(entry.rate), 
      cell(`${entry.tuning_runs} of ${entry.trials}`, "td", "minor"), cell(entry.final, "td", "of-finals"),
      cell(entry.final_runs || "", "td", "minor of-finals"), cell(entry.diverged || "", "td", "minor of-diverged"));
    return row;
  }));
}

function showFigures(progress) {
  const styles = Object.fromEntries(progress.entries.map(entry => [entry.name, entry]));
  const series = progress.curves.map(curve => ({...curve, ...pick(styles[curve.entry])}));
  const points = progress.points.map(point => ({
    entry: point.entry, x: point.rate, y: point.loss, isFilled: point.is_final, ...pick(styles[point.entry]),
  }));
  draw(part("curves"), series, [], {xLabel: "training examples seen", yLabel: "validation loss", yLog: true});
  draw(part("rates"), [], points, {xLabel: "learning rate", yLabel: "validation loss", xLog: true, yLog: true});
}

const pick = ({colour, dash, marker}) => ({colour, dash, marker});

function show(progress) {
  last = progress;
  const isRunning = progress.state === "running";
  for (const [id, text] of [["counts", progress.counts], ["time-left", progress.time_left && `, ${progress.time_left}`], ["leader", progress.leader], ["error", progress.error]]) {
    part(id).textContent = text;
  }
  const phase = {stopped: "Stopped. Finished training runs are saved.", failed: "The race has failed."}[progress.state] || progress.phase;
  if (part("phase").textContent !== phase) part("phase").textContent = phase;
  part("bar").hidden = !(progress.total_runs && progress.state.startsWith("running"));
  part("bar").max = progress.total_runs || 1;
  part("bar").value = progress.finished_runs;
  part("stop").hidden = !isRunning;
  const isOver = ["stopped", "failed"].includes(progress.state);
  part("resume").hidden = !isOver || part("resume").dataset.possible === "false";
  part("hint").textContent = isOver && part("resume").hidden ? "To resume it, run the command again that began it."
    : progress.state === "running elsewhere" ? "It runs in another process: stop it there, with Ctrl-C." : "";
  const hasRuns = progress.curves.length > 0 || progress.points.length > 0;
  part("ranking-section").hidden = part("figures").hidden = !hasRuns;
  if (hasRuns) {
    part("ranked-by").textContent = `Ranked by ${progress.ranked_by}.`;
    showRanking(progress.entries);
    showFigures(progress);
    showHighlight();
  }
}

async function poll() {
  try {
    const response = await fetch(`${url}/progress`);
    if (response.status === 404) {
      part("hint").textContent = "The folder of this race was deleted.";
      return;
    }
    const progress = await response.json();
    if (progress.state === "finished") {
      if (wasRunning) location.reload(); // shows the report
      return;
    }
    show(progress);
    if (!progress.state.startsWith("running")) return;
  } catch {
    part("hint").textContent = "The app does not respond. Was it stopped?";
  }
  setTimeout(poll, EVERY);
}

part("stop").addEventListener("click", async () => {
  part("stop").disabled = true;
  part("phase").textContent = "Stopping…";
  await fetch(`${url}/stop`, {method: "POST"});
  part("resume").dataset.possible = "true";
  part("stop").disabled = false;
  poll();
});

part("resume").addEventListener("click", async () => {
  const response = await fetch(`${url}/resume`, {method: "POST"});
  if (response.ok) poll(); else part("error").textContent = await response.text();
});

window.addEventListener("resize", () => { if (last && last.entries.length) { showFigures(last); showHighlight(); } });
linkHighlights();
poll();
