/* Linked highlighting: pointing at an optimizer in a table or a figure highlights it in all of them.
   Elements that belong to an optimizer have the attribute data-entry. */

let highlighted = "";

/* Mark the elements of the highlighted optimizer; call it again after elements were replaced. */
export function showHighlight() {
  for (const chart of document.querySelectorAll(".live-chart")) chart.classList.toggle("highlighting", Boolean(highlighted));
  for (const element of document.querySelectorAll("[data-entry]")) {
    element.classList.toggle("highlight", element.dataset.entry === highlighted);
  }
}

function highlight(event) {
  const element = event.target.closest && event.target.closest("[data-entry]");
  const name = element ? element.dataset.entry : "";
  if (name === highlighted) return;
  highlighted = name;
  showHighlight();
}

export function linkHighlights() {
  document.addEventListener("pointerover", highlight);
  document.addEventListener("focusin", highlight);
}
