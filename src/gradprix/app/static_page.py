"""The landscape page as one HTML file that needs no server: for documentation, static web hosts, and mail."""

import json
import re
from functools import cache
from pathlib import Path

from .landscape_view import page_data
from .templating import FOLDER, SHARED, render

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; worker-src blob:"
)
"""Content security policy of the file: its own scripts and styles, and no request."""

IMPORT = re.compile(r'^import \{([^}]*)\} from "\./(\w+\.js)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async )?(?:const|function|class) (\w+))", re.MULTILINE)
WORKER = 'new Worker(new URL("./worker.js", import.meta.url), { type: "module" })'


def write_static_page(folder: Path | str) -> Path:
    """Write the landscape page to `index.html` in a folder, and return the path of the file.

    The file has everything that it needs inside. It works when it is opened from a disk and on any static web host.

    Args:
        folder: the folder, which is created if it does not exist.

    Example:
        >>> import tempfile
        >>> write_static_page(tempfile.mkdtemp()).name
        'index.html'
    """
    path = Path(folder) / "index.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(static_page(), "utf-8")
    return path


@cache
def static_page() -> str:
    """Return the landscape page as the source of an HTML file with all scripts and style sheets inside."""
    data = page_data(standalone=None)
    page = render("landscape.html.jinja", page="landscape", root="", pages={"landscape": "Landscape"}, data=data)
    page = page.replace("<meta ", f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n<meta ', 1)
    page = re.sub(r'<link rel="stylesheet" href="([^"]+)">', lambda match: f"<style>\n{_read(match[1])}</style>", page)
    page = re.sub(r'<script src="([^"]+)">', lambda match: f"<script>\n{_escape(_read(match[1]))}", page)
    return re.sub(r'(<script type="module") src="([^"]+)">', lambda match: f"{match[1]}>\n{_bundle(match[2])}", page)


def _read(url: str) -> str:
    """Return the file of the app that has a URL relative to the root."""
    top, _, rest = url.partition("/")
    return ((SHARED if top == "shared" else FOLDER / top) / rest).read_text("utf-8")


def _bundle(url: str) -> str:
    """Return a script that does what a module and the modules that it imports do.

    A browser does not load modules from a disk. Each module becomes a function that is called once, and returns an
    object with its exports.
    """
    folder, _, main = url.rpartition("/")
    bundled: dict[str, str] = {}

    def add(name: str) -> None:
        source = _read(f"{folder}/{name}")
        for _, imported in IMPORT.findall(source):
            if imported not in bundled:
                add(imported)
        if name in bundled:
            raise ValueError(f"the modules of {url} import each other in a circle: {name}")
        exports = ", ".join(EXPORT.findall(source))
        body = EXPORT.sub("", IMPORT.sub(lambda match: f'const {{{match[1]}}} = modules["{match[2]}"];\n', source))
        if re.search(r"^(import|export)\b", body, re.MULTILINE):
            raise ValueError(f"{name} has an import or export of a form that cannot be bundled")
        if WORKER in body:
            blob = f"new Blob([{json.dumps(_bundle(f'{folder}/worker.js'))}], {{ type: 'text/javascript' }})"
            body = body.replace(WORKER, f"new Worker(URL.createObjectURL({blob}))")
        bundled[name] = f'modules["{name}"] = (() => {{\n{body}\nreturn {{ {exports} }};\n}})();\n'

    add(main)
    return _escape("".join(["const modules = {};\n", *bundled.values()]))


def _escape(script: str) -> str:
    """Return a script that does not end the element in which it stands."""
    return script.replace("</script", r"<\/script")
