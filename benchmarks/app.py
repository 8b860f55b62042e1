"""How long it is from a click on a surface to the paths of twelve optimizers over 500 steps, in a browser.

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
# From the click to the frame in which a path that begins elsewhere has been painted, by the browser's own clock.
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


def clicked(page: Page, address: str, surface: str) -> list[float]:
    """Seconds from each click to its paths, once rates are tuned: they are, before anything is clicked."""
    page.goto(f"{address}?surface={surface}&steps={STEPS}&who={','.join(WHO)}")
    page.wait_for_function(
        "document.querySelectorAll('#table tbody tr').length === 12 && document.querySelector('#stage .nsewdrag')"
    )
    page.wait_for_load_state("networkidle")
    box = page.locator("#stage .nsewdrag").first.bounding_box()
    assert box is not None
    took = []
    for i in range(CLICKS):
        place = (0.15 + 0.08 * i) % 0.9, (0.2 + 0.31 * i) % 0.85 + 0.05
        page.evaluate(f"() => {{ window.seen = ({WATCH})(); }}")
        page.mouse.click(box["x"] + place[0] * box["width"], box["y"] + place[1] * box["height"])
        took.append(float(page.evaluate("() => window.seen")))
        page.wait_for_timeout(300)
    return took


def parts(surface: str) -> dict[str, float]:
    """Seconds that go into the descents alone and into the figures alone, from a start that was not seen before."""
    setting = read(f"?surface={surface}&steps={STEPS}&who={','.join(WHO)}&start=0.123,0.321").setting
    trajectories.run(read(f"?surface={surface}&steps={STEPS}&who={','.join(WHO)}").setting)
    began = time.perf_counter()
    run = trajectories.run(setting)
    descended = time.perf_counter()
    for figure in (figures.contour(run, STEPS), figures.losses(run, STEPS)):
        figure.to_json()
    return {"descent": descended - began, "figures": time.perf_counter() - descended}


def main() -> None:
    found = {}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        server = listen(make(Races(Path(folder))), 0, "127.0.0.1")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        try:
            page = browser.new_page(viewport={"width": 1400, "height": 1000})
            page.set_default_timeout(120_000)
            for surface in SURFACES:
                took = clicked(page, f"http://127.0.0.1:{server.socket.getsockname()[1]}/", surface)
                found[surface] = {
                    "median": round(statistics.median(took), 3),
                    "worst": round(max(took), 3),
                    **{what: round(seconds, 3) for what, seconds in parts(surface).items()},
                }
                print(f"{surface:12} click to paths: median {found[surface]['median']:.2f} s, worst {max(took):.2f} s")
        finally:
            browser.close()
            server.shutdown()
            thread.join()
            server.server_close()
    worst = max(each["worst"] for each in found.values())
    print(f"{len(WHO)} optimizers, {STEPS} steps, {CLICKS} clicks each: worst {worst:.2f} s, wanted below 1 s")
    written = {
        "command": "python benchmarks/app.py",
        "optimizers": WHO,
        "steps": STEPS,
        "clicks": CLICKS,
        "seconds": found,
        "load": round(os.getloadavg()[0], 1),
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "torch": str(torch.__version__),
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(written, indent=1) + "\n")
    sys.exit(worst > 1)


if __name__ == "__main__":
    main()
