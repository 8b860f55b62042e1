"""SVG of matplotlib as part of a page: small, in the page's font and colours, with marks for its script."""

import json
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from markupsafe import Markup

from .palette import colour

if TYPE_CHECKING:
    from .figure import Panel

INK, SOFT, LINE, PAGE, GREY = "#1d2328", "#5b6670", "#dfe3e7", "#ffffff", "#89939c"
"""Colours of text, labels, grid, page, and lines in the background, on a light page."""
VARIABLES = {INK: "--ink", SOFT: "--soft", LINE: "--line", PAGE: "--page"}
"""Variable of the style sheet `page.css` for each colour."""
SVG, HREF = "http://www.w3.org/2000/svg", "{http://www.w3.org/1999/xlink}href"
NUMBER = re.compile(r"-?\d+\.\d+")
FONT = re.compile(r"font(?:-family)?: (?:(\w+ )?([\d.]+px) )?[^;]*'[^;]*;?")
DEFAULTS = {
    "stroke-linejoin": "miter",
    "stroke-linecap": "butt",
    "stroke-width": "1",
    "stroke-opacity": "1",
    "fill-opacity": "1",
}
"""Initial values of CSS, which matplotlib writes nevertheless or which make no visible difference."""
ET.register_namespace("", SVG)


def page_svg(source: str, name: str, panel: "Panel") -> Markup:
    """Return an SVG element for an HTML page.

    Elements that `figure.tag` marked have the class `entry`, the attribute `data-entry` with the name of the entry, its
    colour as the variable `--own`, and `data-tip` with the text that appears when a reader points at them.

    Args:
        source: SVG file of matplotlib.
        name: prefix of all ids, unique in the page.
        panel: the panel that the file shows.
    """
    root = ET.fromstring(source)
    used = set(re.findall(r"#([\w-]+)", " ".join(v for e in root.iter() for v in e.attrib.values())))
    for element in list(root.iter()):
        _simplify(element, name, used)
        for child in list(element):
            if child.tag == f"{{{SVG}}}metadata" or (child.tag == f"{{{SVG}}}style"):
                element.remove(child)
    _flatten(root)
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-label": panel.alt or panel.title,
        "style": f"max-width:{1.3 * panel.width:g}px",
    }
    text = ET.tostring(root, encoding="unicode")
    return Markup(re.sub(r">\s+<", "><", text.replace(f' xmlns="{SVG}"', "", 1)))


def _simplify(element: ET.Element, name: str, used: set[str]) -> None:
    """Shorten an element's attributes, replace colours by variables, and apply the marks of `figure.tag`."""
    if (link := element.attrib.pop(HREF, None)) is not None:
        element.set("href", f"#{name}-{link[1:]}")
    for key, value in element.attrib.items():
        if key in ("d", "x", "y", "width", "height", "points", "transform", "viewBox"):
            element.set(key, NUMBER.sub(_round, value.strip()))
        elif key == "clip-path":
            element.set(key, value.replace("#", f"#{name}-"))
        elif key == "style":
            element.set(key, _style(value))
    if element.tag == f"{{{SVG}}}path":
        element.set("d", re.sub(r"\s+", " ", element.attrib.get("d", "")))
    if element.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]
    if not element.attrib.get("style", "x"):
        del element.attrib["style"]
    own = element.attrib.pop("id", "")
    if own.startswith("{"):
        _mark(element, **json.loads(own))
    elif own in used:
        element.set("id", f"{name}-{own}")


def _mark(element: ET.Element, entry: str, tips: str | list[str]) -> None:
    """Mark an element and its descendants as an entry's."""
    element.attrib |= {"class": "entry", "data-entry": entry, "style": f"--own:{colour(entry)}"}
    for each in element.iter():
        if GREY in each.get("style", ""):
            each.set("style", each.attrib["style"].replace(GREY, f"var(--shade,{GREY})"))
    if isinstance(tips, str):
        if tips:
            element.set("data-tip", tips)
        return
    points = list(element.iter(f"{{{SVG}}}use"))
    for point, tip in zip(points, tips, strict=True):
        point.set("data-tip", tip)


def _style(value: str) -> str:
    """Shorten a style attribute, and let colours and font be the page's."""
    font = FONT.search(value)
    if font:
        weight = f"font-weight:{font[1].strip()};" if font[1] else ""
        value = FONT.sub(f"{weight}font-size:{font[2]};" if font[2] else "", value, count=1)
    pairs = [part.split(":", 1) for part in value.split(";") if ":" in part]
    short = {key.strip(): NUMBER.sub(_round, each.strip()) for key, each in pairs}
    if any(each.startswith("0.") and key.endswith("opacity") for key, each in short.items()):
        short |= {key.strip(): each.strip() for key, each in pairs if key.strip().endswith("opacity")}
    text = ";".join(f"{key}:{each}" for key, each in short.items() if DEFAULTS.get(key) != each)
    for code, variable in VARIABLES.items():
        text = text.replace(code, f"var({variable},{code})")
    return text


def _flatten(element: ET.Element) -> None:
    """Remove groups without attributes, and move a style that all children share to their parent."""
    for child in element:
        _flatten(child)
    flat: list[ET.Element] = []
    for child in element:
        is_plain = child.tag in (f"{{{SVG}}}g", f"{{{SVG}}}defs") and not child.attrib
        flat += list(child) if is_plain and child.tag.endswith("g") else [child] if len(child) or not is_plain else []
    element[:] = flat
    styles = {child.get("style") for child in element if child.tag == f"{{{SVG}}}use"}
    if len(styles) == 1 and element.tag == f"{{{SVG}}}g" and (style := styles.pop()):
        shared = [child for child in element if child.tag == f"{{{SVG}}}use"]
        for child in shared:
            del child.attrib["style"]
        element.set("style", ";".join(filter(None, (element.get("style"), style))))


def _round(number: "re.Match[str]") -> str:
    return f"{float(number[0]):.1f}".removesuffix(".0").replace("-0", "0" if float(number[0]) > -0.05 else "-0")
