"""Weights at a quarter of their size, for a model that travels with the code: 8-bit rows with a scale each.

A matrix is kept as int8 with one float per row, so that its largest entry is 127; vectors are kept as they are. The
error of an entry is at most half a step: 1/254 of the largest of its row.
"""
import torch
from torch import Tensor

SCALE = ".scale"


def compact(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    "Each matrix (r, c) as int8 (r, c) and, under its name and `.scale`, float32 (r,)."
    out = {}
    for name, w in weights.items():
        if w.dim() != 2: out[name] = w
        else:
            scale = w.float().abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / 127
            out |= {name: (w / scale[:, None]).round().to(torch.int8), name + SCALE: scale}
    return out


def expand(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    "The weights as float32, from what `compact` made of them; other weights as they are."
    return {name: w * stored[name + SCALE][:, None] if name + SCALE in stored else w
            for name, w in stored.items() if not name.endswith(SCALE)}
