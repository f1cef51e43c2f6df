"The optimizers as set up here, NT-ASGD's trigger and averages, freezing, clipping, the end of a run that diverges."
from types import SimpleNamespace

import pytest
import reference
import torch
from fastcore.script import CliError
from hypothesis import given, settings, strategies as st
from reference import close
from torch import Tensor, nn
from ulmfit.training.freezing import Phase
from ulmfit.training.loop import freeze
from ulmfit.training.optimizers import (Optimization, averaged, averaging, build, end_with_averages, maybe_average,
                                         set_rate)
from ulmfit.training.step import step

NAMES = ["adam", "adamw", "sgd", "ntasgd"]


def groups(seed: int = 0) -> dict[str, list[nn.Parameter]]:
    "Three groups of a matrix and a vector each, in float64."
    rng = torch.Generator().manual_seed(seed)
    def parameter(*shape): return nn.Parameter(torch.randn(*shape, generator=rng, dtype=torch.float64))
    return {name: [parameter(3, 2), parameter(3)] for name in ("low", "middle", "high")}


def flat(of: dict[str, list[nn.Parameter]]) -> list[nn.Parameter]: return [p for ps in of.values() for p in ps]


def quadratic(params: list[nn.Parameter], seed: int) -> Tensor:
    "A loss whose gradient is another in every step and for every element."
    rng = torch.Generator().manual_seed(100 + seed)
    def goal(p): return torch.randn(p.shape, generator=rng, dtype=p.dtype)
    return sum((i + 1) * (p - goal(p)).square().sum() for i, p in enumerate(params))


def take(optimizer: torch.optim.Optimizer, objective: Tensor, clip: float = 0.0) -> float:
    return step(SimpleNamespace(objective=objective, value=objective.detach()), optimizer, clip, "step 1")


TORCHS = dict(adam=lambda parts: torch.optim.Adam(parts, foreach=False, fused=False),
              adamw=lambda parts: torch.optim.AdamW(parts, foreach=False, fused=False),
              sgd=lambda parts: torch.optim.SGD(parts, foreach=False, fused=False),
              ntasgd=lambda parts: torch.optim.SGD(parts, foreach=False, fused=False))  # until it averages, it is SGD


