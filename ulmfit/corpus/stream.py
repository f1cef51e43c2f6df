"""The language model's stream: documents one after another, cut into columns and windows.

A batch is a pure function of (seed, epoch, number of the window): the state to save is these numbers.
No (token, next token) pair is lost and none is repeated, for any batch size and window: N tokens have N-1 pairs, the
columns share them evenly, and where some columns are one pair shorter the last window's missing target is IGNORE.
"""
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from fastcore.script import CliError
from torch import Tensor

from .store import Documents

IGNORE = -100
AT_ONCE = 1 << 16  # ids that are gathered, and go to the device, together
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Windows:
    """How long a window of backpropagation through time is.

    `merity` draws it around bptt (95%) or bptt/2 (5%), from a normal with deviation 5; it is at least 5.
    """
    bptt: int = 70  # tokens of a window
    draw: str = field(default="fixed", metadata=dict(choices=("fixed", "merity")))  # fixed | merity (random)

    def lengths(self, total: int, rng: np.random.Generator) -> list[int]:
        "Window lengths that add up to `total` steps."
        if self.draw == "fixed": return [min(self.bptt, total - i) for i in range(0, total, self.bptt)]
        lengths, left = [], total
        while left:
            mean = self.bptt if rng.random() < 0.95 else self.bptt / 2
            lengths.append(min(left, max(5, int(rng.normal(mean, 5)))))
            left -= lengths[-1]
        return lengths


def on_device(ids: np.ndarray, device: torch.device) -> Tensor:
    "A GPU takes them from memory that stays where it is, or the host would wait."
    found = torch.from_numpy(ids)
    return found if device.type == "cpu" else found.pin_memory().to(device, non_blocking=True)


@dataclass(frozen=True)
class Streaming:
    "How a corpus becomes batches for a language model."
    batch: int = 64  # columns
    shuffle: bool = True  # documents in a new order each epoch
    scale_rate: bool = False  # a window's rate in proportion to its length (awd-lstm-lm)


class LanguageModelStream:
    """Batches `(x, y)`, each (t, b), of consecutive windows; the same column goes on in the same place.

    `part(n)` says which of `n` columns are read, where processes share them: all of them, `[:n]`, if there is one.
    """
    def __init__(self, docs: Documents, batch: int, windows: Windows = Windows(), shuffle: bool = False,
                 backwards: bool = False, seed: int = 0, part: Callable[[int], slice] = slice,
                 device: torch.device = CPU):
        self.docs, self.windows = docs.select(np.flatnonzero(docs.lengths)), windows
        self.shuffle, self.backwards, self.seed, self.device = shuffle, backwards, seed, device
        self.tokens = int(self.docs.lengths.sum())
        pairs = self.tokens - 1
        if pairs < 1: raise CliError("a split has fewer than two tokens: nothing for a language model")
        self.batch = min(batch, pairs)
        share, extra = divmod(pairs, self.batch)
        self.here, self.steps = part(self.batch), share + (extra > 0)
        self.stretch = AT_ONCE // self.batch  # so many steps are gathered together, one window at least
        columns = np.arange(self.batch)[self.here]
        self.column_start, self.column_length = columns * share + np.minimum(columns, extra), share + (columns < extra)

    def _order(self, epoch: int) -> Documents:
        if not self.shuffle: return self.docs
        return self.docs.select(np.random.default_rng([self.seed, epoch, 1]).permutation(len(self.docs)))

    def lengths(self, epoch: int) -> list[int]:
        "The epoch's window lengths."
        return self.windows.lengths(self.steps, np.random.default_rng([self.seed, epoch, 2]))

    def targets(self, epoch: int) -> list[int]:
        "How many targets each of the epoch's windows has in all columns: in the last step, some may have none."
        *whole, last = [t * self.batch for t in self.lengths(epoch)]
        return [*whole, last - (self.steps * self.batch - (self.tokens - 1))]

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        "The epoch's batches from the window `start` on, each a view of a stretch of windows on the device."
        docs, lengths = self._order(epoch), self.lengths(epoch)
        doc_starts, sizes = docs.starts, docs.lengths
        doc_ends = np.cumsum(sizes)
        ends = np.cumsum(lengths)
        while start < len(lengths):
            first = ends[start] - lengths[start]
            stop = max(start + 1, int(np.searchsorted(ends, first + self.stretch, side="right")))
            step = np.arange(first, ends[stop - 1] + 1)[:, None]
            position = np.minimum(self.column_start + step, self.tokens - 1)
            doc = np.searchsorted(doc_ends, position, side="right")
            offset = position - (doc_ends[doc] - sizes[doc])
            # backwards, a document keeps its first token (the start marker) and reverses the others
            if self.backwards: offset = np.where(offset == 0, 0, sizes[doc] - offset)
            ids = docs.take(doc_starts[doc] + offset)
            targets = np.where(step[1:] > self.column_length, IGNORE, ids[1:])
            x, y = (on_device(a, self.device) for a in (ids[:-1], targets))
            yield from zip(x.split(lengths[start:stop]), y.split(lengths[start:stop]))
            start = stop
