"""Quantities that sentences of the documentation state by hand."""

import re
from collections.abc import Iterator

GENERATED = re.compile(r"^<!-- generated: \w+ -->$.*?^<!-- end -->$", re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"^( *)(```+)[^`\n]*\n.*?^\1\2$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?<=\n\n)(?: {4}.*\n|\n)+")
REPLACED = (
    (re.compile(r"<!--.*?-->|</?[a-z][^>]*>", re.DOTALL), ""),
    (re.compile(r"\{[\w-]+\}`[^`]+`"), "…"),
    (re.compile(r"`[^`]+`"), "…"),
    (re.compile(r"!?\[([^\]]*)\]\([^)]*\)"), r"\1"),
    (re.compile(r"https?:\S+|arXiv:[\d.]+|doi:\S+"), "…"),
    (re.compile(r"^:.*$|^\(\S+\)=$", re.MULTILINE), ""),
    (re.compile(r"[*_]{1,2}(?=\S)|(?<=\S)[*_]{1,2}"), ""),
)
"""What is no prose: tags, roles, code, the targets of links, options of directives, emphasis."""

WORDS = {
    **{word: i for i, word in enumerate("two three four five six seven eight nine ten eleven twelve".split(), 2)},
    **{"fifteen": 15, "sixteen": 16, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "hundred": 100},
    **{"thousand": 1_000, "half": 1 / 2, "third": 1 / 3, "quarter": 1 / 4, "fifth": 1 / 5, "tenth": 1 / 10},
}
"""Numbers that are written as words. *One* is rather a pronoun."""
FRACTION = r"(?:half|thirds?|quarters?|fifths?|tenths?|hundredths?)"
NUMBER = rf"(?:(?<![\w.,])\d[\d,.]*(?<=\d)(?:e[-−]\d+)?|\b(?:{'|'.join(WORDS)}|{FRACTION})\b)"
TIME = r"(?:milliseconds?|seconds?|minutes?|min|hours?|days?|[mµn]?s|h)\b"
UNIT = (
    rf"(?:%|{TIME}|percent\w*|points?\b|margins?\b|δ|[kKMGT]i?B\b|bytes\b|×(?! ?\d)|times?\b|fold\b|GFLOP\S*|"
    r"comparisons?\b|races?\b|runs?\b)"
)
QUANTITY = re.compile(
    rf"{NUMBER}(?: (?:an?|to|or|and|more|{NUMBER}))*[ -]?{UNIT}|"  # 3 %, half a minute, two or three times
    rf"(?<!\d)(?<!\d )×\s?\d[\d.]*|\btwice (?:as|the|that|its)\b|\bfactors? of (?:about |more than )?{NUMBER}|"
    rf"\b(?:about|within|takes|than) an? {TIME}|"
    rf"{NUMBER} of (?:the |all )?{NUMBER}\b|{NUMBER} as \w+|"
    rf"{FRACTION} of (?:\w+(?:'s)? ){{0,4}}(?:time|step|cost|memory|races|runs)\b",
    re.IGNORECASE,
)


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a Markdown page outside code and generated parts, each on one line."""
    for pattern in (GENERATED, FENCE, INDENTED):
        text = pattern.sub("\n", text)
    for pattern, replacement in REPLACED:
        text = pattern.sub(replacement, text)
    for block in re.split(r"\n\s*\n|\n(?=\s*(?:[*-]|\d+\.) )|\n(?=[|#]|:::)", text):
        for cell in " ".join(block.split()).lstrip("*-#: ").split("|"):
            yield from re.split(r"(?<=[.?!;])\s+(?=[A-Z(])", cell.strip())


def numbers(text: str) -> list[tuple[float, float]]:
    """Return the numbers in a text, each with the value of half a unit of its last digit."""
    found = []
    for written in re.findall(NUMBER, text, re.IGNORECASE):
        digits = written.replace(",", "")
        if written.lower() in WORDS:
            found.append((WORDS[written.lower()], 1e-9))
        else:
            found.append((float(digits.replace("−", "-")), 0.5 * 10.0 ** -len(digits.partition(".")[2])))
    return found
