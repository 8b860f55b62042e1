/** Controls of the surface and of the optimizers. */

import { element, numberField } from "./elements.js";
import { NUMBERS, VIEWS, decays, defaultState, startRanges } from "./state.js";
import { RULES } from "./rules.js";
import { SURFACES } from "./surfaces.js";

/**
 * Build the controls in an element.
 *
 * Args: the element; `change(changes, isFinal)`, called with changed parts of the state; the styles of optimizers.
 * Returns `show(state, rates, pending)`, which brings all controls to a state.
 */
export function buildControls(root, change, styles) {
  let shown = null;
  let fields = {};
  const about = element("p", { class: "note" });
  const select = element("select", { id: "surface", onchange: () => change(resetSurface(shown, select.value), true) });
  select.append(...Object.entries(SURFACES).map(([value, { label }]) => element("option", { value }, label)));
  const surfaceFields = element("div", { class: "numbers-of-surface" });
  const racers = element("div", { class: "racers" });
  const add = element("select", {
    id: "add",
    "aria-label": "Add an optimizer",
    onchange: () => {
      if (add.value) change({ racers: [...shown.racers, { name: add.value, own: {} }] }, true);
    },
  });
  root.replaceChildren(
    element("h2", {}, "Surface"),
    element("label", { class: "visually-hidden", for: "surface" }, "Surface"),
    select,
    about,
    surfaceFields,
    element("h2", {}, "Optimizers"),
    element(
      "p",
      { class: "note" },
      "A tuned learning rate is the one with the lowest final loss from the surface’s default starting point. Move its slider to set your own.",
    ),
    racers,
    add,
  );

  /** Build the fields of a surface anew: after a choice of the surface. */
  function buildSurface(state) {
    const described = SURFACES[state.surface].parameters;
    const own = Object.keys(described).map((key) => [
      key,
      { ...described[key], log: described[key].low > 0 && described[key].high / described[key].low > 100 },
      (value) => ({ parameters: { ...shown.parameters, [key]: value } }),
    ]);
    const common = ["steps", "noise"].map((key) => [
      key,
      { ...NUMBERS[key], ...(key === "steps" ? { sliderLow: 10 } : {}) },
      (value) => ({ [key]: value }),
    ]);
    const start = startRanges(state.surface).map((range, i) => [
      `start${i}`,
      range,
      (value) => ({ start: shown.start.map((old, k) => (k === i ? value : old)) }),
    ]);
    const seed = [["seed", NUMBERS.seed, (value) => ({ seed: value })]];
    fields = {};
    surfaceFields.replaceChildren();
    for (const [key, range, changes] of [...own, ...common, ...start, ...seed]) {
      const onChange = (value, isFinal) =>
        change({ ...changes(value), ...(key === "steps" ? { t: null } : {}) }, isFinal);
      fields[key] = numberField(range, onChange);
      fields[key].element.classList.toggle("whole", key in described);
      surfaceFields.append(fields[key].element);
    }
  }

  /** Build the controls of the optimizers anew: after one was added or removed. */
  function buildRacers(state) {
    for (const key of Object.keys(fields)) if (key.includes(" ")) delete fields[key];
    racers.replaceChildren(...state.racers.map(({ name }) => buildRacer(name)));
    const others = Object.keys(RULES).filter((name) => !state.racers.some((racer) => racer.name === name));
    add.replaceChildren(
      element("option", { value: "" }, "Add an optimizer…"),
      ...others.map((value) => element("option", { value }, RULES[value].label)),
    );
  }

  function buildRacer(name) {
    const own = () => shown.racers.find((racer) => racer.name === name).own;
    const changeOwn = (changes, isFinal) =>
      change(
        {
          racers: shown.racers.map((racer) =>
            racer.name === name ? { name, own: withoutUndefined({ ...racer.own, ...changes }) } : racer,
          ),
        },
        isFinal,
      );
    const { low, high } = RULES[name].hyperparameters.lr;
    const tune = element("button", {
      type: "button",
      class: "tune",
      title: "Use the tuned learning rate",
      onclick: () => {
        fields[`${name} lr`].clear();
        changeOwn({ lr: undefined }, true);
      },
    });
    const lr = numberField(
      { ...NUMBERS.lr, sliderLow: low, slider: high },
      (value, isFinal) => changeOwn({ lr: value }, isFinal),
      { extra: tune },
    );
    lr.field.setAttribute("aria-label", `Learning rate of ${name}`);
    lr.slider.setAttribute("aria-label", `Learning rate of ${name}, slider`);
    lr.tune = tune;
    fields[`${name} lr`] = lr;
    const others = Object.entries(decays(name)).map(([key, range]) => {
      const { default: usual, label } = range;
      const field = numberField({ ...range, isDecay: true }, (value, isFinal) =>
        changeOwn({ [key]: value === usual ? undefined : value }, isFinal),
      );
      field.field.setAttribute("aria-label", `${label} of ${name}`);
      field.slider.setAttribute("aria-label", `${label} of ${name}, slider`);
      fields[`${name} ${key}`] = field;
      return field.element;
    });
    const swatch = element("span", { class: "swatch", "aria-hidden": "true" });
    swatch.style.background = styles[name].colour;
    const remove = element(
      "button",
      {
        type: "button",
        class: "remove",
        title: `Remove ${name}`,
        "aria-label": `Remove ${name}`,
        onclick: () => change({ racers: shown.racers.filter((racer) => racer.name !== name) }, true),
      },
      "×",
    );
    const head = element("div", { class: "racer-head" }, swatch, element("b", {}, RULES[name].label), remove);
    return element(
      "div",
      { class: "racer member", "data-name": name, role: "group", "aria-label": name },
      head,
      lr.element,
      ...others,
    );
  }

  return function show(state, rates, pending) {
    const before = shown;
    shown = state;
    const names = (each) => each?.racers.map((racer) => racer.name).join();
    if (before?.surface !== state.surface) buildSurface(state);
    if (names(before) !== names(state) || before?.surface !== state.surface) buildRacers(state);
    select.value = state.surface;
    about.textContent = SURFACES[state.surface].about(state.parameters);
    const values = {
      ...state.parameters,
      steps: state.steps,
      noise: state.noise,
      seed: state.seed,
      start0: state.start[0],
      start1: state.start[1],
    };
    for (const [key, value] of Object.entries(values)) fields[key].show(value);
    fields.seed.element.hidden = state.noise === 0;
    for (const { name, own } of state.racers) {
      const lr = fields[`${name} lr`];
      const isGiven = own.lr !== undefined;
      lr.show(rates[name], { note: !isGiven });
      lr.tune.textContent = isGiven ? "tune" : pending.includes(name) ? "tuning…" : "tuned";
      lr.tune.disabled = !isGiven;
      for (const [key, { default: usual }] of Object.entries(decays(name)))
        fields[`${name} ${key}`].show(own[key] ?? usual);
    }
  };
}

