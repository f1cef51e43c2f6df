"""One LSTM layer over a whole window, with its backward pass written out.

All that does not wait for the step before is one large product over the window: the inputs' part of the gates, and in
the backward pass every gradient but the states'. Between them a step costs one product with the recurrent matrix.

Weights are arguments, so a dropped matrix is passed like any other and no parameter is ever patched.
Axes: t time, b batch, h hidden.
"""
import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from . import native
from .products import add_weight_gradient, transposed

State = tuple[Tensor, Tensor]
warnings.filterwarnings("ignore", "RNN module weights")  # cuDNN copies a dropped matrix once more: that is known
ALIGNED = 8  # a GPU's matrix units want sizes in multiples of so many half-precision numbers


def lstm_reference(x: Tensor, state: State, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor,
                   b_hh: Tensor) -> tuple[Tensor, State]:
    "The recurrence as it is written down; gates in the order input, forget, cell, output."
    h, c, w_ih, w_hh, b_ih, b_hh = (a.to(x.dtype) for a in (*state, w_ih, w_hh, b_ih, b_hh))
    out = []
    for gates in x @ w_ih.T + (b_ih + b_hh):
        i, f, g, o = (gates + h @ w_hh.T).chunk(4, dim=-1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        out.append(h)
    return torch.stack(out), (h, c)


class Ready(NamedTuple):
    "A layer's weights as its steps take them: made once, they serve any number of windows."
    inputs: Tensor  # (input, 4h)
    recurrent: Tensor  # (4h, h), or packed for the C++
    bias: Tensor  # (4h), the sum of both


def ready(w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor) -> Ready:
    "From the matrices in the type of the products, and the biases in that of the state."
    bias = b_ih + b_hh
    return Ready(transposed(w_ih), native.packed(w_hh, bias), bias)


def forward_steps(gates: Tensor, weights: Ready, h: Tensor, c: Tensor):
    """All steps, in place: `gates` (t, b, 4h) has the inputs' part and gets the activations.

    `h`, `c` (t+1, b, h) have the state before the window and get those after each step.
    """
    size = c.shape[-1]
    if run := native.function("lstm_forward", gates, weights.bias, c):
        return native.call(run, gates, weights.bias, weights.recurrent, h, c, *c[1:].shape, h.shape[-1])
    bias, w = weights.bias.to(gates.dtype), weights.recurrent.T
    for t, step in enumerate(gates):
        step += torch.addmm(bias, h[t, :, :size], w)
        i, f, g, o = step.chunk(4, dim=-1)
        step[:, :2 * size].sigmoid_()
        g.tanh_()
        o.sigmoid_()
        torch.addcmul(f * c[t], i, g, out=c[t + 1])
        torch.mul(o, c[t + 1].tanh(), out=h[t + 1, :, :size])


def backward_steps(gates: Tensor, w: Tensor, c: Tensor, out: Tensor, last: Tensor, dc: Tensor) -> Tensor:
    """Gradient by the gates before their activation (t, b, 4h), in memory for a while (`native.scratch`).

    From those by the outputs `out` (t, b, h), the last output and the last cell (b, h); `dc` becomes the first cell's.
    """
    d = native.scratch(gates, *gates.shape)
    if run := native.function("lstm_backward", gates, c, last, dc):
        native.call(run, gates, w, c, out, last, dc, d, *c[1:].shape)
        return d
    dh = last
    for t in reversed(range(len(gates))):
        i, f, g, o = gates[t].to(dc.dtype).chunk(4, dim=-1)
        dh = dh + out[t]
        y = c[t + 1].tanh()
        dc += dh * o * (1 - y * y)
        torch.cat([dc * g * i * (1 - i), dc * c[t] * f * (1 - f), dc * i * (1 - g * g), dh * y * o * (1 - o)], dim=-1,
                  out=d[t])
        dc *= f
        dh = (d[t] @ w).to(dc.dtype)
    return d


def window(x: Tensor, h0: Tensor, c0: Tensor, weights: Ready) -> tuple[Tensor, Tensor, Tensor]:
    """States h (t+1, b, h, or one more) and c (t+1, b, h) from before the window on, and the gates' activations.

    `x` (t, b, input), `h0` and `c0` (b, h).
    """
    (t, b, _), size = x.shape, h0.shape[1]
    gates = (x.flatten(0, 1) @ weights.inputs).view(t, b, -1)
    h = x.new_zeros(t + 1, b, size + size % 2)  # an even number: bf16 is multiplied in pairs
    c = weights.bias.new_empty(t + 1, b, size)
    h[0, :, :size], c[0] = h0, c0
    forward_steps(gates, weights, h, c)
    return h, c, gates


class Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, h0, c0, w_ih, w_hh, b_ih, b_hh):
        w_ih, w_hh = (w.to(x.dtype) for w in (w_ih, w_hh))
        h, c, gates = window(x, h0, c0, ready(w_ih, w_hh, b_ih, b_hh))
        ctx.save_for_backward(x, h, c, gates, w_ih, w_hh)
        return h[1:, :, :h0.shape[1]], h[-1, :, :h0.shape[1]].to(b_ih.dtype), c[-1].clone()

    @staticmethod
    def backward(ctx, dout, dh, dc):
        x, h, c, gates, w_ih, w_hh = ctx.saved_tensors
        d = backward_steps(gates, w_hh, c, dout.contiguous(), dh.contiguous(), dc := dc.clone())
        flat, size = d.flatten(0, 1), c.shape[-1]
        wanted = ctx.needs_input_grad
        native.add_rows(bias := c.new_zeros(flat.shape[1]), flat)
        def of_weights(inputs: Tensor) -> Tensor:
            add_weight_gradient(out := c.new_zeros(flat.shape[1], inputs.shape[-1]), flat, inputs.flatten(0, 1))
            return out
        return ((flat @ w_ih).view_as(x) if wanted[0] else None,
                (d[0] @ w_hh).to(c.dtype) if wanted[1] else None, dc if wanted[2] else None,
                of_weights(x) if wanted[3] else None, of_weights(h[:-1, :, :size]) if wanted[4] else None,
                bias if wanted[5] else None, bias if wanted[6] else None)


