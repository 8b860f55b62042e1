"""Presets: instructive settings, good and bad, with explanations whose numbers are computed from a run."""

from dataclasses import asdict, dataclass
from types import SimpleNamespace

from gradprix.explain import number

from .state import Setting, State
from .trajectories import Run
from .url_query import read


@dataclass(frozen=True)
class Preset:
    """Instructive state of the landscape page.

    Args:
        title: short title.
        good: True if the preset shows good practice, False if it shows a mistake.
        address: query string of the state.
        text: explanation, with placeholders such as `{adam.end}` for a field of an optimizer's `Summary`.
    """

    title: str
    good: bool
    address: str
    text: str

    @property
    def state(self) -> State:
        """State of the app that the preset's query string describes."""
        return read(self.address)

    def explain(self, run: Run) -> str:
        """Return the explanation, with its placeholders replaced by the numbers of a run."""
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
        "Momentum accelerates descent along a ravine, here 200 times as steep across as along. All learning rates are "
        "tuned. Gradient descent, limited by the steep direction, needs {gd.convergence_step} steps to stay below 1 % "
        "of the initial loss, momentum {momentum.convergence_step}, and with Nesterov's look-ahead "
        "{nesterov.convergence_step}. After 300 steps the losses are {gd.end}, {momentum.end} and {nesterov.end} above "
        "the minimum.",
    ),
    Preset(
        "Just above 2/λ",
        False,
        "?surface=bowl&steps=60&who=gd:lr=2.05,momentum:lr=2.05",
        "The curvature is λ = 1, so gradient descent diverges at any learning rate above 2. At {gd.rate} each step "
        "overshoots to a slightly higher point on the other side: the loss grows from {gd.start} to {gd.end}. At the "
        "same learning rate momentum converges, to {momentum.end}: with β = 0.9 its bound is 2 (1 + β) / λ = 3.8.",
    ),
    Preset(
        "The textbook's zig-zag",
        False,
        "?steps=60&who=gd:lr=0.065",
        "The zig-zag of textbooks is a property of the learning rate, not of gradient descent: at {gd.rate}, slightly "
        "below 2/κ = 0.0667, each step crosses the ravine. Clear the learning-rate field: the tuned learning rate "
        "oscillates less and ends below these {gd.end}.",
    ),
    Preset(
        "AdaGrad stalls",
        False,
        "?surface=rosenbrock&steps=500&who=momentum,adagrad,adam",
        "AdaGrad divides by the root of the sum of all squared gradients, which never decays. Its first steps meet the "
        "walls (the loss rises to {adagrad.maximum}), and their large gradients slow it on the flat floor until the "
        "end: after 500 steps its loss is {adagrad.end} above the minimum, that of Adam {adam.end}, of momentum "
        "{momentum.end}. All learning rates are tuned.",
    ),
    Preset(
        "A ravine along the axes",
        True,
        "?condition=100&who=gd,momentum,adagrad,rmsprop,adam",
        "The ravine is aligned with the axes, so that a learning rate per coordinate suffices. AdaGrad stays below 1 % "
        "of the initial loss from step {adagrad.convergence_step}, RMSProp from step {rmsprop.convergence_step}, "
        "momentum from step {momentum.convergence_step}, gradient descent from step {gd.convergence_step}.",
    ),
    Preset(
        "The same ravine, rotated",
        False,
        "?condition=100&angle=45&who=gd,momentum,adagrad,rmsprop,adam",
        "The same ravine, rotated by 45 degrees, with all learning rates tuned again. Both coordinates now have the "
        "same scale, so that AdaGrad loses its advantage: it ends {adagrad.end} above the minimum; gradient descent, "
        "which is invariant to rotation, ends at {gd.end}, and momentum at {momentum.end}. In a neural network the "
        "orientation of ravines is unknown.",
    ),
    Preset(
        "One learning rate for all",
        False,
        "?who=gd:lr=0.01,momentum:lr=0.01,nesterov:lr=0.01,adagrad:lr=0.01,rmsprop:lr=0.01,adadelta:lr=0.01,"
        "adam:lr=0.01",
        "Most pictures compare optimizers at one learning rate, here 0.01. This compares units: AdaDelta ends at "
        "{adadelta.end}, from {adadelta.start}, and AdaGrad at {adagrad.end}, as both have hardly moved. Nesterov's "
        "momentum, at {nesterov.end}, happens to be near its best learning rate.",
    ),
    Preset(
        "Tuned learning rates",
        True,
        "?who=gd,momentum,nesterov,adagrad,rmsprop,adadelta,adam",
        "The same surface with tuned learning rates: they range from {momentum.rate} for momentum to {adadelta.rate} "
        "for AdaDelta. AdaGrad, second to last at 0.01, is now the first to stay below 1 % of the initial loss, from "
        "step {adagrad.convergence_step}.",
    ),
    Preset(
        "AdaDelta's first steps",
        False,
        "?who=gd,adadelta:lr=1",
        "AdaDelta as published has no learning rate: its step size follows that of past updates, which is zero at "
        "first. It starts from √ε and grows slowly: after 200 steps the loss is {adadelta.end}, from {adadelta.start}, "
        "and that of gradient descent {gd.end}.",
    ),
    Preset(
        "Noise: a constant learning rate",
        False,
        "?surface=noisy&noise=1&steps=1000&who=gd:lr=0.3,momentum:lr=0.03,adam:lr=0.3",
        "Gradients with noise, as from small batches. At a constant learning rate no optimizer converges: over the "
        "last quarter of the steps the mean loss is {gd.final_mean} above the minimum for gradient descent, "
        "{momentum.final_mean} for momentum, {adam.final_mean} for Adam. It depends mainly on the learning rate: "
        "compare with a tenth of it.",
    ),
    Preset(
        "Noise: a tenth of the learning rate",
        True,
        "?surface=noisy&noise=1&steps=1000&who=gd:lr=0.03,momentum:lr=0.003,adam:lr=0.03",
        "The same noise at a tenth of the learning rates: the mean losses are {gd.final_mean}, {momentum.final_mean} "
        "and {adam.final_mean} above the minimum, reached after more steps. Therefore schedules end with a small "
        "learning rate.",
    ),
    Preset(
        "Escape from a saddle",
        True,
        "?surface=saddle&steps=100&start=-1.5,0.0001&who=gd:lr=0.1,momentum:lr=0.1,adam:lr=0.1",
        "The starting point is 0.0001 beside the ridge, and the gradient almost vanishes near the saddle. Adam "
        "normalizes each coordinate, so that a small gradient does not imply a small step: it stays below 1 % of the "
        "initial loss from step {adam.convergence_step}, momentum from step {momentum.convergence_step}, gradient "
        "descent from step {gd.convergence_step}.",
    ),
    Preset(
        "After the cliff",
        False,
        "?surface=cliff&who=adagrad:lr=0.3,adam:lr=0.3,adamax:lr=0.3",
        "The one large gradient of the cliff stays in AdaGrad's sum forever, and in AdaMax's maximum for some thousand "
        "steps: their steps on the gentle slope below are small, and they end {adagrad.end} and {adamax.end} above the "
        "minimum. Adam at the same learning rate ends at {adam.end}.",
    ),
    Preset(
        "Across the plateau",
        True,
        "?surface=plateau&steps=300&who=gd:lr=1,momentum:lr=1,adam:lr=0.1",
        "Far from the minimum the gradient almost vanishes. Gradient descent needs {gd.convergence_step} steps to stay "
        "below 1 % of the initial loss; momentum, which accelerates, {momentum.convergence_step}; and Adam, whose step "
        "size is about its learning rate however small the gradient, {adam.convergence_step}.",
    ),
    Preset(
        "Four minima",
        True,
        "?surface=himmelblau&who=gd,momentum,rmsprop,adam&view=starts",
        "Each mark is a starting point; its colour and shape show which of the four minima it reaches. A single "
        "starting point proves nothing. Select another optimizer above the plot: the basins change.",
    ),
)


def matching_preset(setting: Setting) -> Preset | None:
    """Return the preset with the given setting, or None if there is none."""
    return next((preset for preset in PRESETS if preset.state.setting == setting), None)
