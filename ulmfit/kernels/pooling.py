"""Concat pooling (section 3.3) and what AR and TAR of the pooled outputs need, in one pass over them and one back.

The outputs come as the encoder gives them, window by window: those of the documents that reach into it.
Axes: t time, b batch, h hidden.
"""
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from . import native


class Window(NamedTuple):
    "Outputs of consecutive steps."
    active: Tensor  # the documents (a) that reach into it
    out: Tensor  # (t, a, h)


class Pooled(NamedTuple):
    "What becomes of a batch's outputs; padding takes no part."
    vectors: Tensor  # [h_T, maxpool, meanpool] (b, 3h)
    squares: Tensor  # sum of the outputs' squares: AR
    changes: Tensor  # sum of the squares of their changes from step to step: TAR


def joined(windows: Sequence[Window], b: int, dtype: torch.dtype) -> Tensor:
    "The outputs of all windows (t, b, h); zeros where a document has ended."
    def whole(active, out):
        return out if len(active) == b else out.new_zeros(len(out), b, out.shape[2]).index_copy(1, active, out)
    return torch.cat([whole(active, out.to(dtype)) for active, out in windows])


def pool_reference(windows: Sequence[Window], lengths: Tensor, dtype: torch.dtype) -> Pooled:
    "As it is written down; see `pool`."
    x = joined(windows, len(lengths), dtype)
    real = (torch.arange(len(x), device=x.device)[:, None] < lengths)[:, :, None]
    last = x[lengths - 1, torch.arange(x.shape[1], device=x.device)]
    highest = x.masked_fill(~real, -torch.inf).amax(dim=0)
    mean = (x * real).sum(dim=0) / lengths[:, None]
    steps = (x[1:] - x[:-1]) * real[1:]
    return Pooled(torch.cat([last, highest, mean], dim=1), (x * real).square().sum(), steps.square().sum())


class Pool(torch.autograd.Function):
    "In C++, document by document; of equal highest outputs the first has the gradient."
    @staticmethod
    def forward(ctx, lengths, places, *outputs):
        b, h = len(lengths), outputs[0].shape[2]
        pooled, when, sums = (torch.empty(*size) for size in ((b, 3 * h), (b, h), (b, 2)))
        native.call(native.function("pool_forward", outputs[0]), addresses(outputs), widths(outputs), places, lengths,
                    pooled, when, sums, len(outputs[0]), b, h)
        ctx.save_for_backward(lengths, places, when, *outputs)
        return pooled, *sums.sum(dim=0)

    @staticmethod
    def backward(ctx, dpooled, dsquares, dchanges):
        lengths, places, when, *outputs = ctx.saved_tensors
        d = [torch.empty_like(out) for out in outputs]
        native.call(native.function("pool_backward", outputs[0]), addresses(outputs), addresses(d), widths(outputs),
                    places, lengths, dpooled.contiguous(), when, torch.stack([dsquares, dchanges]),
                    sum(map(len, outputs)), len(outputs[0]), *when.shape)
        return None, None, *d


def addresses(tensors: Sequence[Tensor]) -> Tensor: return torch.tensor([t.data_ptr() for t in tensors])


def widths(tensors: Sequence[Tensor]) -> Tensor: return torch.tensor([t.shape[1] for t in tensors])


def pool(windows: Sequence[Window], lengths: Tensor, dtype: torch.dtype) -> Pooled:
    """Pool the first `lengths` (b) outputs of each document; `dtype` is the vectors'.

    All windows but the last have the same number of steps.
    """
    if dtype != torch.float32 or native.function("pool_forward", windows[0].out) is None:
        return pool_reference(windows, lengths, dtype)
    places = lengths.new_full((len(windows), len(lengths)), -1)
    for place, (active, _) in zip(places, windows): place[active] = torch.arange(len(active))
    return Pooled(*Pool.apply(lengths, places, *(out.contiguous() for _, out in windows)))
