"""Variants of rules, and the options of classes that select them; their numbers are compared in test_like.py."""

import pickle
from itertools import combinations
from typing import Any

import pytest
import torch

import gradprix as gp
from gradprix import optim, rules
from gradprix.kernels import eager_step
from gradprix.optim.variants import OPTIONS, option_defaults, with_options
from gradprix.rules import RuleError, cautious, formula, variant

CLASSES = {"sgd": "SGD", "rmsprop": "RMSprop", "adamw": "AdamW", "nadam": "NAdam", "radam": "RAdam"}
EVERY = [
    (name, chosen) for name, options in OPTIONS.items() for n in (1, 2, 3, 4) for chosen in combinations(options, n)
]


def class_of(name: str) -> Any:
    return getattr(optim, CLASSES.get(name, name.capitalize()))


def test_expressions_are_replaced_and_names_assigned_anew() -> None:
    plain = formula(rules.adam)
    inside = variant(rules.adam, {"sqrt(v_hat) + eps": "sqrt(v_hat + eps)"})
    assert formula(inside) == [*plain[:-1], "x ← x − η m̂ / √(v̂ + ε)"]
    assert variant(rules.adam, denominator="sqrt(v_hat + eps)").tree == inside.tree
    assert formula(variant(rules.adam, m_hat="m"))[:3] == [*plain[:2], plain[3]]
    chosen = variant(rules.adam, v_max="maximum(v_max, v) if amsgrad else 2 * v")
    assert (formula(chosen)[2], formula(chosen, amsgrad=True)[2]) == ("v_max ← 2 v", "v_max ← max(v_max, v)")
    scaled = variant(rules.sgd, {"lr * d": "scale * lr * d"}, {"scale": 0.5})
    x, _ = eager_step(scaled, scaled.values(lr=0.1), 1, torch.zeros(2), torch.ones(2), {})
    torch.testing.assert_close(x, torch.full((2,), -0.05))
    assert formula(cautious(inside))[4] == "u ← m̂ / √(v̂ + ε)", "variants can be modified"


def test_what_a_rule_does_not_contain_is_refused() -> None:
    with pytest.raises(ValueError, match=r"adam does not contain the expression \(sqrt\(v\) \+ h.eps\)"):
        variant(rules.adam, {"sqrt(v) + eps": "sqrt(v + eps)"})
    with pytest.raises(ValueError, match="adam assigns no 'v_root'. It assigns m, v, v_max, m_hat, v_hat, x"):
        variant(rules.adam, v_root="sqrt(v_hat)")
    with pytest.raises(ValueError, match="lion divides by nothing in its last assignment to x"):
        variant(rules.lion, denominator="1 + abs(c)")
    for text, message in [
        ("sqrt(v_hat", "is not an expression"),
        ("torch.sqrt(v_hat)", "is outside the vocabulary"),
        ("v_hat + epsilon", "'epsilon' has no value here"),
        ("v_hat + amsgrad", "the option h.amsgrad is used as a number"),
        ("lr / m_hat", "torch divides a number by a tensor in two roundings"),
    ]:
        with pytest.raises(RuleError, match=message):
            variant(rules.adam, v_hat=text)


@pytest.mark.parametrize(("name", "chosen"), EVERY)
def test_options_combine_and_variants_are_pickled(name: str, chosen: tuple[str, ...]) -> None:
    rule = rules.ALL[name]
    selected = with_options(rule, dict.fromkeys(chosen, 1.0))
    assert selected is with_options(rule, dict.fromkeys(chosen, 1.0))
    assert selected is not rule
    assert with_options(rule, dict.fromkeys(chosen, 0.0)) is rule
    assert pickle.loads(pickle.dumps(selected)) is selected


@pytest.mark.parametrize("name", OPTIONS)
def test_rules_have_none_of_the_options_and_classes_have_all(name: str) -> None:
    parameters = class_of(name).__signature__.parameters
    for option, default in option_defaults(rules.ALL[name]).items():
        assert option not in rules.ALL[name].hyperparameters
        assert parameters[option].default == default


@pytest.mark.parametrize(("name", "chosen"), [pair for pair in EVERY if len(pair[1]) == 1])
def test_an_option_may_change_between_steps(name: str, chosen: tuple[str]) -> None:
    given = {"momentum": 0.9} if name in ("sgd", "rmsprop") else {}
    x = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer, (option,) = class_of(name)([x], lr=0.1, **given), chosen
    rule, values = rules.ALL[name], optimizer.values(optimizer.param_groups[0])
    alone, state = x.detach().clone(), dict[str, Any]()
    for t in range(1, 9):
        value = 0.5 if option == "full_lr" and t > 4 else t > 4
        optimizer.param_groups[0][option] = value
        used = with_options(rule, {option: value})
        full = {**values, option: value} if option == "full_lr" else values
        x.grad = torch.tensor([0.3 * t, -0.1], dtype=torch.float64)
        optimizer.step()
        alone, state = eager_step(used, full, t, alone, x.grad, state)
        torch.testing.assert_close(x.detach(), alone, rtol=1e-14, atol=0)


def test_an_entry_may_have_options_of_the_class() -> None:
    for optimizer in (rules.adam, optim.Adam):
        entry = gp.Entry("inside", optimizer, {"eps_inside_sqrt": True})
        assert entry.code(0.1) == "gradprix.optim.Adam(params, lr=0.1, eps_inside_sqrt=True)"
