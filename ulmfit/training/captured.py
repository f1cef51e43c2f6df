"""Steps of a language model that the host does not wait for.

On a GPU a whole step (loss, backward pass, clipping, update) is recorded once for each window length as a CUDA graph
and then replayed: the host only hands over ids, rate and targets, and asks now and then how it went. A step that is
not finite changes nothing there either; if it is to end the run, no later one changes anything until that is seen.
On the CPU, where there is nothing to record, the same steps run as they are: so the tests hold them to `Eager`'s.
"""
import math
from collections.abc import Callable

import torch
from fastcore.basics import store_attr
from torch import Generator, Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Adam, Optimizer

from .step import carried, diverged

ASKED = 50  # steps between two questions to the device


def capturable(task, optimizer: Optimizer, schedule, ranks) -> bool:
    "Can a step be recorded? Windows of one width, Adam, momentum that stays, one process, a CUDA device."
    return (next(task.model.parameters()).is_cuda and task.unit == "tokens" and isinstance(optimizer, Adam)
            and not schedule.beta1_low and ranks.alone)


class Captured:
    "Steps as `Eager` takes them; what they add up is on the device until it is asked for."
    def __init__(self, task, optimizer: Adam, clip: float, skip: bool, rng: Generator):
        store_attr()
        self.device, self.value = next(task.model.parameters()).device, None
        self.graphs: dict[int, tuple[Callable, Tensor, Tensor]] = {}  # by window length: replay, ids, targets
        self.carry, self.waiting, self.pool = None, [], None
        for g in optimizer.param_groups:  # what a recorded step reads has its place in memory
            g["lr"], g["capturable"] = torch.tensor(float(g["lr"]), device=self.device), self.device.type == "cuda"
        def number(): return torch.zeros((), dtype=torch.float64, device=self.device)
        self.targets, self.sum, self.seen, self.skipped, self.loss = (number() for _ in range(5))
        self.bad = torch.full((3,), -1.0, dtype=torch.float64, device=self.device)  # first: which, loss, norm
        self.which = number()  # of the steps since the last question

    def __call__(self, batch, at: dict, where: str) -> dict:
        (x, y), targets = batch
        if self.carry is None:
            self.carry = carried(at["carry"], self.device) or self.task.model.encoder.initial_state(x.shape[1])
            self.carry = [tuple(s.clone() for s in layer) for layer in self.carry]
        if len(x) not in self.graphs: self.graphs[len(x)] = self.recorded(x.to(self.device), y.to(self.device))
        replay, ids, expected = self.graphs[len(x)]
        ids.copy_(x, non_blocking=True)
        expected.copy_(y, non_blocking=True)
        self.targets.fill_(targets)
        self.which.fill_(len(self.waiting))
        replay()
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

    def recorded(self, x: Tensor, y: Tensor) -> tuple[Callable, Tensor, Tensor]:
        "The step for windows of a length, with the memory from which it takes ids and targets."
        if self.device.type != "cuda": return lambda: self.step(x, y), x, y
        undo = self.kept()
        with torch.cuda.stream(side := torch.cuda.Stream()):  # libraries set themselves up at the first call
            side.wait_stream(torch.cuda.current_stream())
            self.step(x, y)
        torch.cuda.current_stream().wait_stream(side)
        undo()
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.rng)
        with torch.cuda.graph(graph, pool=self.pool): self.step(x, y)
        self.pool = graph.pool()
        return graph.replay, x, y

    def kept(self) -> Callable[[], None]:
        "A function that puts back, in their places, weights, optimizer and figures as they are now."
        own = [*self.task.model.parameters(), *(s for layer in self.carry for s in layer), self.sum, self.seen,
               self.skipped, self.loss, self.bad]
        before, rng = [t.detach().clone() for t in own], self.rng.get_state()
        moments = {p: {k: v.clone() for k, v in state.items()} for p, state in self.optimizer.state.items()}

        @torch.no_grad()
        def undo():
            for t, b in zip(own, before): t.copy_(b)
            for p, state in self.optimizer.state.items():
                for k, v in state.items(): v.copy_(moments[p][k]) if p in moments else v.zero_()
            self.rng.set_state(rng)
        return undo
