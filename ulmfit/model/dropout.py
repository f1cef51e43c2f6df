"""AWD-LSTM's three dropouts (Merity et al. 2018, section 4) and the plain one, each a function of its mask's generator.

`rng` is the generator that draws the masks (None: torch's default). A module that is not training does not call these.
"""
import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor


class Columns(NamedTuple):
    """Which columns of a batch are here, where processes share it: those `at` (a slice, or their numbers) of `of`.

    Each process draws the whole batch's masks from the same generator and takes its part of them: what a batch is
    dropped by does not depend on the processes, and their generators never part.
    """
    at: slice | Tensor
    of: int


def mask_generator(seed: int, device: torch.device) -> Generator:
    "What a run draws its masks from: a stream of its own, as order and windows have; `seed` itself draws the weights."
    return Generator(device).manual_seed(int(np.random.default_rng([seed, 0xD0]).integers(2 ** 63)))


def mask(shape: tuple[int, ...], p: float, like: Tensor, rng: Generator | None = None) -> Tensor:
    """Zeros with probability `p`, else 1/(1-p): multiplying by it keeps the mean.

    32 random bits decide on an element; on the CPU that takes a quarter of the time of `bernoulli_`.
    """
    n = math.prod(shape)
    bits = torch.empty((n + 1) // 2, dtype=torch.int64, device=like.device).random_(-2 ** 63, None, generator=rng)
    kept = bits.view(torch.int32)[:n].view(shape) >= round(p * 2 ** 32) - 2 ** 31
    return kept * like.new_full((), 1 / (1 - p) if p < 1 else 0.0)  # filled there: nothing is sent to a GPU


def dropout(x: Tensor, p: float, rng: Generator | None = None) -> Tensor:
    "Each element on its own; on a recurrent weight this is DropConnect (weight dropout)."
    return x * mask(tuple(x.shape), p, x, rng) if p else x


def locked_dropout(x: Tensor, p: float, rng: Generator | None = None, columns: Columns | None = None) -> Tensor:
    "Variational dropout of (t, b, h): one mask (b, h) for all time steps."
    locked = locked_mask(x.shape[1], x.shape[2], p, x, rng, columns)
    return x if locked is None else x * locked


def locked_mask(b: int, h: int, p: float, like: Tensor, rng: Generator | None = None,
                columns: Columns | None = None) -> Tensor | None:
    "Variational dropout's mask (1, b, h), None where nothing is dropped."
    if not p: return None
    if columns is None: return mask((1, b, h), p, like, rng)
    return mask((1, columns.of, h), p, like, rng)[:, columns.at]


def embed(ids: Tensor, weight: Tensor, p: float = 0.0, rng: Generator | None = None) -> Tensor:
    "Rows of `weight` (v, e) for `ids` (t, b); with `p`, whole words vanish, each at all its places in the batch."
    x = F.embedding(ids, weight)
    return x * mask((len(weight), 1), p, weight, rng)[ids] if p else x
