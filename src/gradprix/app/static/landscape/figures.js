/** The two figures of the page: elements on the page, drawing, and export. */

import { drawBasins, drawLegend } from "./basins_view.js";
import { sampleSurface } from "./heights.js";
import { drawLosses, layOutLosses } from "./loss_view.js";
import { drawRelief, initialCamera, sampleRelief } from "./relief_view.js";
import { SURFACES } from "./surfaces.js";
import { FONT, text } from "./svg.js";
import { drawGround, drawPaths, layOutPlot, paintHeat } from "./surface_view.js";

/** Largest height of a plot, and height of the legend of basins, in pixels. */
const HIGHEST = 470;
const LEGEND = 58;

/** Return the pieces of a stage: its SVG with two layers, and where it has one, its heat map. */
function findStage(root) {
  const svg = root.querySelector("svg");
  svg.setAttribute("font-family", FONT);
  svg.innerHTML = "<g></g><g></g>";
  return { root, svg, ground: svg.children[0], front: svg.children[1], canvas: root.querySelector("canvas") };
}

const resize = ({ root, svg }, width, height) => {
  svg.setAttribute("width", width);
  svg.setAttribute("height", height);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  root.style.height = `${height}px`;
};

/** The surface in one of its views. */
export class SurfaceFigure {
  constructor(root) {
    Object.assign(this, findStage(root), { handle: root.querySelector("button"), camera: initialCamera(), key: null, samples: new Map() });
  }

  /** Return the grid of a surface; the last ones are kept. */
  sample(state, make = sampleSurface) {
    const key = JSON.stringify([make.name, state.surface, state.parameters]);
    if (!this.samples.has(key)) {
      if (this.samples.size > 20) this.samples.clear();
      this.samples.set(key, make(SURFACES[state.surface], state.parameters));
    }
    return this.samples.get(key);
  }

  /** Draw the surface, unless what is drawn is the same. */
  drawGround(state, theme) {
    const width = Math.floor(this.root.clientWidth);
    const key = JSON.stringify([width, theme.name, state.surface, state.parameters, state.view]);
    if (key === this.key) return;
    this.key = key;
    this.front.innerHTML = "";
    this.layout = layOutPlot(SURFACES[state.surface].box, width, HIGHEST);
    const isFlat = state.view !== "relief";
    if (!isFlat) this.layout.height = Math.min(width * 0.85, HIGHEST);
    this.canvas.hidden = state.view !== "contour";
    this.handle.hidden = !isFlat;
    resize(this, width, this.layout.height + (state.view === "starts" ? LEGEND : 0));
    this.ground.innerHTML = isFlat ? drawGround(this.layout, this.sample(state), theme, state.view === "contour") : "";
    if (state.view === "contour") {
      paintHeat(this.canvas, this.sample(state), theme.ramp);
      const { left, top, width: across, height } = this.layout.plot;
      Object.assign(this.canvas.style, { left: `${left}px`, top: `${top}px`, width: `${across}px`, height: `${height}px` });
    }
  }

  /** Draw the paths up to step `t`, or the map of basins. */
  drawFront({ state, run, t, theme, styles, dimmed, basins, minimum }) {
    if (state.view === "relief") {
      const { width, height } = this.layout;
      const sample = this.sample(state, sampleRelief);
      this.front.innerHTML = drawRelief({ sample, camera: this.camera, width, height, run, t, styles, theme, dimmed });
      return;
    }
    const surface = SURFACES[state.surface];
    const [px, py] = [this.layout.x(state.start[0]), this.layout.y(state.start[1])];
    Object.assign(this.handle.style, { left: `${px}px`, top: `${py}px` });
    this.handle.setAttribute("aria-label", `Starting point ${state.start.map((value) => value.toPrecision(3)).join(", ")}: drag it, or move it with the arrow keys`);
    if (state.view === "contour") {
      this.front.innerHTML = drawPaths(this.layout, run, t, { styles, theme, dimmed, minima: surface.minima, markCrossing: state.mark === "crossing" });
      return;
    }
    const { plot } = this.layout;
    if (!basins) {
      this.front.innerHTML = text(plot.left + plot.width / 2, plot.top + plot.height / 2, "computing 961 descents…", { fill: theme.ink, "font-size": 15, "text-anchor": "middle" });
      return;
    }
    const { source, legend } = drawBasins(this.layout, basins, surface, minimum, theme);
    // The ground is drawn again above the cells, without the heat map: contour lines, axes and minima stay visible.
    this.front.innerHTML = source + this.ground.innerHTML + drawLegend(legend, plot.left, this.layout.height + 2, plot.width, theme);
  }

  /** Return the figure for export. */
  export(state) {
    const heat = state.view === "contour" ? { canvas: this.canvas, ...this.layout.plot } : null;
    const source = (state.view === "contour" ? this.ground.innerHTML : "") + this.front.innerHTML;
    return { source, heat, width: this.layout.width, height: this.layout.height + (state.view === "starts" ? LEGEND : 0) };
  }
}

/** The losses against the step. */
export class LossFigure {
  constructor(root) {
    Object.assign(this, findStage(root));
  }

  draw({ state, run, t, theme, styles, dimmed }) {
    const width = Math.floor(this.root.clientWidth);
    const height = Math.min(Math.max(width * 0.75, 280), 420);
    this.layout = layOutLosses(run, state.steps, width, height, run.map(({ name }) => name));
    resize(this, width, height);
    this.front.innerHTML = drawLosses(this.layout, run, t, state.steps, { styles, theme, dimmed });
  }

  export() {
    return { source: this.front.innerHTML, width: this.layout.width, height: this.layout.height };
  }
}
