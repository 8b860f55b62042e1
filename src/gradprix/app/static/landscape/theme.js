/** Colours of the figures. They are read when a figure is drawn, so that an exported figure needs no style sheet. */

const RAMPS = {
  light: [
    [253, 252, 255],
    [226, 221, 237],
    [184, 175, 206],
  ],
  dark: [
    [17, 16, 22],
    [42, 38, 56],
    [76, 69, 101],
  ],
};
/* Lavender, because optimizers are blue, green, orange and pink. */
/** Colours of the basins of several minima; others have no minimum. */
const BASINS = {
  light: ["#a8cbe8", "#f6c99b", "#a9dcc0", "#dcbfe6", "#f2e29a", "#c9cfd6"],
  dark: ["#24557d", "#7d4a1d", "#1e6147", "#5d3d6d", "#6a5c14", "#3a424a"],
};

/** Return the colours of the active theme. */
export function readTheme() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const chosen = document.documentElement.dataset.theme;
  const isDark = chosen === "dark" || (chosen !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  const name = isDark ? "dark" : "light";
  return {
    name,
    ink: colour("ink"),
    soft: colour("soft"),
    line: colour("line"),
    page: colour("page"),
    panel: colour("panel"),
    accent: colour("accent"),
    contour: isDark ? "#9d92bb" : "#72679a",
    ramp: (part) => interpolateColour(RAMPS[name], part),
    basins: BASINS[name],
    worse: isDark ? "#6b3a2a" : "#f2c4ae",
  };
}

/** Return the colour at a part from 0 to 1 of a scale of three colours, as `[red, green, blue]`. */
function interpolateColour(scale, part) {
  const place = Math.min(Math.max(part, 0), 1) * (scale.length - 1);
  const k = Math.min(Math.floor(place), scale.length - 2);
  return scale[k].map((from, i) => Math.round(from + (scale[k + 1][i] - from) * (place - k)));
}
