/** Equations of a step, which the server derives from the rule. */

/**
 * Keep the equations in an element up to date.
 *
 * Args: the element; `onDone()`, called when the equations of the last step that was asked for are shown.
 * Returns a function that shows the equations of a step, given the name of the optimizer, its hyperparameters and the
 * step. While they are on their way, the element is marked as busy. There is one request at a time: of several steps
 * that are asked for meanwhile, only the last is.
 */
export function trackEquations(root, onDone) {
  let wanted = "", shown = "", isLoading = false;

  async function load() {
    isLoading = true;
    while (wanted !== shown) {
      const query = wanted;
      try {
        const response = await fetch(`step/equations?${query}`);
        const body = await response.text();
        if (response.ok) root.innerHTML = body;
        else root.textContent = body;
      } catch (error) {
        root.textContent = `The server does not answer (${error.message}). Is the app still running?`;
      }
      shown = query;
    }
    isLoading = false;
    root.removeAttribute("aria-busy");
    onDone();
  }

  return (name, h, step) => {
    const own = Object.entries(h).map(([key, value]) => `${key}:${value}`).join();
    const fields = { of: name, h: own, t: step.t, x: step.x.join(), g: step.g.join(), state: step.state.join() };
    wanted = new URLSearchParams(fields).toString();
    if (wanted === shown) return;
    root.setAttribute("aria-busy", "true");
    if (!isLoading) load();
  };
}
