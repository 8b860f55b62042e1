/** Basins of attraction: where one optimizer ends from a grid of starting points. */

import { formatNumber, formatPower } from "./format.js";
import { FLOOR } from "./loss_view.js";
import { isDrawn } from "./descent.js";
import { tag, text } from "./svg.js";

/**
 * Return the map of starting points over the plot: one cell per starting point, coloured by the minimum that it reaches,
 * or by final loss where there is one minimum, and the words of the legend.
 */
export function drawBasins(layout, result, surface, minimum, theme) {
  const { plot } = layout;
  const { reached } = result;
  const size = Math.sqrt(reached.length);
  const isByMinimum = surface.minima.length > 1;
  const above = Array.from(result.losses, (loss) => (Number.isNaN(loss) ? Infinity : Math.max(loss - minimum, 0)));
  const scale = isByMinimum ? null : lossScale(above);
  const cell = { width: plot.width / size, height: plot.height / size };
  const cells = above.map((loss, i) => {
    const [x, y, endX, endY] = [...result.starts.slice(2 * i, 2 * i + 2), ...result.ends.slice(2 * i, 2 * i + 2)];
    const place = {
      x: layout.x(x) - cell.width / 2,
      y: layout.y(y) - cell.height / 2,
      width: cell.width + 0.4,
      height: cell.height + 0.4,
    };
    const colour = isByMinimum ? basinColour(reached[i], theme) : `rgb(${theme.ramp(scale.part(loss))})`;
    const end = isDrawn(surface, [endX, endY])
      ? `${formatNumber(endX)}, ${formatNumber(endY)}`
      : "a point outside the plot";
    const title = `<title>from ${formatNumber(x)}, ${formatNumber(y)} to ${end}: ${formatNumber(loss)} above the minimum</title>`;
    const cross = isByMinimum && reached[i] < 0 ? crossAt(place, theme) : "";
    return tag("g", {}, title + tag("rect", { ...place, fill: colour }) + cross);
  });
  const clip = `<clipPath id="basin-clip">${tag("rect", { x: plot.left, y: plot.top, width: plot.width, height: plot.height })}</clipPath>`;
  return {
    source: clip + tag("g", { "clip-path": "url(#basin-clip)" }, cells.join("")),
    legend: isByMinimum ? legendOfMinima(surface, reached, theme) : scale.legend(theme),
  };
}

const basinColour = (k, theme) => (k < 0 ? theme.panel : theme.basins[k % theme.basins.length]);

function crossAt({ x, y, width, height }, theme) {
  const [cx, cy] = [Math.round(x + width / 2), Math.round(y + height / 2)];
  return tag("path", { d: `M${cx - 3} ${cy - 3}l6 6m0 -6l-6 6`, stroke: theme.soft, fill: "none" });
}

function legendOfMinima({ minima }, reached, theme) {
  const entries = minima.map((minimum, k) => ({
    colour: basinColour(k, theme),
    words: `reaches ${minimum.map((value) => formatNumber(value)).join(", ")}`,
  }));
  if (reached.includes(-1)) entries.push({ colour: theme.panel, words: "× reaches no minimum" });
  return entries;
}

/** Return the colours of final losses: from light at the floor to dark, on a logarithmic scale. */
function lossScale(above) {
  const logs = above.filter((loss) => loss > 0 && Number.isFinite(loss)).map(Math.log10);
  const high = logs.length ? Math.ceil(Math.min(Math.max(...logs), 4)) : 0;
  const low = logs.length ? Math.max(Math.floor(Math.min(...logs)), Math.log10(FLOOR), high - 16) : -1;
  const part = (loss) => (Math.log10(Math.max(loss, 1e-300)) - low) / Math.max(high - low, 1);
  const legend = (theme) =>
    [low, (low + high) / 2, high].map((power, i) => ({
      colour: `rgb(${theme.ramp(part(10 ** power))})`,
      words: `${["at most ", "", "at least "][i]}${formatPower(Math.round(power))} above the minimum`,
    }));
  return { part, legend };
}

/** Return a legend as rows of swatches and words below a figure. */
export function drawLegend(entries, left, top, width, theme) {
  let [x, y] = [left, top];
  return entries
    .map(({ colour, words }) => {
      const needed = 26 + words.length * 6.6;
      if (x + needed > left + width && x > left) [x, y] = [left, y + 18];
      const source =
        tag("rect", { x, y, width: 14, height: 12, fill: colour, stroke: theme.soft }) +
        text(x + 19, y + 10, words, { fill: theme.ink, "font-size": 11.5 });
      x += needed;
      return source;
    })
    .join("");
}
