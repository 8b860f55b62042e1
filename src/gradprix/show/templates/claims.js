/* Filters of the claims. Their state is in the query of the URL, so that a selection can be shared. */

const form = document.getElementById("claim-filters");
const cards = [...document.querySelectorAll(".claim")];
const texts = new Map(cards.map((card) => [card, `${card.id} ${card.textContent}`.toLowerCase()]));
const NAMES = ["verdict", "optimizer", "kind", "q"];

function read() {
  const query = new URLSearchParams(location.search);
  for (const box of form.elements.verdict) box.checked = query.getAll("verdict").includes(box.value);
  for (const name of NAMES.slice(1)) form.elements[name].value = query.get(name) ?? "";
}

function show() {
  const data = new FormData(form);
  const verdicts = data.getAll("verdict");
  const [optimizer, kind, words] = [data.get("optimizer"), data.get("kind"), data.get("q").trim().toLowerCase()];
  for (const card of cards) {
    const { verdict, kind: own, optimizers } = card.dataset;
    card.hidden = (verdicts.length > 0 && !verdicts.includes(verdict))
      || (optimizer && !optimizers.split(" ").includes(optimizer))
      || (kind && kind !== own)
      || !words.split(/\s+/).every((word) => texts.get(card).includes(word));
  }
  for (const topic of document.querySelectorAll(".claim-topic")) {
    topic.hidden = !topic.querySelector(".claim:not([hidden])");
  }
  const shown = cards.filter((card) => !card.hidden).length;
  document.getElementById("claim-count").textContent = shown === cards.length
    ? `${shown} claims` : shown ? `${shown} of ${cards.length} claims` : "No claim matches. Clear a filter.";
}

function write() {
  const query = new URLSearchParams(location.search);
  for (const name of NAMES) query.delete(name);
  for (const [name, value] of new FormData(form)) if (value.trim()) query.append(name, value.trim());
  history.replaceState(null, "", `${location.pathname}${query.size ? `?${query}` : ""}${location.hash}`);
}

form.hidden = false;
form.addEventListener("input", () => { write(); show(); });
form.addEventListener("reset", () => setTimeout(() => { write(); show(); }));
form.addEventListener("submit", (event) => event.preventDefault());
addEventListener("popstate", () => { read(); show(); });
read();
show();
