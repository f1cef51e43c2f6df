"""Data parallel: several processes on one run, each with its share of every batch, all with the same weights.

    torchrun --nproc-per-node 2 -m ulmfit.pretrain …

`--batch` is that of all processes together. Losses are weighted so that their sum over the processes is that of the
whole batch, and so is the sum of the gradients; masks are drawn for the whole batch and each process takes its part:
what is learnt does not depend on how many processes there are.
"""
import hashlib, io, os, sys
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from fastcore.script import CliError
from torch import Tensor

PATIENCE = timedelta(hours=1)  # for a process that hangs; one that has ended is noticed at once


@dataclass(frozen=True)
class Ranks:
    "Which of how many processes this one is. Alone, it has all of everything, and nothing is sent."
    rank: int = 0
    size: int = 1
    local: int = 0  # its number on its machine

    @property
    def alone(self) -> bool: return self.size == 1
    @property
    def leads(self) -> bool: return self.rank == 0

    def part(self, n: int) -> slice:
        "Its contiguous part of `n` columns; sizes differ by one at most."
        share, more = divmod(self.enough(n), self.size)
        start = self.rank * share + min(self.rank, more)
        return slice(start, start + share + (self.rank < more))

    def dealt(self, n: int) -> slice:
        "Its part of `n` documents, dealt like cards: they are sorted by length, and the work is to be equal."
        return slice(self.rank, self.enough(n), self.size)

    def enough(self, n: int) -> int:
        "`n`, if each process gets something."
        if n < self.size: raise CliError(f"a batch of {n} is too small for {self.size} processes; start {n} at most, "
                                         "or raise --batch (for documents, --train-tokens too)")
        return n

    def sum(self, x: Tensor) -> Tensor:
        "The sum of all processes' `x`, in its place; CPU tensors go by gloo, those of a GPU by NCCL."
        if not self.alone:
            with together(): dist.all_reduce(x)
        return x

    def sum_gradients(self, gradients: list[Tensor], *numbers: Tensor) -> tuple[Tensor, ...]:
        """Gradients summed in place, and the sums of some numbers.

        All at once after the backward pass, instead of by DistributedDataParallel during it: the largest gradient by
        far, of the tied embedding, is whole only when that pass ends, and which groups learn changes with the phase.
        """
        if self.alone: return numbers
        flat = self.sum(torch.cat([*(g.flatten() for g in gradients), torch.stack(numbers).to(gradients[0])]))
        *summed, numbers = flat.split([*(g.numel() for g in gradients), len(numbers)])
        for g, s in zip(gradients, summed): g.copy_(s.view_as(g))
        return numbers.unbind()

    def whole(self, x: Tensor, at: slice, n: int) -> Tensor:
        "`n` rows of which this process has those `at`; differentiable, if all make the same of them."
        return x if self.alone else Whole.apply(x, at, n, self)

    def joined(self, states):
        "The hidden state (layers of tuples, (b, …) each) of all columns, from each process's own."
        if self.alone or states is None: return states
        n = int(self.sum(torch.tensor(len(states[0][0]))))
        return [tuple(self.whole(s, self.part(n), n) for s in layer) for layer in states]

    def own(self, states):
        "This process's columns of the hidden state."
        if self.alone or states is None: return states
        return [tuple(s[self.part(len(s))] for s in layer) for layer in states]

    def highest(self, *numbers: int) -> tuple[int, ...]:
        "Of each number the highest that a process has."
        if self.alone: return numbers
        found = torch.tensor(numbers)
        with together(): dist.all_reduce(found, dist.ReduceOp.MAX)
        return tuple(found.tolist())

    def wait(self):
        "Until all have come here."
        self.highest(0)

    def check_alike(self, what: str, value):
        "CliError where a plain value is not the same in all processes."
        number = int(hashlib.sha256(repr(value).encode()).hexdigest()[:12], 16)
        if self.highest(number, -number) != (number, -number):
            raise CliError(f"the processes differ in their {what}; start all by the same command, "
                           "with the data and the folder --out where all can see them")

    @contextmanager
    def in_turn(self):
        """What the first process may have to make and the others then find.

        It goes first, and says what there is to say; then one on each other machine; then the rest.
        """
        turn = 0 if self.leads else 1 if self.local == 0 else 2
        for _ in range(turn): self.wait()
        with nullcontext() if self.leads else redirect_stderr(io.StringIO()): yield
        for _ in range(turn, 2): self.wait()

    def leave(self):
        "At the end, once all have come there: where one process ends badly, torchrun ends the others as they write."
        if self.alone: return
        self.wait()
        dist.destroy_process_group()


class Whole(torch.autograd.Function):
    "Rows of all processes. All compute the same loss of them and count 1/size of it; the gradient makes up for that."
    @staticmethod
    def forward(ctx, x, at, n, ranks):
        ctx.at, ctx.size = at, ranks.size
        out = x.new_zeros(n, *x.shape[1:])
        out[at] = x
        return ranks.sum(out)

    @staticmethod
    def backward(ctx, grad): return grad[ctx.at] * ctx.size, None, None, None


def join(device: torch.device) -> tuple[Ranks, torch.device]:
    """This process's place among those that torchrun has started, and its device; without torchrun it is alone.

    On the CPU they speak by gloo, on GPUs by NCCL (plain numbers by gloo there too: the GPU is not waited for).
    Standard output is the first one's.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ or int(os.environ["WORLD_SIZE"]) == 1: return Ranks(), device
    ranks = Ranks(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    if device.index is not None:
        raise CliError(f"--device {device} is one device for {ranks.size} processes; give --device {device.type}")
    if device.type == "cuda":
        if ranks.local >= torch.cuda.device_count():
            raise CliError(f"there are {torch.cuda.device_count()} GPUs here; start so many processes at most")
        torch.cuda.set_device(device := torch.device("cuda", ranks.local))
    if not ranks.leads: sys.stdout = open(os.devnull, "w")
    backends = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    with together(): dist.init_process_group(backends, timeout=PATIENCE)
    return ranks, device


@contextmanager
def together():
    "Around what all processes take part in: where one has ended, the others end with a line."
    try: yield
    except RuntimeError as e:
        why = str(e).splitlines()[0].split("] ", 1)[-1]  # without the place in the library
        raise CliError("another process of this run has ended or does not answer; the same command goes on from the "
                       f"last checkpoint ({why})") from e
