"""Measure the time from a click on a surface to the paths of twelve optimizers over 500 steps, in a browser.

    python benchmarks/app.py

Needs chromium and playwright. Writes `benchmarks/app.json`.
"""

import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch
from playwright.sync_api import Page, sync_playwright

from gradprix.app import figures, trajectories
from gradprix.app.race_processes import Races
from gradprix.app.server import listen, make
from gradprix.app.state import RACERS
from gradprix.app.url_query import read

CLICKS, STEPS = 9, 500
WHO = list(RACERS)[:12]
SURFACES = ("ravine", "rosenbrock", "himmelblau")
# Resolve to the seconds, by the browser's clock, from the click to the frame that paints a path with a new start.
WATCH = """() => new Promise(done => {
  const gd = document.querySelector('#stage .js-plotly-plot'), path = () => gd.data.find(t => t.meta === 'whole');
  const old = path().x[0] + ',' + path().y[0];
  addEventListener('click', () => { window.began = performance.now(); }, {capture: true, once: true});
  addEventListener('mousedown', () => { window.began = performance.now(); }, {capture: true, once: true});
  gd.on('plotly_afterplot', function drawn() {
    if (path().x[0] + ',' + path().y[0] === old) return;
    gd.removeListener('plotly_afterplot', drawn);
    requestAnimationFrame(() => setTimeout(() => done((performance.now() - window.began) / 1000)));
  });
})"""


def time_clicks(page: Page, address: str, surface: str) -> list[float]:
    """Return the seconds from each click to its paths. Learning rates are tuned before the first click."""
    page.goto(f"{address}?surface={surface}&steps={STEPS}&who={','.join(WHO)}")
    page.wait_for_function(
        "document.querySelectorAll('#table tbody tr').length === 12 && document.querySelector('#stage .nsewdrag')"
    )
    page.wait_for_load_state("networkidle")
    box = page.locator("#stage .nsewdrag").first.bounding_box()
    assert box is not None
    seconds = []
    for i in range(CLICKS):
        place = (0.15 + 0.08 * i) % 0.9, (0.2 + 0.31 * i) % 0.85 + 0.05
        page.evaluate(f"() => {{ window.seen = ({WATCH})(); }}")
        page.mouse.click(box["x"] + place[0] * box["width"], box["y"] + place[1] * box["height"])
        seconds.append(float(page.evaluate("() => window.seen")))
        page.wait_for_timeout(300)
    return seconds


def time_parts(surface: str) -> dict[str, float]:
    """Return the seconds of computing the descents and of making the figures, for a starting point not in the cache."""
    setting = read(f"?surface={surface}&steps={STEPS}&who={','.join(WHO)}&start=0.123,0.321").setting
    trajectories.run(read(f"?surface={surface}&steps={STEPS}&who={','.join(WHO)}").setting)
    began = time.perf_counter()
    run = trajectories.run(setting)
    descended = time.perf_counter()
    for figure in (figures.contour(run, STEPS), figures.losses(run, STEPS)):
        figure.to_json()
    return {"descent": descended - began, "figures": time.perf_counter() - descended}


def main() -> None:
    """Measure on each surface, print the results and write them."""
    seconds_by_surface = {}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        server = listen(make(Races(Path(folder))), 0, "127.0.0.1")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        try:
            page = browser.new_page(viewport={"width": 1400, "height": 1000})
            page.set_default_timeout(120_000)
            for surface in SURFACES:
                clicks = time_clicks(page, f"http://127.0.0.1:{server.socket.getsockname()[1]}/", surface)
                median = statistics.median(clicks)
                seconds_by_surface[surface] = {
                    "median": round(median, 3),
                    "worst": round(max(clicks), 3),
                    **{part: round(seconds, 3) for part, seconds in time_parts(surface).items()},
                }
                print(f"{surface:12} click to paths: median {median:.2f} s, worst {max(clicks):.2f} s")
        finally:
            browser.close()
            server.shutdown()
            thread.join()
            server.server_close()
    worst = max(each["worst"] for each in seconds_by_surface.values())
    print(f"{len(WHO)} optimizers, {STEPS} steps, {CLICKS} clicks each: worst {worst:.2f} s (limit: 1 s)")
    record = {
        "command": "python benchmarks/app.py",
        "optimizers": WHO,
        "steps": STEPS,
        "clicks": CLICKS,
        "seconds": seconds_by_surface,
        "load": round(os.getloadavg()[0], 1),
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "torch": str(torch.__version__),
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    sys.exit(worst > 1)


if __name__ == "__main__":
    main()