@pytest.mark.parametrize("decay_vectors", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_steps_equal_torchs_own_with_each_groups_rate_and_decay(name, decay_vectors):
    "Five steps at one rate, discriminative factors 1/4, 1/2 and 1; decay of vectors as set."
    ours, theirs = groups(), groups()
    optimizer = build(ours, Optimization(name, lr=0.02, beta1=0.7, beta2=0.9, eps=1e-3, weight_decay=0.1,
                                         decay_vectors=decay_vectors, discriminative=2))
    adam = dict(betas=(0.7, 0.9), eps=1e-3) if name.startswith("adam") else {}
    def decay(p): return 0.1 if decay_vectors or p.dim() > 1 else 0.0
    other = TORCHS[name]([dict(params=[p], lr=0.02 * factor, weight_decay=decay(p), **adam)
                          for ps, factor in zip(theirs.values(), (0.25, 0.5, 1)) for p in ps])
    for n in range(5):
        set_rate(optimizer, 0.02, 0.7)
        take(optimizer, quadratic(flat(ours), n))
        other.zero_grad()
        quadratic(flat(theirs), n).backward()
        other.step()
    bound = 1e-6 if name == "ntasgd" else 1e-12  # torch's ASGD keeps its rate in float32
    for a, b in zip(flat(ours), flat(theirs)): close(a, b, bound)


@pytest.mark.parametrize("name", NAMES)
def test_the_rate_that_is_set_is_that_of_this_step(name):
    "Not of the one before or after: a window's rate goes with its length (scale_rate)."
    ours, theirs = groups(), groups()
    optimizer = build(ours, Optimization(name, lr=1.0, beta1=0.7, beta2=0.9))
    adam = dict(betas=(0.7, 0.9)) if name.startswith("adam") else {}
    other = TORCHS[name]([dict(params=flat(theirs), lr=1.0, weight_decay=0.0, **adam)])
    for n, rate in enumerate([0.01, 0.05, 0.002]):
        set_rate(optimizer, rate, 0.7)
        take(optimizer, quadratic(flat(ours), n))
        other.param_groups[0]["lr"] = rate
        other.zero_grad()
        quadratic(flat(theirs), n).backward()
        other.step()
    for a, b in zip(flat(ours), flat(theirs)): close(a, b, 1e-6)


def test_the_first_beta_can_be_cycled_and_the_second_stays():
    optimizer = build(groups(), Optimization("adamw", beta1=0.7, beta2=0.9))
    set_rate(optimizer, 0.1, 0.85)
    assert {g["betas"] for g in optimizer.param_groups} == {(0.85, 0.9)}


def test_every_parameter_is_in_the_optimizer_once():
    ours = groups()
    found = [id(p) for g in build(ours, Optimization(decay_vectors=False)).param_groups for p in g["params"]]
    assert sorted(found) == sorted(map(id, flat(ours)))


def test_an_unknown_optimizer_is_refused_by_name():
    with pytest.raises(CliError, match="adagrad.*ntasgd"): build(groups(), Optimization("adagrad"))


# --- NT-ASGD ---

def asgd(lr: float = 0.01) -> tuple[list[nn.Parameter], torch.optim.Optimizer]:
    ours = groups()
    optimizer = build(ours, Optimization("ntasgd", lr=lr))
    take(optimizer, quadratic(flat(ours), 0))
    return flat(ours), optimizer


def begins(losses: list[float], nonmono: int) -> int | None:
    "Number of the evaluation after which averaging is on."
    _, optimizer = asgd()
    for k in range(len(losses)):
        maybe_average(optimizer, losses[:k + 1], nonmono)
        if averaging(optimizer): return k
    return None


@settings(deadline=None, max_examples=100)
@given(losses=st.lists(st.integers(0, 9).map(float), max_size=12), nonmono=st.integers(1, 6))
def test_averaging_begins_where_awd_lstm_lms_rule_says(losses, nonmono):
    "`len(best) > nonmono and val_loss > min(best[:-nonmono])`, `best` without the last (ulmfit.md, section 2)."
    assert begins(losses, nonmono) == reference.asgd_trigger(losses, nonmono)


def test_averaging_begins_with_the_first_worse_loss_where_none_is_waited_for():
    assert begins([3.0, 2.0, 2.5, 1.0], nonmono=0) == 2


def test_other_optimizers_never_average():
    ours = groups()
    optimizer = build(ours, Optimization("sgd"))
    take(optimizer, quadratic(flat(ours), 0))
    maybe_average(optimizer, [1.0, 2.0, 3.0, 4.0], 1)
    assert not averaging(optimizer)


def averaging_for(steps: int) -> tuple[list[nn.Parameter], torch.optim.Optimizer, list[list[Tensor]]]:
    "Parameters, optimizer and the weights after each of the steps since averaging began."
    params, optimizer = asgd()
    maybe_average(optimizer, [1.0, 2.0, 3.0, 4.0], 1)
    trail = []
    for n in range(steps):
        take(optimizer, quadratic(params, n + 1))
        trail.append([p.detach().clone() for p in params])
    return params, optimizer, trail


def test_averages_are_the_mean_of_the_weights_since_the_trigger():
    params, optimizer, trail = averaging_for(6)
    with averaged(optimizer):
        for p, history in zip(params, zip(*trail)): close(p.detach(), sum(history) / len(history), 1e-6)


def test_averages_stand_in_for_the_while_only():
    params, optimizer, trail = averaging_for(6)
    with averaged(optimizer): assert not any(torch.equal(p, w) for p, w in zip(params, trail[-1]))
    assert all(torch.equal(p, w) for p, w in zip(params, trail[-1]))


def test_own_weights_come_back_after_an_error():
    params, optimizer, trail = averaging_for(6)
    with pytest.raises(KeyError), averaged(optimizer): raise KeyError
    assert all(torch.equal(p, w) for p, w in zip(params, trail[-1]))


def test_before_the_trigger_the_weights_stand_for_themselves():
    params, optimizer = asgd()
    own = [p.detach().clone() for p in params]
    with averaged(optimizer): assert all(torch.equal(p, w) for p, w in zip(params, own))
    end_with_averages(optimizer)
    assert all(torch.equal(p, w) for p, w in zip(params, own))


def test_a_run_can_end_with_its_averages():
    params, optimizer, _ = averaging_for(6)
    with averaged(optimizer): averages = [p.detach().clone() for p in params]
    end_with_averages(optimizer)
    assert all(torch.equal(p, a) for p, a in zip(params, averages))


def test_a_run_in_which_a_group_never_learned_can_end_with_its_averages():
    ours = groups()
    optimizer, never = build(ours, Optimization("ntasgd", lr=0.01)), [p.detach().clone() for p in ours["low"]]
    freeze(SimpleNamespace(groups=ours), Phase(last=2))
    take(optimizer, quadratic(flat(ours), 0))
    maybe_average(optimizer, [1.0, 2.0, 3.0, 4.0], 1)
    with averaged(optimizer): pass
    end_with_averages(optimizer)
    assert all(torch.equal(p, w) for p, w in zip(ours["low"], never))


def test_steps_go_on_from_the_own_weights_after_an_evaluation():
    (params, optimizer, _), (others, undisturbed, _) = averaging_for(3), averaging_for(3)
    with averaged(optimizer): pass
    for ps, o in ((params, optimizer), (others, undisturbed)): take(o, quadratic(ps, 9))
    assert all(torch.equal(p, q) for p, q in zip(params, others))


# --- one step: freezing, clipping, divergence ---

@pytest.mark.parametrize("name", NAMES)
def test_a_frozen_group_does_not_move(name):
    "Not by decay, nor by the momentum of an earlier phase in which it learned."
    ours = groups()
    task, optimizer = SimpleNamespace(groups=ours), build(ours, Optimization(name, lr=0.01, weight_decay=0.1))
    for n in range(3): take(optimizer, quadratic(flat(ours), n))
    before = {name: [p.detach().clone() for p in ps] for name, ps in ours.items()}
    freeze(task, Phase(last=1))
    for n in range(3): take(optimizer, quadratic(flat(ours), n))
    moved = {name: [not torch.equal(p, w) for p, w in zip(ps, before[name])] for name, ps in ours.items()}
    assert moved == dict(low=[False, False], middle=[False, False], high=[True, True])


def test_an_unfrozen_group_learns_again():
    ours = groups()
    task, optimizer = SimpleNamespace(groups=ours), build(ours, Optimization("adam"))
    freeze(task, Phase(only=0))
    freeze(task, Phase())
    before = [p.detach().clone() for p in flat(ours)]
    take(optimizer, quadratic(flat(ours), 0))
    assert not any(torch.equal(p, w) for p, w in zip(flat(ours), before))


@pytest.mark.parametrize("clip, active", [(0.5, True), (1e6, False), (0.0, False)], ids=["clipped", "wide", "off"])
def test_the_gradient_is_clipped_by_the_norm_of_all_groups(clip, active):
    ours = groups()
    optimizer, before = build(ours, Optimization("sgd", lr=0.1)), [p.detach().clone() for p in flat(ours)]
    gradient = torch.autograd.grad(quadratic(flat(ours), 0), flat(ours))
    factor = clip / sum(g.square().sum() for g in gradient).sqrt() if active else 1
    take(optimizer, quadratic(flat(ours), 0), clip)
    for p, w, g in zip(flat(ours), before, gradient): close(p.detach(), w - 0.1 * factor * g, 1e-6)


def test_a_step_returns_the_loss_without_penalties_and_leaves_no_gradient():
    ours = groups()
    loss = SimpleNamespace(objective=quadratic(flat(ours), 0), value=torch.tensor(1.5))
    assert step(loss, build(ours, Optimization("sgd")), 0.0, "step 1") == 1.5
    assert all(p.grad is None for p in flat(ours))


def not_a_number(params): return quadratic(params, 0) * float("nan")
def infinite(params): return quadratic(params, 0) + float("inf")
def infinite_gradient(params): return (params[0] * 0).abs().sqrt().sum() + params[1].sum()


@pytest.mark.parametrize("clip", [0.0, 0.25])
@pytest.mark.parametrize("objective", [not_a_number, infinite, infinite_gradient], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_finite_ends_the_run_before_a_weight_changes(name, objective, clip):
    ours = groups()
    optimizer = build(ours, Optimization(name, lr=0.01))
    take(optimizer, quadratic(flat(ours), 0))
    before = [p.detach().clone() for p in flat(ours)]
    with pytest.raises(CliError, match="step 1.*diverged"): take(optimizer, objective(flat(ours)), clip)
    assert all(torch.equal(p, w) for p, w in zip(flat(ours), before))
