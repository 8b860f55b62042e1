"""Examples of the landscape page: instructive settings, with comments whose numbers come from the run that is shown."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """Instructive state of the landscape page.

    Args:
        title: short title.
        works: True if the setting suits its problem, False if something goes wrong in it.
        query: query string of the state, without a question mark.
        text: comment, with placeholders such as `{adam.end}` for a number of an optimizer's run: `rate` (learning
            rate), `start`, `end`, `maximum` and `final_mean` (losses above the minimum; the last one is the mean over
            the last quarter of the steps), `convergence_step` (first step from which the loss stays below 1 % of its
            initial value) and `crossing_step` (first step after passing the minimum).
    """

    title: str
    works: bool
    query: str
    text: str


PRESETS = (
    Preset(
        "Momentum overshoots",
        False,
        "condition=2&steps=120&who=gd:lr=0.02,momentum:lr=0.02&t=0&mark=crossing",
        "Press play. Momentum accumulates past gradients, as a ball gathers speed. At the minimum the gradient "
        "vanishes but the velocity does not, so momentum passes the minimum at step {momentum.crossing_step} (ring) "
        "and has to come back. Gradient descent, at the same learning rate of {gd.rate}, slows down as the gradient "
        "shrinks and never passes it, but it is slower: after 120 steps its loss is {gd.end} above the minimum, that "
        "of momentum {momentum.end}. Reduce the momentum of 0.9 and watch the overshoot shrink.",
    ),
    Preset(
        "Momentum in a ravine",
        True,
        "condition=200&steps=300&who=gd,momentum,nesterov",
        "Momentum accelerates descent along a ravine, here 200 times as steep across as along. Gradient descent, "
        "whose learning rate is limited by the steep direction, needs {gd.convergence_step} steps to stay below 1 % "
        "of the initial loss, momentum {momentum.convergence_step}, and Nesterov’s momentum "
        "{nesterov.convergence_step}. After 300 steps the losses are {gd.end}, {momentum.end} and {nesterov.end} "
        "above the minimum.",
    ),
    Preset(
        "The best momentum for a ravine",
        True,
        "view=sweep&who=momentum:lr=0.095:momentum=0.48",
        "Each square is a run of 200 steps. For a ravine with κ = 30, theory gives the best pair: a momentum of "
        "((√κ − 1)/(√κ + 1))² = 0.48 and a learning rate of (2/(√κ + 1))² = 0.095. The ring is there, and the run ends "
        "{momentum.end} above the minimum. Right of the edge, at a learning rate of 2 (1 + β)/κ, momentum diverges; "
        "with more momentum it oscillates and slows down. Drag the ring and watch the curve.",
    ),
    Preset(
        "RMSProp against Adam in a ravine",
        True,
        "condition=100&angle=45&who=rmsprop,adam",
        "Both divide the gradient by its running RMS in each coordinate, which does not help here: the ravine is "
        "rotated by 45 degrees, so both coordinates see the steep wall. Adam also averages the gradient: across the "
        "ravine, gradients of opposite sign cancel; along it, they add up. Its loss stays below 1 % of the initial "
        "one from step {adam.convergence_step} and ends {adam.end} above the minimum. RMSProp falls to the floor at "
        "once, but when its running RMS has forgotten the wall, its steps become too long for the ravine and the loss "
        "jumps: below 1 % for good only from step {rmsprop.convergence_step}, {rmsprop.end} at the end. Set the "
        "rotation to 0: in a ravine along an axis, RMSProp is the faster one.",
    ),
    Preset(
        "AdaGrad stalls",
        False,
        "surface=rosenbrock&steps=500&who=momentum,adagrad,adam",
        "AdaGrad divides by the root of the sum of all squared gradients, which only grows. Its first steps meet the "
        "steep walls (the loss rises to {adagrad.maximum}), and these large gradients keep its steps on the flat "
        "floor small: after 500 steps it is {adagrad.end} above the minimum, Adam {adam.end}, momentum "
        "{momentum.end}. All learning rates are tuned.",
    ),
    Preset(
        "Just above 2/λ",
        False,
        "surface=bowl&steps=60&who=gd:lr=2.05,momentum:lr=2.05",
        "The curvature is λ = 1, so gradient descent diverges at any learning rate above 2/λ = 2. At {gd.rate}, each "
        "step lands on the other side, slightly higher: the loss grows from {gd.start} to {gd.end}. Momentum "
        "converges at the same learning rate, to {momentum.end}: with β = 0.9 its limit is 2 (1 + β)/λ = 3.8.",
    ),
    Preset(
        "The textbook’s zig-zag",
        False,
        "steps=60&who=gd:lr=0.065",
        "The zig-zag of textbooks comes from the learning rate, not from gradient descent itself. At {gd.rate}, "
        "slightly below the limit of 2/κ = 0.0667, each step crosses the ravine. Choose “tune” beside the learning "
        "rate: the tuned one oscillates less and ends below these {gd.end}.",
    ),
    Preset(
        "A ravine along the axes",
        True,
        "condition=100&who=gd,momentum,adagrad,rmsprop,adam",
        "The ravine is parallel to an axis, so one learning rate per coordinate is all that is needed. Loss below 1 % "
        "of its initial value from step {adagrad.convergence_step} for AdaGrad, {rmsprop.convergence_step} for "
        "RMSProp, {momentum.convergence_step} for momentum, {gd.convergence_step} for gradient descent.",
    ),
    Preset(
        "The same ravine, rotated",
        False,
        "condition=100&angle=45&who=gd,momentum,adagrad,rmsprop,adam",
        "The same ravine, rotated by 45 degrees, with all learning rates tuned again. Both coordinates now have the "
        "same scale, so AdaGrad loses its advantage: it ends {adagrad.end} above the minimum, gradient descent, which "
        "does not depend on the rotation, {gd.end}, and momentum {momentum.end}. Nobody knows the orientation of the "
        "ravines of a neural network.",
    ),
    Preset(
        "One learning rate for all",
        False,
        "who=gd:lr=0.01,momentum:lr=0.01,nesterov:lr=0.01,adagrad:lr=0.01,rmsprop:lr=0.01,adadelta:lr=0.01,adam:lr=0.01",
        "Most pictures compare optimizers at one learning rate, here 0.01. That compares units: AdaDelta ends at "
        "{adadelta.end}, from {adadelta.start}, and AdaGrad at {adagrad.end}, because both have hardly moved. "
        "Nesterov’s momentum, at {nesterov.end}, happens to be near its best learning rate.",
    ),
    Preset(
        "Tuned learning rates",
        True,
        "who=gd,momentum,nesterov,adagrad,rmsprop,adadelta,adam",
        "The same surface with a tuned learning rate for each optimizer: from {momentum.rate} for momentum to "
        "{adadelta.rate} for AdaDelta. AdaGrad, second to last at 0.01, is now the first to stay below 1 % of the "
        "initial loss, from step {adagrad.convergence_step}.",
    ),
    Preset(
        "AdaDelta’s first steps",
        False,
        "who=gd,adadelta:lr=1",
        "AdaDelta as published has no learning rate: the size of its steps follows that of its past steps, of which "
        "there are none at first. It starts from √ε and grows slowly: after 200 steps its loss is {adadelta.end}, "
        "from {adadelta.start}, and that of gradient descent {gd.end}.",
    ),
    Preset(
        "Noise: a constant learning rate",
        False,
        "surface=noisy&noise=1&steps=1000&who=gd:lr=0.3,momentum:lr=0.03,adam:lr=0.3",
        "Gradients with noise, as from small batches. At a constant learning rate none of the optimizers converges: "
        "over the last quarter of the steps the mean loss is {gd.final_mean} above the minimum for gradient descent, "
        "{momentum.final_mean} for momentum and {adam.final_mean} for Adam. It depends mainly on the learning rate: "
        "compare with a tenth of it.",
    ),
    Preset(
        "Noise: a tenth of the learning rate",
        True,
        "surface=noisy&noise=1&steps=1000&who=gd:lr=0.03,momentum:lr=0.003,adam:lr=0.03",
        "The same noise at a tenth of the learning rates: the mean losses over the last quarter are {gd.final_mean}, "
        "{momentum.final_mean} and {adam.final_mean} above the minimum, reached after more steps. This is why "
        "learning-rate schedules end with small values.",
    ),
    Preset(
        "Escape from a saddle",
        True,
        "surface=saddle&steps=100&start=-1.5,0.0001&who=gd:lr=0.1,momentum:lr=0.1,adam:lr=0.1",
        "The start is 0.0001 beside the ridge, and near the saddle the gradient almost vanishes. Adam normalizes each "
        "coordinate, so a small gradient does not mean a small step: it stays below 1 % of the initial loss from step "
        "{adam.convergence_step}, momentum from step {momentum.convergence_step}, gradient descent from step "
        "{gd.convergence_step}.",
    ),
    Preset(
        "After the cliff",
        False,
        "surface=cliff&who=adagrad:lr=0.3,adam:lr=0.3,adamax:lr=0.3",
        "The one large gradient of the cliff stays in AdaGrad’s sum forever, and in AdaMax’s maximum for some "
        "thousand steps. Their steps on the gentle slope that follows are small: they end {adagrad.end} and "
        "{adamax.end} above the minimum, Adam at the same learning rate {adam.end}.",
    ),
    Preset(
        "Across the plateau",
        True,
        "surface=plateau&steps=300&who=gd:lr=1,momentum:lr=1,adam:lr=0.1",
        "Far from the minimum the gradient almost vanishes. Gradient descent needs {gd.convergence_step} steps to "
        "stay below 1 % of the initial loss, momentum, which accelerates, {momentum.convergence_step}, and Adam, "
        "whose steps have about the size of its learning rate however small the gradient, {adam.convergence_step}.",
    ),
    Preset(
        "Four minima",
        True,
        "surface=himmelblau&who=gd,momentum,rmsprop,adam&view=starts",
        "Each square is a starting point; its colour shows which of the four minima it reaches. A single starting "
        "point proves nothing. Select another optimizer above the map: the basins change.",
    ),
)
