"""Reports of a training function that returns only at its end, such as the `fit` of a trainer."""

from collections.abc import Callable, Iterator, Mapping
from queue import SimpleQueue
from threading import Thread

Report = Callable[[Mapping[str, float]], bool]
"""Function to call with the numbers of an epoch. It returns False if the training should stop."""


def iterate_reports(train: Callable[[Report], None]) -> Iterator[Mapping[str, float]]:
    """Run a training function in a thread, and yield the numbers that it reports.

    The function waits in each report until the next one is requested, so that it never runs at the same time as the
    caller, with whom it shares the global random number generators.

    Args:
        train: training function, called with a `Report`. If the iterator is closed, the function's current report
            returns False, and the iterator waits until the function returns.

    Raises:
        BaseException: the error with which the training function ends.
    """
    reports: SimpleQueue[Mapping[str, float] | BaseException | None] = SimpleQueue()
    requests: SimpleQueue[bool] = SimpleQueue()
    closed = False

    def report(numbers: Mapping[str, float]) -> bool:
        if closed:
            return False
        reports.put(dict(numbers))
        return requests.get()

    def run() -> None:
        nonlocal closed
        end: BaseException | None = None
        try:
            train(report)
        except BaseException as error:
            end = error
        closed = True  # nobody reads later reports, such as one of an evaluation after training
        reports.put(end)

    thread = Thread(target=run, name="gradprix training", daemon=True)
    thread.start()
    while True:
        numbers = reports.get()
        if isinstance(numbers, BaseException):
            raise numbers
        if numbers is None:
            return
        try:
            yield numbers
        except GeneratorExit:
            closed = True
            requests.put(False)
            thread.join()
            raise
        requests.put(True)


def add_test_score(reports: Iterator[Mapping[str, float]], test: Callable[[], float]) -> Iterator[Mapping[str, float]]:
    """Yield reports, and add a test score to the last one.

    Each report is withheld until it is known whether another one follows.

    Args:
        reports: reports of the epochs.
        test: function that evaluates the trained model on test examples, called after the last report.
    """
    last = next(reports, None)
    for numbers in reports:
        if last is not None:
            yield last
        last = numbers
    if last is not None:
        yield {**last, "test": test()}
