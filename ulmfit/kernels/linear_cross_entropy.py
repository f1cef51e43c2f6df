"""The decoder and its loss in one, a block of rows at a time, so that the logits never exist all at once.

With V words a step's logits are its largest tensor by far. The gradients are computed together with the loss, while
a block of logits is at hand; the backward pass only scales them.
"""
import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -100
LOGITS = 1 << 22  # logits at hand at a time: as many as the cache holds with their gradient


def linear_cross_entropy_reference(x: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor) -> Tensor:
    "What is computed, in one line."
    return F.cross_entropy(F.linear(x, weight, bias), target, ignore_index=IGNORE)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, target, dtype, rows, learning):
        dx, dw, db = (torch.zeros_like(a) if learning and a is not None and a.requires_grad else None
                      for a in (x, weight, bias))
        wanted = any(d is not None for d in (dx, dw, db))
        n = (target != IGNORE).sum().clamp(min=1)
        w = weight.to(dtype)
        total = x.new_zeros((), dtype=torch.promote_types(x.dtype, torch.float32))
        for start in range(0, len(x), rows):
            block = slice(start, start + rows)
            xs, at = x[block].to(dtype), target[block, None]
            ignored = at == IGNORE
            logits = (xs @ w.T).to(total.dtype)
            if bias is not None: logits += bias
            logp = logits.log_softmax(dim=1)
            at = at.masked_fill(ignored, 0)
            total -= logp.gather(1, at).masked_fill(ignored, 0).sum()
            if wanted:
                # the gradient of a row's logits: softmax minus one-hot, nothing where the target is ignored
                d = logp.exp_().scatter_add_(1, at, -torch.ones_like(at, dtype=logp.dtype)).masked_fill_(ignored, 0)
                if db is not None: db += d.sum(dim=0)
                d = d.to(dtype)
                if dx is not None: dx[block] = d @ w
                if dw is not None: dw += d.T @ xs
        ctx.save_for_backward(dx, dw, db, n)
        return total / n

    @staticmethod
    def backward(ctx, grad):
        *grads, n = ctx.saved_tensors
        return *(None if g is None else g * (grad / n) for g in grads), None, None, None, None


def linear_cross_entropy(x: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor,
                         dtype: torch.dtype | None = None, rows: int | None = None) -> Tensor:
    """Mean cross-entropy (nats) of `x @ weight.T + bias` against `target`, rows with target IGNORE left out.

    `x` (n, e), `weight` (v, e), `bias` (v) or None, `target` (n). The matrix products run in `dtype` (default: that of
    `x`), everything between them in float32 or better.
    """
    return _LinearCrossEntropy.apply(x, weight, bias, target, dtype or x.dtype, rows or max(64, LOGITS // len(weight)),
                                     torch.is_grad_enabled())
