"""The decoder and its loss in one, a block of rows at a time, so that the logits never exist all at once.

With V words a step's logits are its largest tensor by far. The gradients are computed together with the loss, while
a block of logits is at hand; the backward pass only scales them.
"""
import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -100
ROWS = 1024


def linear_cross_entropy_reference(x: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor) -> Tensor:
    "What is computed, in one line."
    return F.cross_entropy(F.linear(x, weight, bias).float() if x.dtype != torch.float64 else F.linear(x, weight, bias), target, ignore_index=IGNORE)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, target, dtype, rows):
        wanted = x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
        n = (target != IGNORE).sum().clamp(min=1)
        w = weight.to(dtype)
        total = x.new_zeros((), dtype=torch.promote_types(x.dtype, torch.float32))
        dx = torch.empty_like(x) if wanted else None
        dw = torch.zeros_like(weight) if wanted and weight.requires_grad else None
        db = torch.zeros_like(bias) if wanted and bias is not None and bias.requires_grad else None
        for xs, ys, ds in zip(x.split(rows), target.split(rows), dx.split(rows) if wanted else target.split(rows)):
            xd = xs.to(dtype)
            logits = (xd @ w.T).to(total.dtype)
            if bias is not None: logits += bias
            top = logits.max(dim=1, keepdim=True).values
            at, kept = ys.clamp(min=0).unsqueeze(1), ys != IGNORE
            correct = logits.gather(1, at) - top
            p = logits.sub_(top).exp_()
            z = p.sum(dim=1, keepdim=True)
            total += ((z.log() - correct).squeeze(1) * kept).sum()
            if wanted:
                # softmax minus one-hot, over the number of targets; ignored rows are zero
                scale = kept.unsqueeze(1).to(p.dtype) / n
                p.mul_(scale / z).scatter_add_(1, at, -scale)
                if db is not None: db += p.sum(dim=0)
                pd = p.to(dtype)
                ds.copy_(pd @ w)
                if dw is not None: dw.addmm_(pd.T, xd) if dtype == dw.dtype else dw.add_(pd.T @ xd)
        ctx.save_for_backward(dx, dw, db)
        return total / n

    @staticmethod
    def backward(ctx, grad):
        return *(None if g is None else g * grad for g in ctx.saved_tensors), None, None, None


def linear_cross_entropy(x: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, dtype: torch.dtype | None = None, rows: int = ROWS) -> Tensor:
    """Mean cross-entropy (nats) of `x @ weight.T + bias` against `target`, rows with target IGNORE left out.

    `x` (n, e), `weight` (v, e), `bias` (v) or None, `target` (n). The matrix products run in `dtype` (default: that of `x`),
    everything between them in float32 or better.
    """
    return _LinearCrossEntropy.apply(x, weight, bias, target, dtype or x.dtype, rows)
