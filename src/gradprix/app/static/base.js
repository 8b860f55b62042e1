/* Header of all pages: theme and link. */

const THEMES = ["system", "light", "dark"];
const root = document.documentElement;
const themeButton = document.getElementById("theme");

function showTheme() {
  const next = THEMES[(THEMES.indexOf(root.dataset.theme) + 1) % THEMES.length];
  themeButton.textContent = `Theme: ${root.dataset.theme}`;
  themeButton.title = `Colour theme: ${root.dataset.theme}. Switch to ${next}.`;
}

themeButton.addEventListener("click", () => {
  root.dataset.theme = THEMES[(THEMES.indexOf(root.dataset.theme) + 1) % THEMES.length];
  localStorage.setItem("gradprix-theme", root.dataset.theme);
  showTheme();
  root.dispatchEvent(new Event("themechange")); // for figures that do not take their colours from CSS
});
showTheme();

const copyButton = document.getElementById("copy-link");
copyButton.addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(location.href);
    copyButton.textContent = "Copied";
  } catch {
    prompt("URL of this page", location.href);
  }
  setTimeout(() => { copyButton.textContent = "Copy link"; }, 1500);
});
