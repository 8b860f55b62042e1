"""Examples at the end of the help of each command."""

from collections.abc import Mapping

COLUMNS = 45
"""Width of the column of commands; with the comments, a line fits 80 columns."""
EXAMPLES: Mapping[str, Mapping[str, str]] = {
    "gradprix": {
        "race digits": "ten optimizers: half a minute",
        "new task.py": "a template for your task",
        "race task.py --minutes 10": "race it in ten minutes",
        "tune task.py --optimizer adamw": "tune one optimizer",
        "explain adamw": "equations, in words",
        "app": "landscapes, live races",
    },
    "race": {
        "race digits --plan": "what it will do, and how long",
        "race task.py --minutes 10": "your task in ten minutes",
        "race task.py --optimizers adamw,lion": "these two alone",
        "race task.py --baseline adamw": "is any better than adamw?",
        "race task.py --tune recommended": "more than the learning rate",
        "race loop.py:train --direction max": "a training loop of your own",
        "race digits --explain": "and why they rank as they do",
    },
    "tune": {
        "tune digits --optimizer adamw": "learning rate of adamw",
        "tune task.py --optimizer sgd --epochs 3": "with the length you train",
        "tune task.py --optimizer adamw --plan": "how long it will take",
    },
    "list": {
        "list optimizers": "names for --optimizers",
        "list tasks": "built-in tasks",
        "list --for segment": "what to try first on images",
    },
    "new": {"new task.py": "a task", "new loop.py --loop": "a training loop"},
    "report": {"report runs/digits": "show and rewrite it", "report runs/digits --json": "all numbers"},
    "export": {
        "export runs/digits": "tables as CSV",
        "export runs/* --to latex": "one table of all races",
        "export runs/digits --to png": "figures for slides",
        "export runs/digits --to bundle": "a result others can check",
    },
    "verify": {
        "verify digits.gradprix.zip": "a sample of its runs",
        "verify digits.gradprix.zip --all": "every run",
        "verify digits.gradprix.zip --runs 0": "without training",
        "verify my.gradprix.zip --run-code": "with code that you have read",
        "verify my.gradprix.zip --task my.py": "with your copy of the task",
    },
    "compare": {"compare runs/digits runs/digits-long": "what leads in both"},
    "suite": {
        "suite --plan": "how long all tasks take",
        "suite --tasks digits,charlm": "two tasks",
        "suite --optimizers adamw,muon": "two optimizers on all tasks",
        "suite --entry my.py:Opt --tasks digits": "yours against tuned ones",
    },
    "app": {"app": "open it in the browser", "app --port 0 --no-open": "print its address alone"},
    "explain": {
        "explain nadam": "a built-in optimizer",
        "explain adamw --set beta1=0.5": "with another setting",
        "explain 'cautious(lion)' --html lion.html": "a modified one, as a page",
    },
    "claims": {
        "claims --list": "the claims",
        "claims adagrad-stalls": "one claim with all numbers",
        "claims --quick": "all, with fewer seeds",
    },
}
"""Arguments of `gradprix` with what they do, by command."""


def format_examples(command: str) -> str:
    """Return the examples of a command as the epilog of its help. The first character keeps the line breaks."""
    lines = [f"  {f'gradprix {arguments}':<{COLUMNS}} {what}" for arguments, what in EXAMPLES[command].items()]
    return "\n".join(["\b", "Examples:", *lines])
