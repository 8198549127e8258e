// Runs before the first paint, so that a chosen theme does not flash up as the other one.
(() => {
  let chosen = "";
  try {
    chosen = localStorage.getItem("atmo.theme") ?? "";
  } catch {
    // no storage: the system's theme
  }
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
})();
