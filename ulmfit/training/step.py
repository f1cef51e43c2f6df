"""One optimisation step, the same for every stage; and steps one after the other, each waited for."""
import math

from fastcore.basics import store_attr
from fastcore.script import CliError
from torch import Generator
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from .distributed import Ranks


def step(loss, optimizer: Optimizer, clip: float, where: str, skip: bool = False,
         ranks: Ranks = Ranks()) -> float | None:
    """Backward pass, clipping, update; a loss or gradient that is not finite touches no weight.

    It ends the run, CliError, or with `skip` the step alone. Returns the loss without penalties, None if skipped.
    Whatever is decided, is decided on sums over all processes, and so by all alike.
    """
    loss.objective.backward()
    params = [p for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
    objective, loss_alone = ranks.sum_gradients([p.grad for p in params], loss.objective.detach(), loss.value)
    norm = clip_grad_norm_(params, clip or math.inf, foreach=True)
    if not math.isfinite(value := float(objective)) or not math.isfinite(float(norm)):
        if skip: return optimizer.zero_grad(set_to_none=True)
        raise diverged(where, value, float(norm))
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(loss_alone)


def diverged(where: str, loss: float, norm: float) -> CliError:
    return CliError(f"{where}: loss {loss:.4g}, gradient norm {norm:.4g}: "
                    "the run has diverged; lower --lr, set --clip, or pass over such steps with --on-nonfinite skip")


def carried(state, device):
    "The hidden state on a device; None at the beginning."
    return None if state is None else [tuple(s.to(device) for s in layer) for layer in state]


class Eager:
    """Steps that are waited for. Called with a batch and where the run is, it returns what of that has changed.

    `value` is the last loss, not a number if that step was skipped.
    """
    def __init__(self, task, optimizer: Optimizer, clip: float, skip: bool, rng: Generator, ranks: Ranks):
        store_attr()
        self.device, self.value = next(task.model.parameters()).device, math.nan
        self.buffers = [*task.model.buffers()] if skip else []  # of batch norm, which a forward pass moves

    def begin(self, at: dict): "Before an epoch or the rest of one: nothing is to be done."

    def __call__(self, batch, at: dict, where: str) -> dict:
        before = [b.clone() for b in self.buffers]
        loss = self.task.loss(batch, carried(at["carry"], self.device), self.rng)
        value = step(loss, self.optimizer, self.clip, where, self.skip, self.ranks)
        counted, self.value = dict(count=at["count"] + loss.targets), math.nan if value is None else value
        if value is None:
            for b, kept in zip(self.buffers, before): b.copy_(kept)
            return counted | dict(skipped=at["skipped"] + 1)
        return counted | dict(carry=loss.state, sum=at["sum"] + value * loss.targets, seen=at["seen"] + loss.targets)

    def settled(self, at: dict) -> dict:
        "What a caller that asks has not been told yet: nothing."
        return {}
