"""Callback of `transformers.Trainer` that reports evaluations to a race."""

from typing import Any

from transformers import TrainerCallback

from .reports import Report


class EvaluationReports(TrainerCallback):
    """Callback that reports an evaluated quantity.

    Args:
        report: function that takes the numbers; the training stops if it returns False.
        valid: name of the quantity, such as `"eval_loss"`.
    """

    def __init__(self, report: Report, valid: str) -> None:
        self.report, self.valid = report, valid

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Report the quantity, unless the evaluation is one of test examples.

        Raises:
            ValueError: if the quantity is not evaluated.
        """
        metrics = kwargs["metrics"]
        prefix = self.valid.partition("_")[0]
        if not any(name.startswith(prefix) for name in metrics):
            return
        if self.valid not in metrics:
            raise ValueError(f"valid={self.valid!r}: the trainer evaluates {', '.join(sorted(metrics))}.")
        if not self.report({"valid": float(metrics[self.valid])}):
            control.should_training_stop = True
