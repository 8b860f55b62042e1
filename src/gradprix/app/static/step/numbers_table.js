/** The numbers of a step as a table, which is also the key to the picture. */

import { element } from "../landscape/elements.js";
import { formatNumber } from "../landscape/format.js";
import { tag } from "../landscape/svg.js";
import { drawMarker } from "../landscape/optimizer_marks.js";
import { COLOURS } from "./quantities.js";
import { drawArrow } from "./step_figure.js";

function key(source) {
  const box = document.createElement("span");
  box.innerHTML = `<svg viewBox="0 0 26 12" aria-hidden="true">${source}</svg>`;
  return box.firstChild;
}

const keyOf = ({ kind, dash }, theme) => key(kind === "size"
  ? tag("rect", { x: 8, y: 1, width: 10, height: 10, fill: COLOURS.size, "fill-opacity": "0.2", stroke: COLOURS.size, "stroke-width": "1.5", "stroke-dasharray": dash })
  : drawArrow([1, 6], [25, 6], { colour: COLOURS[kind], dash, page: theme.page, width: 2 }));

/** Return the table: the point, what is drawn, and the effective learning rate |update| / |g| of each coordinate. */
export function makeNumbersTable(name, step, quantities, styles, theme) {
  const empty = () => key("");
  const update = step.after.map((value, i) => value - step.x[i]);
  const rows = [
    [key(drawMarker(name, 13, 6, styles, theme, 4)), "point before the step", step.x],
    ...[...quantities].reverse().map((each) => [keyOf(each, theme), each.label, each.values]),
    [empty(), "effective learning rate |update| / |g|", update.map((value, i) => Math.abs(value / step.g[i]))],
  ];
  const head = element("tr", {}, element("th", {}, ""), ...["x", "y"].map((axis) => element("th", { scope: "col" }, axis)));
  const body = rows.map(([sign, label, values]) =>
    element("tr", {}, element("th", { scope: "row" }, sign, label), ...values.map((value) => element("td", {}, formatNumber(value, 4)))));
  return element("table", { class: "numbers" }, element("thead", {}, head), element("tbody", {}, ...body));
}
