/** Examples: states of the page with comments whose numbers are those of the run that is shown. */

import { element } from "./elements.js";
import { formatNumber } from "./format.js";
import { readState, settingKey } from "./state.js";

/** Replace placeholders such as `{adam.end}` in a text by the numbers of a run. */
export function fillIn(text, run) {
  const summaries = Object.fromEntries(run.map(({ name, summary }) => [name, summary]));
  return text.replace(/\{([\w-]+)\.(\w+)\}/g, (_, name, field) => {
    const value = summaries[name][field];
    return value === null ? "never" : formatNumber(value);
  });
}

/**
 * Build the menu of examples: two groups, and a field that filters them by their titles and texts.
 *
 * Args: the element; the presets as data of the page; `open(query)`, called with the query string of the chosen one.
 * Returns `find(state)`, the preset that a state shows; `isRelated(preset, state)`, whether a state has the surface and
 * the optimizers of a preset; and `show(preset)`, which marks it.
 */
export function buildPresets(root, presets, open) {
  const links = presets.map((preset) => {
    const link = element(
      "a",
      {
        class: "preset",
        href: `?${preset.query}`,
        onclick: (event) => {
          if (event.ctrlKey || event.metaKey || event.shiftKey) return;
          event.preventDefault();
          open(preset.query);
        },
      },
      preset.title,
    );
    return { preset, link, item: element("li", {}, link) };
  });
  const none = element("p", { class: "note", hidden: true }, "No example has these words.");
  const groups = [
    [true, "Works", "settings that suit their problem"],
    [false, "Fails", "what goes wrong, and why"],
  ].map(([works, title, words]) =>
    element(
      "section",
      {},
      element("h2", {}, `${title} `, element("small", {}, words)),
      element("ul", {}, ...links.filter(({ preset }) => preset.works === works).map(({ item }) => item)),
    ),
  );
  const filter = element("input", {
    type: "search",
    placeholder: "Find an example: overshoots, saddle, noise…",
    "aria-label": "Find an example",
    oninput: () => {
      const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const { preset, item } of links)
        item.hidden = !words.every((word) =>
          `${preset.title} ${preset.text} ${preset.query}`.toLowerCase().includes(word),
        );
      for (const group of groups) group.hidden = !group.querySelector("li:not([hidden])");
      none.hidden = !groups.every((group) => group.hidden);
    },
    onkeydown: (event) => {
      const first = links.find(({ item }) => !item.hidden);
      if (event.key === "Enter" && first) first.link.click();
    },
  });
  root.replaceChildren(filter, ...groups, none);
  const keys = new Map(presets.map((preset) => [settingKey(readState(preset.query).state), preset]));
  const kind = ({ surface, racers }) => [surface, ...racers.map(({ name }) => name)].join();
  return {
    find: (state) => keys.get(settingKey(state)) ?? null,
    isRelated: (preset, state) => kind(readState(preset.query).state) === kind(state),
    show(current) {
      for (const { preset, link } of links) {
        if (preset === current) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      }
    },
  };
}
