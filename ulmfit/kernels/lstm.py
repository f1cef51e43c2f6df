"""One LSTM layer over a whole window: torch's fused one (oneDNN, on a GPU cuDNN), and the plain recurrence it equals.

Weights are arguments, so a dropped matrix is passed like any other and no parameter is ever patched.
"""
import torch
from torch import Tensor

State = tuple[Tensor, Tensor]


def lstm_reference(x: Tensor, state: State, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor,
                   b_hh: Tensor) -> tuple[Tensor, State]:
    "The recurrence as it is written down; gates in the order input, forget, cell, output."
    h, c = state
    out = []
    for gates in x @ w_ih.T + (b_ih + b_hh):
        i, f, g, o = (gates + h @ w_hh.T).chunk(4, dim=-1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        out.append(h)
    return torch.stack(out), (h, c)


def lstm_fused(x: Tensor, state: State, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor) -> tuple[Tensor, State]:
    "torch's own layer."
    h, c = (s.unsqueeze(0).to(x.dtype) for s in state)
    keep_for_backward = torch.is_grad_enabled()
    out, h, c = torch.lstm(x, (h, c), (w_ih, w_hh, b_ih, b_hh), True, 1, 0.0, keep_for_backward, False, False)
    return out, (h[0], c[0])


KERNELS = dict(fused=lstm_fused, reference=lstm_reference)


def lstm(x: Tensor, state: State, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor,
         kernel: str = "fused") -> tuple[Tensor, State]:
    """Outputs (t, b, hidden) and the last state.

    `x` (t, b, input), `state` two of (b, hidden), `w_ih` (4 hidden, input), `w_hh` (4 hidden, hidden).
    """
    return KERNELS[kernel](x, state, w_ih, w_hh, b_ih, b_hh)
