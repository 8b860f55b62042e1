"""Sphinx extension: content that is generated from rules, measurements and docstrings.

Functions return Markdown, which the directives insert. In a page:

    ```{rule} adam formula
    ```

inserts one of `BLOCKS` for a rule, `{measured}` a table of `MEASURED`, and `{api}` the public names of a module. The
role `{value}` and the directive `{numbers}` (`measured_values.py`) insert single numbers.
"""

from collections.abc import Callable
from typing import Any

import api_docs
import cluster_docs
import command_docs
import compatibility_docs
import library_docs
import measured_values
import modifier_docs
import speed_docs
import study_docs
import suite_docs
import suite_entry_docs
from docutils import nodes
from rule_docs import BLOCKS, modified
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

MEASURED: dict[str, Callable[[], str]] = {
    "aa-tests": study_docs.aa_tests_table,
    "repetitions": study_docs.repetitions,
    "tuned-hyperparameters": study_docs.tuned_hyperparameters,
    "muon-gain": study_docs.muon_gain,
    "claims": study_docs.claims_made_by,
    "alpha-spending": library_docs.alpha_spending,
    "cluster": cluster_docs.overhead,
    "data-sets": library_docs.data_sets,
    "compatibility": compatibility_docs.situations,
    "compatibility-made": compatibility_docs.made_by,
    "compatibility-mistakes": compatibility_docs.mistakes,
    "modifiers": modifier_docs.overview,
    "other-optimizers": study_docs.other_optimizers,
    "peers": speed_docs.peers,
    "papers": library_docs.paper_table,
    "price": speed_docs.price,
    "published-suite": suite_entry_docs.published_tasks,
    "refused-modifiers": modifier_docs.refusals,
    "rules": library_docs.every,
    "scale": cluster_docs.scale,
    "speed": speed_docs.speed,
    **suite_docs.MEASURED,
    "suite-entry": suite_entry_docs.measurements,
    "tasks": library_docs.task_table,
}


class RuleBlock(SphinxDirective):
    """Insert a block of `BLOCKS`; arguments are the name of the rule and of the block.

    `modified` is the block of a modified rule, such as `ema(adam)`.
    """

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        """Return the nodes of the block."""
        name, block = self.arguments
        self.env.note_reread()  # it depends on the rule, whose file Sphinx does not watch
        write = modified if block == "modified" else BLOCKS[block]
        return self.parse_text_to_nodes(write(modifier_docs.find_rule(name)))


class Measured(SphinxDirective):
    """Insert a table of `MEASURED`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the nodes of the table."""
        self.env.note_reread()
        return self.parse_text_to_nodes(MEASURED[self.arguments[0]](), allow_section_headings=True)


class Api(SphinxDirective):
    """Insert the public names of a module."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the nodes of the names."""
        self.env.note_reread()
        return self.parse_text_to_nodes(api_docs.api(self.arguments[0]))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives and roles."""
    app.add_directive("rule", RuleBlock)
    app.add_directive("measured", Measured)
    app.add_directive("api", Api)
    app.add_directive("commands", command_docs.Commands)
    app.add_directive("numbers", measured_values.Numbers)
    app.add_role("value", measured_values.Value())
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
