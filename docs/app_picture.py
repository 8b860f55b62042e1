"""Take the picture of the app, `docs/_static/app.png`: python docs/app_picture.py (needs chromium and playwright)."""

import shutil
import tempfile
import threading
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from gradprix.app.presets import PRESETS
from gradprix.app.race_processes import Races
from gradprix.app.server import listen, make

OUT = Path(__file__).parent / "_static" / "app.png"


def main() -> None:
    """Serve the app, open a preset at step 40, and save a screenshot."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        server = listen(make(Races(Path(folder))), 0, "127.0.0.1")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        try:
            page = browser.new_page(viewport={"width": 1400, "height": 960})
            query = next(preset.query for preset in PRESETS if preset.title == "Momentum in a ravine")
            page.goto(f"http://127.0.0.1:{server.socket.getsockname()[1]}/?{query}&t=40")
            page.locator("html[data-ready=true]").wait_for(state="attached")
            page.screenshot(path=OUT)
        finally:
            browser.close()
            server.shutdown()
            thread.join()
            server.server_close()
    Image.open(OUT).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(OUT, optimize=True)


if __name__ == "__main__":
    main()
