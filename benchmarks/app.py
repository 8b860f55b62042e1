"""Measure the app and the report in a browser.

    python benchmarks/app.py            # writes benchmarks/app.json
    python benchmarks/app.py --quick    # one repetition and a small race, writes nothing

Needs chromium and playwright. The numbers are medians; those of the app's start are from new processes.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

import gradprix as gp
from gradprix.race import REPORT
from gradprix.show import write_report
from gradprix.utils.run_info import describe_run

TEN = "gd,momentum,nesterov,adagrad,rmsprop,adam,adamax,nadam,amsgrad,lion"
PAGES = {"default page": "", "ten optimizers, 2,000 steps": f"?who={TEN}&steps=2000"}
SLIDERS = "Condition number", "Learning rate of momentum"
MOVES = 40, -30, 20, -40, 30, -20, 10, 20
# Learning rates are tuned and all figures drawn.
READY = "html[data-ready=true]"
# Resolves after the next painted frame: a frame's callbacks run before it is painted, a timer after it.
FRAME = "new Promise(done => requestAnimationFrame(() => setTimeout(done)))"
MOVE = f"""async ([label, by]) => {{
  const slider = document.querySelector(`input[type=range][aria-label^="${{label}}"]`);
  const begun = performance.now();
  slider.value = Number(slider.value) + by;
  slider.dispatchEvent(new Event("input", {{bubbles: true}}));
  await {FRAME};
  return performance.now() - begun;
}}"""
FIRST_PAINT = """new Promise(done => new PerformanceObserver(list => {
  const paint = list.getEntriesByName("first-contentful-paint")[0];
  if (paint) done(paint.startTime);
}).observe({type: "paint", buffered: true}))"""


def start_app(folder: Path) -> tuple[str, "subprocess.Popen[bytes]"]:
    """Start the app in a new process; return its URL and the process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "gradprix", "app", "--port", str(port), "--no-open", "--runs", str(folder)]
    return f"http://127.0.0.1:{port}/", subprocess.Popen(command, stdout=subprocess.DEVNULL)


def wait_until_served(url: str) -> None:
    """Wait until the app answers."""
    while True:
        try:
            with urllib.request.urlopen(url) as answer:
                answer.read()
            return
        except OSError:
            time.sleep(0.005)


def time_start(browser: Browser, folder: Path) -> dict[str, float]:
    """Return the seconds from the start of the process to its first answer, and to the first painted figure."""
    page = browser.new_page()
    began = time.perf_counter()
    url, process = start_app(folder)
    try:
        wait_until_served(url)
        served = time.perf_counter()
        page.goto(url, wait_until="commit")
        page.locator(READY).wait_for(state="attached")
        page.evaluate(FRAME)
        return {"ready to serve": served - began, "first figure": time.perf_counter() - began}
    finally:
        page.close()
        process.terminate()
        process.wait()


def time_redraws(browser: Browser, url: str, repetitions: int) -> dict[str, dict[str, float]]:
    """Return the median and the largest milliseconds from a slider's move to the painted frame, for each page."""
    results = {}
    for name, query in PAGES.items():
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.goto(url + query)
        page.locator(READY).wait_for(state="attached")
        page.wait_for_load_state("networkidle")
        moves = [(label, by) for label in SLIDERS for by in MOVES] * repetitions
        times = [float(page.evaluate(MOVE, [label, by])) for label, by in moves]
        results[name] = {"median": round(statistics.median(times), 1), "largest": round(max(times), 1)}
        page.close()
    return results


def measure_report(browser: Browser, folder: Path, repetitions: int, settings: dict[str, Any]) -> dict[str, float]:
    """Race, and return the sizes of the report and of the notebook cell in kB, and the report's first paint in ms."""
    result = gp.race("digits", out=folder, **settings)
    write_report(result)
    report = folder / REPORT
    paints = []
    for _ in range(repetitions):
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.goto(report.as_uri())
        paints.append(float(page.evaluate(FIRST_PAINT)))
        page.close()
    return {
        "entries": len(result.record.entries),
        "report, kB": round(report.stat().st_size / 1e3, 1),
        "first contentful paint, ms": round(statistics.median(paints), 1),
        "notebook cell, kB": round(len(result._repr_html_().encode()) / 1e3, 1),
    }


def measure(quick: bool) -> dict[str, Any]:
    """Measure everything."""
    repetitions = 1 if quick else 5
    small = {"optimizers": "adam,sgd", "trials": 2, "seeds": 6, "epochs": 1}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        home = Path(folder)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        try:
            starts = [time_start(browser, home) for _ in range(repetitions)]
            url, process = start_app(home)
            try:
                wait_until_served(url)
                redraws = time_redraws(browser, url, repetitions)
            finally:
                process.terminate()
                process.wait()
            report = measure_report(browser, home / "digits", repetitions, small if quick else {"preset": "small"})
        finally:
            browser.close()
    seconds = {name: round(statistics.median(start[name] for start in starts), 2) for name in starts[0]}
    return {"seconds after start": seconds, "slider to redraw, ms": redraws, "report": report}


def main() -> None:
    """Measure, print the results, and write them unless `--quick` is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one repetition and a small race; write nothing")
    quick = parser.parse_args().quick
    load = round(os.getloadavg()[0], 1)
    record = {
        **measure(quick),
        "load": load,
    }
    record = {**describe_run("python benchmarks/app.py"), **record}
    text = json.dumps(record, indent=1)
    print(text)
    if not quick:
        Path(__file__).with_suffix(".json").write_text(text + "\n")


if __name__ == "__main__":
    main()
