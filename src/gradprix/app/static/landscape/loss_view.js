/** The loss above the minimum against the step, on a logarithmic axis with a stated floor. */

import { escapeText, formatLimit, formatNumber, formatPower } from "./format.js";
import { drawMarker, haloed, lineStyle, lineWidth, member } from "./optimizer_marks.js";
import { axes, linePath, linearTicks, spreadLabels, tag, text } from "./svg.js";

/** Losses below this part of the initial loss are drawn at the floor: float64 cannot resolve less in a loss near 1. */
export const FLOOR = 1e-16;
/** Losses above this multiple of the initial loss leave the plot at its top. */
const CEILING = 1e4;
const MARGIN = { left: 62, top: 12, bottom: 42 };

/** Return the place of the plot, and the maps from step and loss to pixels and from a pixel to the step. */
export function layOutLosses(run, steps, width, height, names) {
  const initial = run.length ? run[0].losses[0] || 1 : 1;
  const floor = initial * FLOOR;
  let [low, high] = [initial, initial];
  for (const { losses } of run) {
    for (const loss of losses) {
      if (loss < low) low = Math.max(loss, floor);
      if (loss > high) high = Math.min(loss, initial * CEILING);
    }
  }
  const isClipped = run.some(({ losses }) => losses.some((loss) => loss < floor));
  const [bottom, top] = [Math.log10(low) - 0.15, Math.log10(high) + 0.15];
  const right = 16 + 8.6 * Math.max(4, ...names.map((name) => name.length));
  const plot = {
    left: MARGIN.left,
    top: MARGIN.top,
    width: Math.max(width - MARGIN.left - right, 100),
    height: height - MARGIN.top - MARGIN.bottom,
  };
  return {
    plot,
    width,
    height,
    floor,
    isClipped,
    bottom,
    top,
    x: (t) => plot.left + (plot.width * t) / steps,
    y: (loss) =>
      plot.top +
      (plot.height * (top - Math.min(Math.max(Math.log10(Math.max(loss, floor)), bottom), top + 0.2))) / (top - bottom),
    invert: (px) => Math.round(Math.min(Math.max((px - plot.left) / plot.width, 0), 1) * steps),
  };
}

/** Return the curves of all optimizers, with the cursor at step `t`. */
export function drawLosses(layout, run, t, steps, { styles, theme, dimmed = new Set() }) {
  const { plot, x, y, bottom, top } = layout;
  const decades = top - bottom;
  const every = Math.ceil(decades / Math.max(plot.height / 34, 2));
  const yTicks = [];
  for (let power = Math.ceil(bottom); power <= top; power++)
    if (power % every === 0 || decades < 2) yTicks.push([power, formatPower(power)]);
  if (yTicks.length < 2)
    for (const digit of [2, 5])
      for (let p = Math.floor(bottom); p <= top; p++) {
        const place = p + Math.log10(digit);
        if (place > bottom && place < top) yTicks.push([place, formatNumber(digit * 10 ** p, 1)]);
      }
  const frame = axes({
    plot,
    theme,
    x,
    y: (power) => y(10 ** power),
    grid: true,
    yTicks,
    xTicks: linearTicks(0, steps, Math.min(plot.width / 70, steps))
      .filter(Number.isInteger)
      .map((value) => [value, formatLimit(value)]),
    xTitle: "step",
    yTitle: "loss above the minimum",
  });
  const fade = (name, content) => tag("g", { opacity: dimmed.has(name) ? "0.3" : null }, member(name, content));
  const curves = run.map(({ name, losses }) => {
    const d = linePath(
      losses.map((loss, step) => [x(step), y(loss)]),
      plot,
    );
    const line = tag("path", {
      d,
      ...lineStyle(name, styles),
      "stroke-width": lineWidth(losses.length),
      class: "trail",
    });
    return fade(name, `<title>${escapeText(name)}</title>${line}`);
  });
  const ends = spreadLabels(
    run.map(({ name, losses }) => ({ name, y: y(losses[steps]) })),
    13,
    plot.top + 6,
    plot.top + plot.height,
  );
  const labels = ends.map(({ name, y: place }) =>
    fade(name, text(plot.left + plot.width + 8, place + 4, name, { fill: styles[name].colour, "font-weight": 600 })),
  );
  const cursor = tag("path", {
    d: `M${Math.round(x(t))} ${plot.top}v${plot.height}`,
    stroke: theme.soft,
    "stroke-dasharray": "3 3",
    class: "cursor",
  });
  const marks = run.map(({ name, losses }) => fade(name, drawMarker(name, x(t), y(losses[t]), styles, theme, 4)));
  const initial = run.length ? run[0].losses[0] : 0;
  const goal =
    Math.log10(initial / 100) > bottom && initial > 0
      ? tag("path", {
          d: `M${plot.left} ${y(initial / 100).toFixed(1)}h${plot.width}`,
          stroke: theme.soft,
          "stroke-dasharray": "1 4",
        }) +
        text(plot.left + plot.width - 5, y(initial / 100) - 4, "1 % of the initial loss", {
          fill: theme.soft,
          "font-size": 11,
          "text-anchor": "end",
          ...haloed(theme),
        })
      : "";
  const floor = layout.isClipped
    ? text(plot.left + 5, plot.top + plot.height - 6, `losses below ${formatNumber(layout.floor, 1)} are drawn here`, {
        fill: theme.soft,
        "font-size": 11,
        ...haloed(theme),
      })
    : "";
  return frame + curves.join("") + goal + cursor + marks.join("") + labels.join("") + floor;
}
