/** The two figures of the page: elements on the page, drawing, and export. */

import { drawBasins, drawLegend } from "./basins_view.js";
import { hyperparameters } from "./descent.js";
import { formatNumber } from "./format.js";
import { sampleSurface } from "./heights.js";
import { drawLosses, layOutLosses } from "./loss_view.js";
import { drawRelief, initialCamera, sampleRelief } from "./relief_view.js";
import { RULES } from "./rules.js";
import { drawSweep, settingPlace } from "./sweep_view.js";
import { sweepAxes } from "./sweep.js";
import { SURFACES } from "./surfaces.js";
import { FONT, tag, text } from "./svg.js";
import { drawPaths } from "./paths_view.js";
import { drawGround, layOutPlot, paintHeat } from "./surface_view.js";
import { readTheme } from "./theme.js";

/** Largest height of a plot, and height of the legend of basins, in pixels. */
const HIGHEST = 470;
const LEGEND = 58;

/** Return the pieces of a stage: its SVG with three layers, and its heat map if it has one. */
function findStage(root) {
  const svg = root.querySelector("svg");
  svg.setAttribute("font-family", FONT);
  svg.innerHTML = "<g></g><g></g><g></g>";
  const [cells, ground, front] = svg.children;
  cells.setAttribute("shape-rendering", "crispEdges");
  return { root, svg, cells, ground, front, canvas: root.querySelector("canvas") };
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
    Object.assign(this, findStage(root), {
      handle: root.querySelector("button"),
      camera: initialCamera(),
      key: null,
      samples: new Map(),
    });
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

  /** Draw what stands under the paths, unless it is there already. */
  drawGround(state, racer, theme) {
    const width = Math.floor(this.root.clientWidth);
    const axesOfSweep = racer && sweepAxes(racer.name, state.steps);
    const key = JSON.stringify([
      width,
      theme.name,
      state.surface,
      state.parameters,
      state.view,
      state.view === "sweep" && axesOfSweep,
    ]);
    if (key === this.key) return;
    this.key = key;
    for (const layer of [this.cells, this.ground, this.front]) layer.innerHTML = "";
    const isSweep = state.view === "sweep" && racer;
    this.layout = isSweep
      ? layOutPlot(axesOfSweep.box, width, HIGHEST, 0.7)
      : layOutPlot(SURFACES[state.surface].box, width, HIGHEST);
    if (state.view === "relief") this.layout.height = Math.min(width * 0.85, HIGHEST);
    this.height = this.layout.height + (hasLegend(state) ? LEGEND : 0);
    resize(this, width, this.height);
    this.canvas.hidden = state.view !== "contour";
    this.handle.hidden = state.view === "relief" || (state.view === "sweep" && !racer);
    if (state.view === "contour" || state.view === "starts")
      this.ground.innerHTML = drawGround(this.layout, this.sample(state), theme, state.view === "contour");
    if (state.view === "contour") {
      paintHeat(this.canvas, this.sample(state), theme.ramp);
      const { left, top, width: across, height } = this.layout.plot;
      Object.assign(this.canvas.style, {
        left: `${left}px`,
        top: `${top}px`,
        width: `${across}px`,
        height: `${height}px`,
      });
    }
  }

  /** Draw the paths up to step `t`, or a map: `map` has its data, and is undefined while they are computed. */
  drawFront({ state, run, racer, t, theme, styles, dimmed, map, minimum, rates }) {
    if (state.view === "relief") {
      const { width, height } = this.layout;
      const sample = this.sample(state, sampleRelief);
      this.front.innerHTML = drawRelief({ sample, camera: this.camera, width, height, run, t, styles, theme, dimmed });
      return;
    }
    if (state.view === "sweep" && racer) {
      const h = { ...hyperparameters(RULES[racer.name], racer.own), lr: rates[racer.name] };
      this.placeHandle(settingPlace(sweepAxes(racer.name, state.steps), h), `Hyperparameters of ${racer.name}`);
    } else
      this.placeHandle(state.start, `Starting point ${state.start.map((value) => formatNumber(value)).join(", ")}`);
    if (state.view === "contour") {
      const { minima } = SURFACES[state.surface];
      this.front.innerHTML = drawPaths(this.layout, run, t, {
        styles,
        theme,
        dimmed,
        minima,
        markCrossing: state.mark === "crossing",
      });
    } else this.drawMap(state, racer, map, minimum, theme);
  }

  drawMap(state, racer, map, minimum, theme) {
    const { plot, height } = this.layout;
    this.cells.setAttribute("opacity", map ? 1 : 0.3);
    if (!map) {
      const words = racer ? "computing…" : "Add an optimizer.";
      this.front.innerHTML = text(plot.left + plot.width / 2, plot.top + plot.height / 2, words, {
        fill: theme.ink,
        "font-size": 15,
        "text-anchor": "middle",
      });
      return;
    }
    const drawn =
      state.view === "starts"
        ? drawBasins(this.layout, map, SURFACES[state.surface], minimum, theme)
        : drawSweep(this.layout, map, sweepAxes(racer.name, state.steps), minimum, theme);
    this.cells.innerHTML = drawn.source;
    if (drawn.frame) this.ground.innerHTML = drawn.frame;
    this.front.innerHTML = drawLegend(drawn.legend, plot.left, height + 2, plot.width, theme);
  }

  placeHandle([x, y], words) {
    Object.assign(this.handle.style, { left: `${this.layout.x(x)}px`, top: `${this.layout.y(y)}px` });
    this.handle.setAttribute("aria-label", `${words}: drag it, or move it with the arrow keys`);
  }

  /** Return the figure for export. */
  export(state) {
    const heat = state.view === "contour" ? { canvas: this.canvas, ...this.layout.plot } : null;
    const { left, top } = this.handle.style;
    const ring = this.handle.hidden
      ? ""
      : tag("circle", {
          cx: parseFloat(left),
          cy: parseFloat(top),
          r: 8,
          fill: "none",
          stroke: readTheme().ink,
          "stroke-width": 2,
        });
    const source = [this.cells, this.ground, this.front].map((layer) => layer.outerHTML).join("") + ring;
    return { source, heat, width: this.layout.width, height: this.height };
  }
}

const hasLegend = ({ view }) => view === "starts" || view === "sweep";

/** The losses against the step. */
export class LossFigure {
  constructor(root) {
    Object.assign(this, findStage(root));
  }

  draw({ state, run, t, theme, styles, dimmed }) {
    const width = Math.floor(this.root.clientWidth);
    const height = Math.min(Math.max(width * 0.75, 280), 420);
    this.layout = layOutLosses(
      run,
      state.steps,
      width,
      height,
      run.map(({ name }) => name),
    );
    resize(this, width, height);
    this.front.innerHTML = drawLosses(this.layout, run, t, state.steps, { styles, theme, dimmed });
  }

  export() {
    return { source: this.front.innerHTML, width: this.layout.width, height: this.layout.height };
  }
}
