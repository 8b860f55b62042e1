/** Table of results, and the values at the step that is shown. */

import { element } from "./elements.js";
import { formatCoordinate, formatNumber } from "./format.js";
import { FLOOR } from "./loss_view.js";
import { RULES } from "./rules.js";

const HEADS = [
  "Optimizer",
  "Learning rate",
  "Final loss above the minimum",
  "Maximum loss above the minimum",
  "Steps to 1 % of initial loss",
  "Final point",
];

/** Return the table, one row per optimizer. Cells of numbers have the exact value as `data-value`. */
export function makeTable(run, pending, styles) {
  const head = element("tr", {}, ...HEADS.map((words) => element("th", { scope: "col" }, words)));
  const rows = run.map(({ name, summary }) => {
    const swatch = element("span", { class: "swatch", "aria-hidden": "true" });
    swatch.style.background = styles[name].colour;
    const origin = summary.isGiven ? "given" : pending.includes(name) ? "tuning…" : "tuned";
    const end = formatNumber(summary.end);
    const point = summary.is_outside ? "outside the plot" : summary.point.map(formatCoordinate).join(", ");
    return element(
      "tr",
      { class: origin === "tuning…" ? "member pending" : "member", "data-name": name },
      element("th", { scope: "row" }, swatch, RULES[name].label),
      cell("rate", summary.rate, formatNumber(summary.rate), element("small", {}, ` ${origin}`)),
      cell(
        "end",
        summary.end,
        end,
        summary.end < summary.start * FLOOR ? element("small", {}, " below the plot’s floor") : null,
      ),
      cell("maximum", summary.maximum, formatNumber(summary.maximum)),
      cell(
        "convergence_step",
        summary.convergence_step,
        summary.convergence_step === null ? "never" : String(summary.convergence_step),
      ),
      element("td", {}, point),
    );
  });
  return element("table", { class: "numbers" }, element("thead", {}, head), element("tbody", {}, ...rows));
}

const cell = (field, value, ...content) =>
  element("td", { "data-field": field, "data-value": String(value) }, ...content);

/** Return the data of the page as CSV: one row for each step of each optimizer. */
export function makeCsv(run) {
  const rows = run.flatMap(({ name, points, losses, summary }) =>
    points.map(([x, y], t) => [t, name, summary.rate, x, y, losses[t]].join()),
  );
  return ["step,optimizer,learning_rate,x,y,loss_above_minimum", ...rows, ""].join("\n");
}

/** Return the map of basins as CSV: one row for each starting point. */
export function makeBasinsCsv(name, rate, { starts, ends, losses, reached }, minimum) {
  const rows = Array.from(losses, (loss, k) =>
    [name, rate, starts[2 * k], starts[2 * k + 1], ends[2 * k], ends[2 * k + 1], loss - minimum, reached[k]].join(),
  );
  return ["optimizer,learning_rate,start_x,start_y,end_x,end_y,loss_above_minimum,minimum", ...rows, ""].join("\n");
}