def lstm_library(x: Tensor, state: State, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor,
                 b_hh: Tensor) -> tuple[Tensor, State]:
    "torch's own layer: oneDNN, on a GPU cuDNN."
    h, c, *weights = (a.to(x.dtype) for a in (*state, w_ih, w_hh, b_ih, b_hh))
    keep_for_backward = torch.is_grad_enabled()
    out, h, c = torch.lstm(x, (h[None], c[None]), weights, True, 1, 0.0, keep_for_backward, False, False)
    return out, (h[0], c[0])


def one_buffer(*weights: Tensor) -> list[Tensor]:
    "The same one behind the other, as cuDNN keeps them: torch need not copy them there, part by part, at every call."
    flat = torch.cat([w.flatten() for w in weights]).split([w.numel() for w in weights])
    return [part.view_as(w) for part, w in zip(flat, weights)]


def lstm_padded(x: Tensor, state: State, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor,
                b_hh: Tensor) -> tuple[Tensor, State]:
    """torch's own layer at sizes that a GPU is fast at (1150 becomes 1152); the result has the true ones.

    A unit of zero weights puts out zero: its cell is half of what it was, its input tanh(0), and it begins with zero.
    """
    size, inputs = len(b_ih) // 4, x.shape[-1]
    more, wider = -size % ALIGNED, -inputs % ALIGNED
    def gates(w, columns=0): return F.pad(w.to(x.dtype).view(4, size, -1), (0, columns, 0, more)).flatten(0, 1)
    h, c = (F.pad(s, (0, more)) for s in state)
    weights = one_buffer(gates(w_ih, wider), gates(w_hh, more), gates(b_ih)[:, 0], gates(b_hh)[:, 0])
    out, (h, c) = lstm_library(F.pad(x, (0, wider)), (h, c), *weights)
    return out[..., :size], (h[:, :size], c[:, :size])


def lstm(x: Tensor, state: State, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor) -> tuple[Tensor, State]:
    """Outputs (t, b, h) and the last state.

    `x` (t, b, input), `state` two of (b, h), `w_ih` (4h, input), `w_hh` (4h, h). Products are of the type of `x`.
    """
    if x.is_cuda: return lstm_padded(x, state, w_ih, w_hh, b_ih, b_hh)
    if x.dtype != torch.bfloat16: return lstm_library(x, state, w_ih, w_hh, b_ih, b_hh)
    out, h, c = Layer.apply(x, *state, w_ih, w_hh, b_ih, b_hh)
    return out, (h, c)


def lstm_ready(x: Tensor, state: State, *weights: Tensor) -> tuple[Tensor, State]:
    "`lstm` without gradients, of weights that are `Ready`."
    h, c, _ = window(x, *state, Ready(*weights))
    size = c.shape[-1]
    return h[1:, :, :size], (h[-1, :, :size], c[-1])


def lasting(kernel: Callable, dtype: torch.dtype, *weights: Tensor) -> tuple[Callable, tuple[Tensor, ...]]:
    "For many windows in `dtype`, without gradients: the kernel, and a layer's weights in the form that it takes."
    if kernel is not lstm or weights[0].is_cuda or dtype != torch.bfloat16: return kernel, weights
    w_ih, w_hh, *biases = weights
    return lstm_ready, ready(w_ih.to(dtype), w_hh.to(dtype), *biases)
