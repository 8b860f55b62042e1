/* Form of a new race, and list of saved races. */

const form = document.getElementById("new-race"), estimate = document.getElementById("estimate");
const boxes = [...form.querySelectorAll("input[name=names]")];
const saved = document.querySelector(".sortable");
let asked = 0;

/* Number of selected optimizers of each family. */
function count() {
  for (const family of form.querySelectorAll("details")) {
    const chosen = family.querySelectorAll("input:checked").length;
    family.querySelector(".count").textContent = chosen ? `(${chosen})` : "";
  }
}

/* Ask for the number of training runs and the duration, and show errors in the fields. */
async function describe() {
  const number = ++asked;
  const answer = await (await fetch(`/races/estimate?${new URLSearchParams(new FormData(form))}`)).json();
  if (number !== asked) return;
  const messages = answer.messages || {};
  for (const field of form.querySelectorAll("[data-error]")) {
    const name = field.dataset.error;
    if (name !== "start") field.textContent = messages[name] || "";
    const input = form.elements[name];
    if (input && input.setAttribute) input.setAttribute("aria-invalid", String(Boolean(messages[name])));
  }
  form.querySelector("button.main").disabled = Boolean(answer.messages);
  estimate.textContent = answer.messages ? "" : answer.text;
  if (!answer.is_complete) setTimeout(() => { if (number === asked) describe(); }, 1500);
}

let soon = 0;
form.addEventListener("input", () => { count(); clearTimeout(soon); soon = setTimeout(describe, 250); });
form.addEventListener("click", event => {
  const choose = event.target.dataset.choose;
  if (choose === undefined) return;
  const names = choose.split(",");
  for (const box of boxes) box.checked = names.includes(box.value);
  if (choose) for (const family of form.querySelectorAll("details")) family.open = Boolean(family.querySelector("input:checked"));
  form.dispatchEvent(new Event("input"));
});

/* Sort the rows of the table by a column; a second click reverses the order. */
function sortBy(header) {
  const column = header.cellIndex, body = saved.tBodies[0];
  const isAscending = header.getAttribute("aria-sort") !== "ascending";
  const value = row => { const cell = row.cells[column]; return cell.dataset.sort === undefined ? cell.textContent.trim() : Number(cell.dataset.sort) || 0; };
  const rows = [...body.rows].sort((a, b) => {
    const [one, other] = [value(a), value(b)];
    return (typeof one === "number" ? one - other : one.localeCompare(other)) * (isAscending ? 1 : -1);
  });
  for (const each of saved.tHead.rows[0].cells) each.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", isAscending ? "ascending" : "descending");
  body.append(...rows);
}

/* Two races or more can be compared. */
function showChoice() {
  const chosen = saved.querySelectorAll("input:checked").length;
  document.getElementById("compare").disabled = chosen < 2;
  document.getElementById("compare-hint").textContent = chosen < 2 ? "Select two or more finished races." : "";
}

if (saved) {
  saved.tHead.addEventListener("click", event => { if (event.target.matches("button")) sortBy(event.target.closest("th")); });
  saved.addEventListener("change", showChoice);
  showChoice();
}
count();
describe();
