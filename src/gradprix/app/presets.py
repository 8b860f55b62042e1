"""Instructive settings, good and bad, with explanations whose numbers are computed from the run."""

from dataclasses import asdict, dataclass
from types import SimpleNamespace

from gradprix.explain import number

from .state import Setting, State, read
from .trajectories import Run


@dataclass(frozen=True)
class Preset:
    """Instructive state of the landscape page.

    Args:
        title: short title.
        good: good practice rather than a mistake.
        address: query string of the state.
        text: explanation, with placeholders for fields of `Summary`: `{adam.end}`.
    """

    title: str
    good: bool
    address: str
    text: str

    @property
    def state(self) -> State:
        """State of the app."""
        return read(self.address)

    def explain(self, run: Run) -> str:
        """Return the explanation with the numbers of a run."""
        summaries = {
            name: SimpleNamespace(**{field: _format_value(value) for field, value in asdict(summary).items()})
            for name, summary in run.summaries().items()
        }
        return self.text.format(**summaries)


def _format_value(value: float | None) -> str:
    return "never" if value is None else number(float(f"{value:.3g}"))


PRESETS = (
    Preset(
        "Momentum in a ravine",
        True,
        "?condition=200&steps=300&who=gd,momentum,nesterov",
        "What momentum is for. The ravine is 200 times as steep across as along, and each has the rate that suits "
        "it best. Gradient descent may not step faster than the steep side allows, and takes {gd.hundredth} steps "
        "to stay below a hundredth of the start; momentum {momentum.hundredth}, with Nesterov's look-ahead "
        "{nesterov.hundredth}. After 300 steps they are {gd.end}, {momentum.end} and {nesterov.end} above the "
        "bottom.",
    ),
    Preset(
        "Just above 2/λ",
        False,
        "?surface=bowl&steps=60&who=gd:lr=2.05,momentum:lr=2.05",
        "The curvature is λ = 1, so gradient descent diverges at any rate above 2. At {gd.rate} each step lands a "
        "little higher on the other side: from {gd.start} it has climbed to {gd.end}. At the very same rate "
        "momentum comes down, to {momentum.end}: with β = 0.9 its own bound is 2 (1 + β) / λ = 3.8.",
    ),
    Preset(
        "The textbook's zig-zag",
        False,
        "?steps=60&who=gd:lr=0.065",
        "The zig-zag that every book draws is no property of gradient descent but of its rate: {gd.rate} here, a "
        "little under 2/κ = 0.0667, so that each step crosses the ravine. Empty the box of the rate: the tuned one "
        "crosses less wildly and ends lower than these {gd.end}.",
    ),
    Preset(
        "AdaGrad stalls",
        False,
        "?surface=rosenbrock&steps=500&who=momentum,adagrad,adam",
        "AdaGrad divides by the root of the sum of all squared gradients, and forgets none. Its first steps meet "
        "the walls (it is thrown as high as {adagrad.highest}), and along the flat floor it pays for them to the "
        "end: after 500 steps it is still {adagrad.end} above the bottom, Adam {adam.end}, momentum {momentum.end}."
        " All rates are tuned.",
    ),
    Preset(
        "A ravine along the axes",
        True,
        "?condition=100&who=gd,momentum,adagrad,rmsprop,adam",
        "Steep across, flat along, and both directions are axes: a rate for each coordinate is all that is needed. "
        "AdaGrad stays below a hundredth of the start from step {adagrad.hundredth} on and RMSProp from step "
        "{rmsprop.hundredth}, momentum from step {momentum.hundredth}, gradient descent from step {gd.hundredth}.",
    ),
    Preset(
        "The same ravine, turned",
        False,
        "?condition=100&angle=45&who=gd,momentum,adagrad,rmsprop,adam",
        "The same ravine, turned by 45 degrees, and every rate tuned anew. To AdaGrad both coordinates now look "
        "alike, and its gift is gone: it ends {adagrad.end} above the bottom, where gradient descent, which knows "
        "no axes, ends at {gd.end} and momentum at {momentum.end}. In a network, nobody knows how the ravines lie.",
    ),
    Preset(
        "One rate for all",
        False,
        "?who=gd:lr=0.01,momentum:lr=0.01,nesterov:lr=0.01,adagrad:lr=0.01,rmsprop:lr=0.01,adadelta:lr=0.01,"
        "adam:lr=0.01",
        "How most pictures compare optimizers: everyone at 0.01. It is a comparison of units. Here AdaDelta ends at"
        " {adadelta.end} of {adadelta.start} and AdaGrad at {adagrad.end}: they have hardly begun. Nesterov's "
        "momentum, at {nesterov.end}, happens to be near its own best rate.",
    ),
    Preset(
        "Each at its own rate",
        True,
        "?who=gd,momentum,nesterov,adagrad,rmsprop,adadelta,adam",
        "The same surface with every rate tuned for it: they reach from {momentum.rate} for momentum to "
        "{adadelta.rate} for AdaDelta. AdaGrad, last but one at 0.01, now stays below a hundredth of the start from"
        " step {adagrad.hundredth} on, before all the others.",
    ),
    Preset(
        "AdaDelta's first steps",
        False,
        "?who=gd,adadelta:lr=1",
        "As its paper has it, AdaDelta has no rate: it steps by the size of its past updates, and there are none at"
        " first. It starts from √ε and has to work its way up: after 200 steps it is at {adadelta.end} of "
        "{adadelta.start}, gradient descent at {gd.end}.",
    ),
    Preset(
        "Noise: a constant rate hovers",
        False,
        "?surface=noisy&noise=1&steps=1000&who=gd:lr=0.3,momentum:lr=0.03,adam:lr=0.3",
        "Gradients with noise, as from small batches. At a constant rate nobody settles: over the last quarter of "
        "the steps gradient descent hovers {gd.hovers} above the bottom, momentum {momentum.hovers}, Adam "
        "{adam.hovers}. How high depends on the rate first of all: see the same with a tenth of it.",
    ),
    Preset(
        "Noise: a tenth of the rate",
        True,
        "?surface=noisy&noise=1&steps=1000&who=gd:lr=0.03,momentum:lr=0.003,adam:lr=0.03",
        "The same noise, a tenth of the rates: they hover {gd.hovers}, {momentum.hovers} and {adam.hovers} above "
        "the bottom, and take longer to get there. That is why schedules end with a small rate.",
    ),
    Preset(
        "Off the saddle",
        True,
        "?surface=saddle&steps=100&start=-1.5,0.0001&who=gd:lr=0.1,momentum:lr=0.1,adam:lr=0.1",
        "The start is 0.0001 beside the ridge, and at the saddle there is almost no gradient to leave it by. Adam "
        "measures each coordinate by itself, so that a small gradient is no small step: it stays below a hundredth "
        "of the start from step {adam.hundredth} on, momentum from {momentum.hundredth}, gradient descent from "
        "{gd.hundredth}.",
    ),
    Preset(
        "After the cliff",
        False,
        "?surface=cliff&who=adagrad:lr=0.3,adam:lr=0.3,adamax:lr=0.3",
        "The one steep gradient of the cliff stays in AdaGrad's sum for ever, and in AdaMax's maximum for some "
        "thousand steps: on the gentle slope below they creep, and end {adagrad.end} and {adamax.end} above the "
        "bottom. Adam at the same rate ends at {adam.end}.",
    ),
    Preset(
        "Across the plateau",
        True,
        "?surface=plateau&steps=300&who=gd:lr=1,momentum:lr=1,adam:lr=0.1",
        "Far from the hole there is almost no gradient. Gradient descent takes {gd.hundredth} steps to come down to"
        " a hundredth for good, momentum, which gathers speed, {momentum.hundredth}, and Adam, whose steps are of "
        "the size of its rate however small the gradient, {adam.hundredth}.",
    ),
    Preset(
        "Four minima",
        True,
        "?surface=himmelblau&who=gd,momentum,rmsprop,adam&view=starts",
        "Every mark is a start, and says by colour and shape which of the four minima it ends in. One start proves "
        "nothing. Choose another optimizer above the picture: the borders move.",
    ),
)


def matching_preset(setting: Setting) -> Preset | None:
    """Return the preset with this setting, if any."""
    return next((preset for preset in PRESETS if preset.state.setting == setting), None)
