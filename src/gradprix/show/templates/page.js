for (const button of document.querySelectorAll(".code button")) button.onclick = () => {
  navigator.clipboard.writeText(button.previousElementSibling.textContent).then(() => button.textContent = "Copied");
};

// Elements with `data-entry` belong to an optimizer. Pointing at one highlights the optimizer in all figures and tables;
// a click on a button keeps the highlight until the next click or Escape.
const marked = [...document.querySelectorAll("[data-entry]")];
const tip = document.createElement("div");
tip.id = "tip";
tip.setAttribute("role", "status");
document.body.append(tip);
let kept = null;

function highlight(entry) {
  document.body.classList.toggle("picked", entry !== null);
  for (const each of marked) {
    each.classList.toggle("on", each.dataset.entry === entry);
    if (each.tagName === "BUTTON") each.setAttribute("aria-pressed", String(each.dataset.entry === kept));
  }
}

let shown = null; // the element whose value the tip shows

function showTip(element) {
  shown = element;
  tip.textContent = element ? element.dataset.tip : "";
  tip.hidden = !element;
  if (!element) return;
  const box = element.getBoundingClientRect(), room = document.documentElement.clientWidth - tip.offsetWidth - 8;
  const above = box.top - tip.offsetHeight - 8;
  tip.style.left = `${Math.max(8, Math.min(room, box.left + box.width / 2 - tip.offsetWidth / 2))}px`;
  tip.style.top = `${above > 0 ? above : box.bottom + 8}px`;
}

function point(event) {
  const entry = event.target.closest?.("[data-entry]"), value = event.target.closest?.("[data-tip]");
  highlight(entry ? entry.dataset.entry : kept);
  showTip(value);
}

document.addEventListener("pointerover", point);
document.addEventListener("focusin", point);
document.addEventListener("scroll", () => showTip(shown), { passive: true, capture: true });
document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-entry]");
  if (!button) return;
  kept = kept === button.dataset.entry ? null : button.dataset.entry;
  highlight(kept);
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  highlight(kept = null);
  showTip(null);
});

// A table or figure that is wider than the page scrolls, with a hint, and can be scrolled with the keyboard.
function findOverflow() {
  for (const each of document.querySelectorAll(".wide")) {
    const isWide = each.scrollWidth > each.clientWidth + 1;
    each.classList.toggle("scrolls", isWide);
    if (isWide) each.tabIndex = 0; else each.removeAttribute("tabindex");
  }
}
addEventListener("resize", findOverflow);
for (const each of document.querySelectorAll("details")) each.addEventListener("toggle", findOverflow);
findOverflow();

// Folded text is printed.
const folds = [...document.querySelectorAll("details:not([open])")];
addEventListener("beforeprint", () => folds.forEach((each) => (each.open = true)));
addEventListener("afterprint", () => folds.forEach((each) => (each.open = false)));
