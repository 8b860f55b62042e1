/** What is drawn of a step: its vectors and sizes, with colours, scales and labels. */

export const COLOURS = { update: "#d55e00", gradient: "#009e73", mean: "#cc79a7", size: "#56b4e9" };
/** Length of the longest arrow that is not to scale, and of arrows that show only a direction, as parts of the radius. */
const LONGEST = 0.55;
const DIRECTION = 0.28;

const length = ([x, y]) => Math.hypot(x, y);
const negated = (vector) => vector.map((value) => -value);

/**
 * Return the arrows and squares of a step.
 *
 * The update is drawn to scale. The gradient, its running means and the square roots of second moments share another
 * scale, on which the longest has a fixed part of the radius of the picture. Means that do not have the unit of a gradient
 * show only a direction.
 *
 * Args: the step, as returned by `stepAt`; the rule; kind and power of its state variables by name, as returned by
 *   `classify_state`; the radius of the picture.
 * Returns a list of {kind, label, values, drawn, dash}: the values of both coordinates, and the vector or the sides in
 *   units of the surface.
 */
export function drawnQuantities(step, rule, kinds, radius) {
  const vectors = [{ kind: "gradient", label: "−g, steepest descent", short: "−g", values: negated(step.g) }];
  const directions = [], sizes = [];
  for (const { name, label, offset, size } of rule.state) {
    const [kind, power] = kinds[name] ?? [];
    const values = step.stateAfter.slice(offset, offset + size);
    if (kind === "mean" && power === 1) vectors.push({ kind, label: `−${label}, accumulated gradients`, short: `−${label}`, values: negated(values) });
    if (kind === "mean" && power === 0) directions.push({ kind, label: `−${label}, direction only`, short: `−${label}`, values: negated(values) });
    if (kind === "size" && power !== 0) {
      const root = { 2: `√${label}`, 1: label, "-1": `1 / ${label}` }[power] ?? `${label}^(1 / ${power})`;
      sizes.push({ kind, label: `${root}, sides of the squares`, short: root, values: values.map((value) => Math.abs(value) ** (1 / power)) });
    }
  }
  const longest = Math.max(0, ...vectors.map(({ values }) => length(values)), ...sizes.map(({ values }) => Math.max(...values)));
  const scale = (LONGEST * radius) / (longest || 1);
  const update = step.after.map((value, i) => value - step.x[i]);
  const shown = [
    ...sizes.map((each) => ({ ...each, drawn: each.values.map((value) => value * scale) })),
    ...vectors.map((each) => ({ ...each, drawn: each.values.map((value) => value * scale) })),
    ...directions.map((each) => ({ ...each, drawn: each.values.map((value) => (value / (length(each.values) || 1)) * DIRECTION * radius) })),
    { kind: "update", label: "update, to scale", short: "update", values: update, drawn: update },
  ];
  const count = {};
  for (const each of shown) {
    count[each.kind] = (count[each.kind] ?? 0) + 1;
    each.dash = [null, "6 3", "2 3"][Math.min(count[each.kind] - 1, 2)];
  }
  return shown;
}

/** Return true if a point is so far away that it is not drawn. */
export const isFar = (point) => !point.every((value) => Math.abs(value) < 1e6);

/** Minimum distance from the point to the edge of the picture, in lengths of the update. */
const STEPS_SEEN = 2.5;

/**
 * Return the region to show: the box of the surface, or a square around the point.
 *
 * Half the width of the square is a power of two, so that it seldom changes from step to step.
 */
export function selectRegion(surface, step, zoom) {
  const widths = surface.box.map(([low, high]) => high - low);
  const widest = Math.max(...widths) / 2;
  const size = length(step.after.map((value, i) => value - step.x[i]));
  if (zoom === "whole" || isFar(step.x) || !Number.isFinite(size)) {
    return { box: surface.box, radius: widest };
  }
  const radius = Math.min(2 ** Math.ceil(Math.log2(Math.max(STEPS_SEEN * size, 1e-9 * widest))), 2 * widest);
  return { box: step.x.map((value) => [value - radius, value + radius]), radius };
}
