/** The steps of a descent as a table of numbers. */

/** Return one row for each step: its number, the point and the gradient before it, the update, and the state after it. */
export function makeStepsCsv(steps, slots) {
  const columns = slots.flatMap(({ name, size }) => (size === 1 ? [name] : [`${name}_x`, `${name}_y`]));
  const rows = steps.map(({ t, x, g, after, stateAfter }) => [t, ...x, ...g, ...after.map((value, i) => value - x[i]), ...stateAfter].join());
  return [["step", "x", "y", "gradient_x", "gradient_y", "update_x", "update_y", ...columns].join(), ...rows, ""].join("\n");
}
