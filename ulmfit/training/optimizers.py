"""Optimizers are torch's; here they get the layer groups' rates, and NT-ASGD its trigger."""
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from fastcore.script import CliError
from torch import Tensor, nn
from torch.optim import ASGD, SGD, Adam, AdamW, Optimizer

NOT_YET = 1e12  # torch's ASGD averages from step t0 on: never


KINDS = ("adam", "adamw", "sgd", "ntasgd")


@dataclass(frozen=True)
class Optimization:
    "How weights move."
    optimizer: str = field(default="adam", metadata=dict(choices=KINDS))  # adam (L2 decay) | adamw | sgd | ntasgd
    lr: float = 0.004  # of the last group, at its highest
    beta1: float = 0.7  # Adam's first beta (the paper's)
    beta2: float = 0.99  # Adam's second beta (the paper's)
    eps: float = 1e-8  # added to Adam's divisor
    weight_decay: float = 0.0  # L2 penalty; with adamw, decay beside the gradient
    decay_vectors: bool = True  # weight decay on biases and norms too
    clip: float = 0.0  # highest norm of the gradient (0: any)
    discriminative: float = 1.0  # rate of a group over that of the group below it (the paper's 2.6)
    rates: list = field(default_factory=list)  # or each group's factor, the first for all below: [0.1, 1.0]
    nonmono: int = 5  # ntasgd: evaluations without a better one before averaging begins


def group_factors(o: Optimization, groups: int) -> list[float]:
    """Discriminative fine-tuning (section 3.2): each group's factor on the rate.

    Of fewer factors than groups the first stands for all that are left below.
    """
    if not all(isinstance(r, (int, float)) and 0 <= r < math.inf for r in o.rates):
        raise CliError(f"--rates {o.rates}: give numbers, none below 0")
    if len(o.rates) > groups: raise CliError(f"--rates has {len(o.rates)} factors, the model has {groups} groups")
    if o.rates: return [o.rates[0]] * (groups - len(o.rates)) + o.rates
    return [o.discriminative ** (i + 1 - groups) for i in range(groups)]


def build(groups: dict[str, list[nn.Parameter]], o: Optimization) -> Optimizer:
    "The optimizer; each of its groups has a `factor` that the loop multiplies the rate by."
    parts = []
    for params, factor in zip(groups.values(), group_factors(o, len(groups))):
        matrices, vectors = [p for p in params if p.dim() > 1], [p for p in params if p.dim() <= 1]
        parts += [dict(params=ps, factor=factor, weight_decay=o.weight_decay if decays else 0.0)
                  for ps, decays in ((matrices, True), (vectors, o.decay_vectors)) if ps]
    kinds = dict(adam=lambda: Adam(parts, o.lr, (o.beta1, o.beta2), o.eps, fused=True),
                 adamw=lambda: AdamW(parts, o.lr, (o.beta1, o.beta2), o.eps, fused=True),
                 sgd=lambda: SGD(parts, o.lr),
                 ntasgd=lambda: ASGD(parts, o.lr, lambd=0.0, alpha=0.0, t0=NOT_YET))
    if o.optimizer not in kinds:
        raise CliError(f"no optimizer is called {o.optimizer!r}; there are: {', '.join(kinds)}")
    try: return kinds[o.optimizer]()
    except ValueError as e: raise CliError(f"{o.optimizer} cannot have these settings: {e}") from None


def set_rate(optimizer: Optimizer, lr: float, beta1: float):
    "The rate of this step, group by group, and Adam's first beta."
    for g in optimizer.param_groups:
        if isinstance(g["lr"], Tensor): g["lr"].fill_(lr * g["factor"])  # in its place: a recorded step reads it
        else: g["lr"] = lr * g["factor"]
        if "betas" in g: g["betas"] = (beta1, g["betas"][1])
        for p in g["params"]:  # torch's ASGD has the rate of the step before in its state
            if "eta" in (state := optimizer.state.get(p, {})): state["eta"].fill_(g["lr"])


def averaging(optimizer: Optimizer) -> bool:
    return isinstance(optimizer, ASGD) and optimizer.param_groups[0]["t0"] < NOT_YET


def maybe_average(optimizer: Optimizer, losses: list[float], nonmono: int):
    """NT-ASGD's trigger (Merity et al. 2018, algorithm 1).

    Average from here on if the last loss is worse than the best of those `nonmono` ago.
    """
    *past, last = losses
    waiting = isinstance(optimizer, ASGD) and not averaging(optimizer)
    if waiting and len(past) > nonmono and last > min(past[:len(past) - nonmono]):
        steps = max(float(s["step"]) for s in optimizer.state.values())
        for g in optimizer.param_groups: g["t0"] = steps - 1


@contextmanager
def averaged(optimizer: Optimizer) -> Iterator[None]:
    "The averaged weights for the while; without averaging, nothing changes."
    if not averaging(optimizer):
        yield
        return
    params = [p for g in optimizer.param_groups for p in g["params"] if "ax" in optimizer.state.get(p, {})]
    own = [p.detach().clone() for p in params]
    with torch.no_grad():
        for p in params: p.copy_(optimizer.state[p]["ax"])
        try: yield
        finally:
            for p, w in zip(params, own): p.copy_(w)


@torch.no_grad()
def end_with_averages(optimizer: Optimizer):
    "Put the averaged weights, if there are any, in the place of the last ones."
    if averaging(optimizer):
        for p, state in optimizer.state.items(): p.copy_(state["ax"])
