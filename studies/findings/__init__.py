"""Findings of the literature, each tested by an experiment on models that train within minutes on one core.

A finding is a statement of a paper with a prediction and a decision rule, like the textbook's claims in
`gradprix.claims`, but it is a longer measurement, whose committed result is in `results/<id>.json`. To add findings on
a topic:

1. Write `topic.toml` with a table of texts for each finding (`ema.toml` is a complete example):

   * `title` (at most 70 characters), `statement` (paraphrased), `source` (authors, year, `arXiv:` number);
   * `original` and `here`: the models, data, sizes and tuning of the paper and of this experiment. State of the paper
     only what it says;
   * `prediction` and `decides`: the decision rule in words, fixed before the full experiment is run. Constants of the
     module can be inserted in braces: `{SEEDS}`;
   * `sentence`: the result, a template for the quantities: `{gain:+.2f}` prints the estimate with its interval;
   * `limits`: differences from the original that could change the result;
   * a table `measured` with a description and unit of each quantity;
   * an array `planted`: made-up quantities, as `[estimate, low, high]`, with the verdict that the decision rule must
     give. There must be some for "holds" or "holds only if", for "does not hold", and for "inconclusive".

2. Write `topic.py`: a function that takes `quick` (True for a run of seconds, for tests) and returns the quantities by
   name, the deciding one first, decorated by `experiment`. Quantities are `Measured` with 95 % intervals
   (`gradprix.claims.estimates`), other values must be JSON. The decision rule is a function of the quantities alone,
   made of those in `gradprix.claims.decisions`. `draw` is optional: a function from the quantities to a chart
   (`figures`). `training` has tuned learning rates and final runs.

3. Run `python studies/run_findings.py ID`, which writes `results/ID.json` to commit. `docs/findings.md` and
   `tests/test_literature.py` find everything else.

Statements that a textbook claim already tests are listed in `claims.toml` and not measured again.
"""

from .registry import FINDINGS, WORDS, Finding, format_verdict

ALL: dict[str, Finding] = FINDINGS.collect(__name__, __path__)
"""Findings by id, by topic."""

__all__ = ["ALL", "FINDINGS", "WORDS", "Finding", "format_verdict"]
