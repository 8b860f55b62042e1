/** Export of figures as SVG and PNG with title and settings, of the numbers as CSV, and of the page as an HTML file. */

import { escapeText, formatCoordinate, formatNumber } from "./format.js";
import { decays } from "./state.js";
import { SURFACES } from "./surfaces.js";
import { FONT, tag, text } from "./svg.js";

const PNG_SCALE = 2;
const PAD = 16;

/** Return the settings of a state as lines of text. */
export function describeSettings(state, rates) {
  const { label, parameters } = SURFACES[state.surface];
  const own = Object.entries(state.parameters).map(([key, value]) => {
    const [, label, unit = ""] = parameters[key].label.match(/^(.*?)(?: \((.+)\))?$/);
    return `${label} ${formatNumber(value)}${unit}`;
  });
  const noise = state.noise ? [`noise σ ${formatNumber(state.noise)} (seed ${state.seed})`] : [];
  const racers = state.racers.map(({ name, own: given }) => {
    const others = Object.entries(decays(name)).map(
      ([key, { label, default: usual }]) => `, ${label} ${formatNumber(given[key] ?? usual, 6)}`,
    );
    const rate = `${formatNumber(rates[name])}${given.lr === undefined ? " (tuned)" : ""}`;
    return `${name}: learning rate ${rate}${others.join("")}`;
  });
  return [
    [
      `Surface ${label}`,
      ...own,
      ...noise,
      `start (${state.start.map(formatCoordinate).join(", ")})`,
      `${state.steps} steps`,
    ].join(" · "),
    racers.join("; "),
  ];
}

function wrap(line, width) {
  const lines = [""];
  for (const word of line.split(" ")) {
    if ((lines[lines.length - 1].length + word.length) * 5.9 > width && lines[lines.length - 1]) lines.push("");
    lines[lines.length - 1] += (lines[lines.length - 1] ? " " : "") + word;
  }
  return lines;
}

/**
 * Return a figure as a complete SVG file.
 *
 * Args: `figure` with `source`, `width`, `height` and optionally `heat` (canvas and place of a heat map below it); title;
 *   lines with the settings; theme.
 */
export function makeSvg({ source, width, height, heat }, title, lines, theme) {
  const wrapped = lines.flatMap((line) => wrap(line, width));
  const titles = wrap(title, width * 0.72);
  const top = PAD + 20 * titles.length;
  const all = { width: width + 2 * PAD, height: top + height + 8 + 16 * wrapped.length + PAD };
  const image = heat
    ? tag("image", {
        x: heat.left,
        y: heat.top,
        width: heat.width,
        height: heat.height,
        preserveAspectRatio: "none",
        href: heat.canvas.toDataURL(),
      })
    : "";
  const parts = [
    tag("rect", { width: all.width, height: all.height, fill: theme.page }),
    ...titles.map((line, k) =>
      text(PAD, PAD + 14 + 20 * k, line, { "font-size": 16, "font-weight": 600, fill: theme.ink }),
    ),
    tag("g", { transform: `translate(${PAD} ${top})` }, image + source),
    ...wrapped.map((line, k) => text(PAD, top + height + 20 + 16 * k, line, { "font-size": 11.5, fill: theme.soft })),
  ];
  const root = {
    xmlns: "http://www.w3.org/2000/svg",
    width: all.width,
    height: all.height,
    viewBox: `0 0 ${Math.ceil(all.width)} ${Math.ceil(all.height)}`,
    "font-family": FONT,
  };
  return tag("svg", root, `<title>${escapeText(title)}</title>${parts.join("")}`);
}

/** Return an SVG file as a PNG blob, with two pixels for each of its units. */
export async function makePng(svg) {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
  await image.decode();
  const canvas = Object.assign(document.createElement("canvas"), {
    width: image.width * PNG_SCALE,
    height: image.height * PNG_SCALE,
  });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

/** Offer a file for download. */
export function download(content, name, type) {
  const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  Object.assign(document.createElement("a"), { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/**
 * Return the page as one HTML file that shows a state and needs no server.
 *
 * A page that is such a file already is its own source; otherwise the server makes it at `address`.
 */
export async function makeStandalone(query, pageSource, address) {
  const source = pageSource ?? (await (await fetch(address)).text());
  return source.replace(
    /<html([^>]*)>/,
    (_, attributes) => `<html${attributes.replace(/ data-query="[^"]*"/, "")} data-query="${escapeText(query)}">`,
  );
}