/** Return the changes that select another surface: its parameters, noise and starting point have their defaults. */
function resetSurface(state, surface) {
  const { parameters, noise, start } = defaultState(surface);
  const racers = state.racers.map(({ name, own }) => ({ name, own: withoutUndefined({ ...own, lr: undefined }) }));
  return { surface, parameters, noise, start, racers, mark: "" };
}

const withoutUndefined = (values) =>
  Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined));

/** Build the choice of the view as radio buttons, and of the optimizer of the map of basins. Returns `show(state)`. */
export function buildViewControls(root, change) {
  const radios = Object.entries(VIEWS).map(([value, label]) => {
    const input = element("input", {
      type: "radio",
      name: "view",
      value,
      onchange: () => change({ view: value }, true),
    });
    return { value, input, element: element("label", {}, input, label) };
  });
  const select = element("select", { id: "of", onchange: () => change({ of: select.value }, true) });
  const optimizer = element("label", { class: "of" }, "of ", select);
  root.replaceChildren(
    element("div", { role: "radiogroup", "aria-label": "View" }, ...radios.map((radio) => radio.element)),
    optimizer,
  );
  return (state) => {
    for (const { value, input } of radios) input.checked = value === state.view;
    optimizer.hidden = !["starts", "sweep"].includes(state.view);
    const names = state.racers.map(({ name }) => name);
    select.replaceChildren(
      ...names.map((name) => element("option", { value: name, selected: name === selectedRacer(state)?.name }, name)),
    );
  };
}

/** Return the optimizer of the map of basins: the chosen one, or the first where it takes no part. */
export const selectedRacer = (state) => state.racers.find(({ name }) => name === state.of) ?? state.racers[0];
