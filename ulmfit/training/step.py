"""One optimisation step, the same for every stage."""
import math

from fastcore.script import CliError
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
        raise CliError(f"{where}: loss {value:.4g}, gradient norm {float(norm):.4g}: "
                       "the run has diverged; lower --lr, set --clip, or pass over such steps with --on-nonfinite skip")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(loss_alone)
