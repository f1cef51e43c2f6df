"""Products with a transposed operand, as the processor is fastest at them.

In bf16 a processor with a matrix unit (AMX) takes two to four times as long where oneDNN has to copy such an operand;
in other types, and on a GPU, it is as fast as any.
"""
import torch
from torch import Tensor

from . import native


def better_copied(a: Tensor) -> bool: return a.dtype == torch.bfloat16 and a.device.type == "cpu"


def transposed(a: Tensor) -> Tensor: return a.T.contiguous() if better_copied(a) else a.T


def add_weight_gradient(out: Tensor, d: Tensor, x: Tensor):
    """`out` (n, e) += `d.T @ x`, of outputs' gradients `d` (m, n) and inputs `x` (m, e).

    Columns of `d` beyond n are filling: they are multiplied, on a GPU for its sake, and left out.
    """
    if better_copied(d): native.add_transposed(out, transposed(x) @ d[:, :len(out)])
    else: out += (d.T @ x)[:len(out)]
