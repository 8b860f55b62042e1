"""Take the picture of a report for the README, docs/report.png: python docs/picture.py runs/digits/report.html."""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

with sync_playwright() as play:
    browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
    page = browser.new_page(viewport={"width": 1040, "height": 1180})
    page.goto(Path(sys.argv[1]).resolve().as_uri())
    page.screenshot(path=Path(__file__).with_name("report.png"))
    browser.close()
