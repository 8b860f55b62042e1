/** Map of the final loss of one optimizer over its learning rate and a second hyperparameter. */

import { formatNumber, formatPower } from "./format.js";
import { FLOOR } from "./loss_view.js";
import { axes, linearTicks, tag } from "./svg.js";
import { decayAt } from "./sweep.js";

const DECADES = -Math.log10(FLOOR);
const DECAYS = [0, 0.5, 0.9, 0.99, 0.999, 0.9999];

/** Return the place of an optimizer's setting on its map; a setting at the end of a run is at the last step. */
export const settingPlace = ({ key, box }, h) => [
  Math.log10(h.lr),
  key === null ? box[1][1] : Math.min(-Math.log10(1 - h[key]), box[1][1]),
];

/** Return the hyperparameters at a place on the map. */
export const settingAt = ({ key }, [rate, place]) => ({
  lr: Number((10 ** rate).toPrecision(3)),
  ...(key === null ? {} : { [key]: 1 - Number((1 - decayAt(place)).toPrecision(3)) }),
});

/** Return the cells of the map, its axes, and the entries of its legend. */
export function drawSweep(layout, { losses, initial, columns, rows }, { key, label, box }, minimum, theme) {
  const { plot, x, y } = layout;
  const start = initial - minimum || 1;
  const fillOf = (ratio) =>
    ratio < 1 ? `rgb(${theme.ramp(1 + Math.log10(Math.max(ratio, FLOOR)) / DECADES)})` : theme.worse;
  const [width, height] = [plot.width / columns, plot.height / rows];
  const cells = Array.from(losses, (loss, k) => {
    const [row, column] = [Math.floor(k / columns), k % columns];
    const above = Number.isNaN(loss) ? Infinity : Math.max(loss - minimum, 0);
    const place = {
      x: plot.left + column * width,
      y: plot.top + plot.height - (row + 1) * height,
      width: width + 0.4,
      height: height + 0.4,
    };
    const at = [column, row].map(
      (each, i) => box[i][0] + ((box[i][1] - box[i][0]) * (each + 0.5)) / [columns, rows][i],
    );
    const second = key === null ? `step ${Math.round(at[1])}` : `${label} ${formatNumber(decayAt(at[1]), 4)}`;
    const title = `<title>learning rate ${formatNumber(10 ** at[0], 2)}, ${second}: ${formatNumber(above)} above the minimum</title>`;
    return tag("rect", { ...place, fill: fillOf(above / start) }, title);
  });
  const xTicks = linearTicks(box[0][0], box[0][1], Math.min(8, plot.width / 50))
    .filter(Number.isInteger)
    .map((power) => [power, formatPower(power)]);
  const yTicks =
    key === null
      ? linearTicks(box[1][0], box[1][1], 6).map((step) => [step, String(step)])
      : DECAYS.map((value) => [-Math.log10(1 - value), String(value)]);
  const frame = axes({ plot, theme, x, y, xTicks, yTicks, xTitle: "learning rate", yTitle: label });
  const legend = [
    { colour: theme.worse, words: "ends above the initial loss" },
    ...[0, 2, 8].map((decades) => ({
      colour: fillOf(0.999 * 10 ** -decades),
      words: decades ? `${formatPower(-decades)} of it` : "below it",
    })),
    { colour: fillOf(FLOOR), words: `${formatPower(-DECADES)} or less` },
  ];
  return { source: cells.join(""), frame, legend };
}
