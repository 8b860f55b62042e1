/* Playback, keyboard and theme, which work without the server: figures contain the complete trajectories. */
(() => {
  "use strict";
  let at = 0, last = 0, speed = 30, clock = 0, began = 0, from = 0, soon = 0;

  const plot = id => document.querySelector(`#${id} .js-plotly-plot`);
  const put = (id, value) => window.dash_clientside.set_props(id, {value});
  const put_at = t => put("frame", Math.max(0, Math.min(last, t)));

  /* Update a figure to step t: trails and heads are slices of the complete paths in the figure. */
  function move(gd, t) {
    if (!gd || !gd.data || !gd._fullLayout) return;
    const index = kind => gd.data.flatMap((trace, i) => trace.meta === kind ? [i] : []);
    const whole = index("whole").map(i => gd.data[i]), trails = index("trail");
    const axes = whole.length && whole[0].z ? ["x", "y", "z"] : ["x", "y"];
    const all = pick => Object.fromEntries(axes.map(axis => [axis, pick(axis)]));
    const data = trails.map((_, k) => all(axis => whole[k][axis].slice(0, t + 1)));
    const heads = index("head").concat(index("now"));
    index("head").forEach(() => data.push(all(axis => whole.map(trace => trace[axis][t]))));
    index("now").forEach(i => data.push({x: [t, t], y: gd.data[i].y}));
    const traces = trails.concat(heads);
    if (!traces.length) return;
    if (axes.length === 3) {
      window.Plotly.restyle(gd, Object.fromEntries(axes.map(axis => [axis, data.map(d => d[axis])])), traces);
    } else {
      /* Without a redraw the contours are not recomputed. */
      window.Plotly.animate(gd, {data, traces}, {mode: "immediate", frame: {duration: 0, redraw: false}, transition: {duration: 0}});
    }
  }

  /* Write the step to the URL after a pause: browsers limit the rate of URL changes. */
  function address() {
    clearTimeout(soon);
    soon = setTimeout(() => {
      const rest = location.search.replace(/^\?/, "").split("&").filter(part => part && !/^t=/.test(part));
      if (at < last) rest.push(`t=${at}`);
      const search = rest.length ? `?${rest.join("&")}` : "";
      if (search !== location.search) history.replaceState(history.state, "", location.pathname + search);
    }, 250);
  }

  function sign(playing) {
    const button = document.getElementById("play");
    if (button) { button.textContent = playing ? "❚❚" : "▶"; button.setAttribute("aria-pressed", String(playing)); }
  }

  /* Dash does not label its sliders. */
  function name() {
    for (const [id, label] of [["frame", "Displayed step"], ["step", "Selected step"]]) {
      document.querySelectorAll(`#${id} [role=slider]`).forEach(knob => knob.setAttribute("aria-label", label));
    }
  }

  function stop() { cancelAnimationFrame(clock); clock = 0; sign(false); address(); }

  function play() {
    if (clock) { stop(); return; }
    from = at >= last ? 0 : at;
    began = performance.now();
    const tick = now => {
      const t = Math.min(last, from + Math.floor((now - began) * speed / 1000));
      if (t !== at) put_at(t);
      if (t >= last) stop(); else clock = requestAnimationFrame(tick);
    };
    clock = requestAnimationFrame(tick);
    sign(true);
  }

  function turn(by) {
    const knob = document.querySelector("#step [role=slider]");
    const bounds = ["aria-valuenow", "aria-valuemax"].map(name => Number(knob.getAttribute(name)));
    put("step", Math.max(1, Math.min(bounds[1], bounds[0] + by)));
  }

  const pressed = {
    play,
    first: () => { stop(); put_at(0); },
    back: () => { stop(); put_at(at - 1); },
    next: () => { stop(); put_at(at + 1); },
    previous: () => turn(-1),
    following: () => turn(1),
    theme: () => {
      const order = ["auto", "light", "dark"], root = document.documentElement.dataset;
      root.theme = order[(order.indexOf(root.theme) + 1) % 3];
      localStorage.setItem("gradprix-theme", root.theme);
    },
    copy: async () => {
      const button = document.getElementById("copy");
      try { await navigator.clipboard.writeText(location.href); button.textContent = "Copied"; }
      catch { window.prompt("URL of this view", location.href); }
      setTimeout(() => { button.textContent = "Copy link"; }, 1500);
    },
  };

  document.addEventListener("click", event => {
    const button = event.target.closest && event.target.closest("button");
    if (button && pressed[button.id]) pressed[button.id]();
  });

  document.addEventListener("focusin", name);

  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    /* Focused controls keep their own keys: space activates a button, arrows move a slider. */
    const own = event.key === " " ? ", button, a, summary" : "";
    if (event.target.closest(`input, textarea, select, iframe, [role=slider], [role=listbox], [role=combobox]${own}`)) return;
    const seen = document.getElementById("seen").className;
    const keys = /tab-landscape/.test(seen) ? {" ": "play", ArrowLeft: "back", ArrowRight: "next", Home: "first"}
      : /tab-step/.test(seen) ? {ArrowLeft: "previous", ArrowRight: "following"} : {};
    if (keys[event.key]) { event.preventDefault(); pressed[keys[event.key]](); }
  });

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    gradprix: {
      show: (t, steps, rate) => {
        speed = rate || 30;
        last = steps || 0;
        at = Math.min(t === undefined || t === null ? last : t, last);
        for (const id of ["stage", "losses"]) move(plot(id), at);
        name();
        if (!clock) address();
        return `step ${at} of ${last}`;
      },
    },
  });
})();
