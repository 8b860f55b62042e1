/* Runs before the first paint, so that a page in the dark theme does not flash white. */
document.documentElement.dataset.theme = localStorage.getItem("gradprix-theme") || "system";
