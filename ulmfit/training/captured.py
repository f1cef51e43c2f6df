"""Steps of a language model that the host does not wait for.

On a GPU a whole step (loss, backward pass, clipping, update) is recorded once for each window length as a CUDA graph
and then replayed: the host only hands over ids, rate and targets, and asks now and then how it went. A step that is
not finite changes nothing there either; if it is to end the run, no later one changes anything until that is seen.
On the CPU, where there is nothing to record, the same steps run as they are: so the tests hold them to `Eager`'s.
"""
import math, warnings
from collections.abc import Callable

import torch
from fastcore.basics import store_attr
from torch import Generator, Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Adam, Optimizer

from .step import carried, diverged

ASKED = 50  # steps between two questions to the device
warnings.filterwarnings("ignore", "This instance was constructed with capturable=True")  # first windows


def capturable(task, optimizer: Optimizer, schedule, ranks) -> bool:
    """Can a step be recorded? Windows of one width, Adam, momentum that stays, one process, a CUDA device.

    Not where the same bits are wanted every time: some of torch's ways to them ask the host.
    """
    return (next(task.model.parameters()).is_cuda and task.unit == "tokens" and isinstance(optimizer, Adam)
            and not schedule.beta1_low and ranks.alone and task.model.encoder.kernels.recorded
            and not torch.are_deterministic_algorithms_enabled())


class Captured:
    """Steps as `Eager` takes them; what they add up is on the device until it is asked for.

    The first window of a length runs as it is, which sets libraries and optimizer up; the second is recorded.
    """
    def __init__(self, task, optimizer: Adam, clip: float, skip: bool, rng: Generator):
        store_attr()
        self.device, self.value = next(task.model.parameters()).device, math.nan
        self.on_gpu = self.device.type == "cuda"
        self.given: dict[int, tuple[Tensor, Tensor]] = {}  # by window length: where a step finds ids and targets
        self.replay: dict[int, Callable] = {}
        self.carry, self.waiting, self.pool = None, [], None
        for g in optimizer.param_groups:  # what a recorded step reads has its place in memory
            g["lr"], g["capturable"] = torch.tensor(float(g["lr"]), device=self.device), self.on_gpu
        def number(): return torch.zeros((), dtype=torch.float64, device=self.device)
        self.targets, self.sum, self.seen, self.skipped, self.loss = (number() for _ in range(5))
        self.bad = torch.full((3,), -1.0, dtype=torch.float64, device=self.device)  # first: which, loss, norm
        self.which = number()  # of the steps since the last question

    def begin(self, at: dict):
        "Before an epoch or the rest of one: its hidden state in the place of the last one's."
        if at["carry"] is None:
            for layer in self.carry or []:
                for s in layer: s.zero_()
        else:
            new = carried(at["carry"], self.device)
            self.carry = self.carry or [tuple(map(torch.empty_like, layer)) for layer in new]
            for mine, theirs in zip(self.carry, new):
                for m, t in zip(mine, theirs): m.copy_(t)

    def __call__(self, batch, at: dict, where: str) -> dict:
        (x, y), targets = batch
        if self.carry is None:
            zeros = self.task.model.encoder.initial_state(x.shape[1])
            self.carry = [tuple(s.clone() for s in layer) for layer in zeros]
        if again := len(x) in self.given: mine = self.given[len(x)]
        else: mine = self.given[len(x)] = tuple(torch.empty_like(t, device=self.device) for t in (x, y))
        for m, t in zip(mine, (x, y)): m.copy_(t, non_blocking=True)
        self.targets.fill_(targets)
        self.which.fill_(len(self.waiting))
        if again and self.on_gpu and len(x) not in self.replay: self.replay[len(x)] = self.recorded(*mine)
        self.replay.get(len(x), lambda: self.step(*mine))()
        self.waiting.append(where)
        counted = dict(count=at["count"] + targets)
        return counted | (self.settled(at) if len(self.waiting) >= ASKED else {})

    def settled(self, at: dict) -> dict:
        "What has become of the steps since the last question; CliError if one of them was to end the run."
        if not self.waiting: return {}
        figures = torch.stack([self.sum, self.seen, self.skipped, self.loss, *self.bad]).tolist()
        total, seen, skipped, self.value, bad, loss, norm = figures
        if bad >= 0 and not self.skip: raise diverged(self.waiting[int(bad)], loss, norm)
        for t in (self.sum, self.seen, self.skipped): t.zero_()
        self.bad.fill_(-1.0)
        self.waiting = []
        return dict(sum=at["sum"] + total, seen=at["seen"] + int(seen), skipped=at["skipped"] + int(skipped),
                    carry=[tuple(s.clone() for s in layer) for layer in self.carry])

    def step(self, x: Tensor, y: Tensor):
        "One step on the device alone: no branch and no figure comes back."
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.task.loss(((x, y), x.numel()), self.carry, self.rng)
        loss.objective.backward()
        params = [p for g in self.optimizer.param_groups for p in g["params"] if p.grad is not None]
        norm = clip_grad_norm_(params, self.clip or math.inf, foreach=True)
        objective = loss.objective.detach()
        good = objective.isfinite() & norm.isfinite()
        if not self.skip: good = good & (self.bad[0] < 0)
        self.optimizer.grad_scale, self.optimizer.found_inf = None, (~good).float()  # the fused update heeds it
        self.optimizer.step()
        for old, new in zip(self.carry, loss.state):
            for o, n in zip(old, new): o.copy_(torch.where(good, n, o))
        first = ~good & (self.bad[0] < 0)
        self.bad.copy_(torch.where(first, torch.stack([self.which, objective.double(), norm.double()]), self.bad))
        self.sum += torch.where(good, loss.value.double() * self.targets, 0.0)
        self.seen += torch.where(good, self.targets, 0.0)
        self.skipped += ~good
        self.loss.copy_(loss.value)

    def recorded(self, x: Tensor, y: Tensor) -> Callable:
        "The step for windows of a length as a graph, which takes ids and targets from where they are now."
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.rng)
        with torch.cuda.graph(graph, pool=self.pool): self.step(x, y)
        self.pool = graph.pool()
        return graph.replay
