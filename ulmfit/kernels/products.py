"""Products of matrices that lie as the CPU is fastest at reading them.

Where it has a matrix unit (AMX), oneDNN takes two to four times as long for an operand that is a transposed view. A GPU
takes both alike.
"""
import torch
from torch import Tensor

from . import native


def transposed(a: Tensor) -> Tensor: return a.T if a.is_cuda else a.T.contiguous()


def add_weight_gradient(out: Tensor, d: Tensor, x: Tensor):
    "`out` (n, e) += `d.T @ x`, of outputs' gradients `d` (m, n) and inputs `x` (m, e)."
    if d.is_cuda: out += d.T @ x
    else: native.add_transposed(out, transposed(x) @ d)
