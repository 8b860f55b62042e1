/** HTML elements, and a number as slider with an editable field. */

import { formatExact, formatLimit, formatNumber } from "./format.js";
import { findProblem, parseNumber } from "./state.js";

/** Return an HTML element with properties (`class` and `aria-…` as attributes, `on…` as listeners) and children. */
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "class" || key.includes("-") || key === "for" || key === "role") made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Maps between a value and a slider position from 0 to 1: linear, logarithmic, or logarithmic in the distance from 1. */
function sliderScale({ low, high, log, slider, sliderLow, isDecay }) {
  const [from, to] = [sliderLow ?? low, slider ?? high];
  if (isDecay) return { toPart: (value) => -Math.log10(1 - value) / 4, toValue: (part) => 1 - 10 ** (-4 * part) };
  if (log) {
    const [a, b] = [Math.log10(from), Math.log10(to)];
    return { toPart: (value) => (Math.log10(value) - a) / (b - a), toValue: (part) => 10 ** (a + part * (b - a)) };
  }
  return { toPart: (value) => (value - from) / (to - from), toValue: (part) => from + part * (to - from) };
}

/** Round a slider's value to about three digits, within the range. */
function roundValue(value, { low, high, integer, isDecay }) {
  const rounded = isDecay ? 1 - Number((1 - value).toPrecision(2)) : Number(value.toPrecision(value < 10 ? 2 : 3));
  return Math.min(Math.max(integer ? Math.round(rounded) : Number(rounded.toPrecision(10)), low), high);
}

let count = 0;

/**
 * Return a number that can be dragged and typed: label, field, slider, and a place for a problem in words.
 *
 * Args: the range (`label`, `low`, `high`, and optionally `integer`, `log`, `slider`, `sliderLow`: ends of the slider);
 *   `onChange(value, isFinal)`, called while the slider moves and at the end; `extra`: an element beside the label.
 * Returns an object with the `element`, and `show(value)`, which leaves a field alone in which someone types.
 */
export function numberField(range, onChange, { extra = null, hint = null } = {}) {
  const id = `number-${count++}`;
  const { toPart, toValue } = sliderScale(range);
  const problem = element("p", { class: "problem", id: `${id}-problem`, role: "alert" });
  const slider = element("input", {
    type: "range",
    min: 0,
    max: 1000,
    step: 1,
    "aria-label": `${range.label}, slider`,
    tabIndex: 0,
    oninput: () => change(roundValue(toValue(slider.value / 1000), range), false),
    onchange: () => change(roundValue(toValue(slider.value / 1000), range), true),
  });
  const field = element("input", {
    type: "text",
    id,
    autocomplete: "off",
    inputMode: "decimal",
    title: `${formatLimit(range.low)} to ${formatLimit(range.high)}`,
    "aria-describedby": `${id}-problem`,
    onchange: () => commit(),
    oninput: () => field.getAttribute("aria-invalid") && commit(),
  });
  const showProblem = (words) => {
    problem.textContent = words;
    if (words) field.setAttribute("aria-invalid", "true");
    else field.removeAttribute("aria-invalid");
  };
  const showSlider = (value) => {
    slider.value = Math.round(1000 * Math.min(Math.max(toPart(value), 0), 1));
    slider.setAttribute("aria-valuetext", formatNumber(value));
  };
  function change(value, isFinal) {
    showProblem("");
    field.value = formatExact(value);
    slider.setAttribute("aria-valuetext", formatNumber(value));
    onChange(value, isFinal);
  }
  function commit() {
    const value = parseNumber(field.value);
    const words = findProblem(value, range);
    showProblem(words);
    if (words) return;
    showSlider(value);
    onChange(value, true);
  }
  const show = (value, { note = null } = {}) => {
    const isTyped = document.activeElement === field && field.value !== "" && field.getAttribute("aria-invalid");
    if (isTyped || (field.getAttribute("aria-invalid") && !note)) return;
    const text = formatExact(Number(value.toPrecision(range.isDecay ? 7 : 4)));
    if (document.activeElement !== field)
      field.value = formatExact(value) === text ? text : String(value).length > 8 ? text : formatExact(value);
    if (document.activeElement !== slider) showSlider(value);
  };
  const head = element(
    "div",
    { class: "number-head" },
    element("label", { for: id, title: hint }, range.label),
    extra,
    field,
  );
  return {
    element: element("div", { class: "number" }, head, slider, problem),
    show,
    field,
    slider,
    clear: () => showProblem(""),
  };
}
