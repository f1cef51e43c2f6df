"""The decoder and its loss in one, a block of rows at a time, so that the logits never exist all at once.

With V words a step's logits are its largest tensor by far. The gradients are computed together with the loss, while
a block of logits is at hand; the backward pass only scales them.
"""
import torch
import torch.nn.functional as F
from torch import Tensor

from . import native
from .products import add_weight_gradient, transposed

IGNORE = -100
LOGITS = dict(cpu=1 << 26, cuda=1 << 29)  # bytes, or 256 rows: fewer blocks, fewer additions to a gradient
ALIGNED = dict(cpu=1, cuda=128)  # a GPU's products want a number of words that is a multiple of so many


def linear_cross_entropy_reference(x: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor,
                                   dtype: torch.dtype | None = None) -> Tensor:
    "What is computed, in a few lines."
    logits = F.linear(x.to(dtype or x.dtype), weight.to(dtype or x.dtype)).to(weight.dtype)
    total = F.cross_entropy(logits if bias is None else logits + bias, target, ignore_index=IGNORE, reduction="sum")
    return total / (target != IGNORE).sum().clamp(min=1)


def softmax_steps(logits: Tensor, bias: Tensor, target: Tensor, learning: bool) -> Tensor:
    "Losses of rows (n), 0 where the target (n) is IGNORE; if `learning`, `logits` (n, v) become their gradient."
    run = native.function("cross_entropy", logits, bias)
    if run and target.dtype == torch.int64:
        loss = bias.new_empty(len(logits))
        native.call(run, logits, bias, target, loss, *logits.shape, int(learning))
        return loss
    ignored = target[:, None] == IGNORE
    at = target[:, None].masked_fill(ignored, 0)
    logp = (logits + bias).log_softmax(dim=1)  # in the bias's precision
    of_target = logp.gather(1, at)
    if learning:  # softmax minus one-hot
        torch.exp(logp, out=logits)
        logits.scatter_(1, at, of_target.expm1().to(logits.dtype)).masked_fill_(ignored, 0)
    return -of_target.masked_fill_(ignored, 0)[:, 0]


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, target, dtype, rows, multiple, learning):
        dx, dw, db = ctx.gradients = [torch.zeros_like(a) if learning and a is not None and a.requires_grad else None
                                      for a in (x, weight, bias)]
        learning = any(d is not None for d in ctx.gradients)
        words, w, x = len(weight), weight.to(dtype), x.to(dtype)
        b = weight.new_zeros(words) if bias is None else bias
        if more := -words % multiple: w, b = F.pad(w, (0, 0, 0, more)), F.pad(b, (0, more), value=-torch.inf)
        of_words = transposed(w)
        block = native.scratch(w, min(rows, len(x)), len(w))
        total = b.new_zeros(())
        for i, (xs, at) in enumerate(zip(x.split(rows), target.split(rows))):
            logits = torch.mm(xs, of_words, out=block[:len(xs)])
            total += softmax_steps(logits, b, at, learning).sum()
            if dx is not None: dx[i * rows:i * rows + len(xs)] = logits @ w
            if dw is not None: add_weight_gradient(dw, logits, xs)
            if db is not None: native.add_rows(db, logits[:, :words])
        ctx.save_for_backward(n := (target != IGNORE).sum().clamp(min=1))
        return total / n

    @staticmethod
    def backward(ctx, grad):
        "In place: as large as the model, the gradients exist once, and are given away."
        (n,), gradients, ctx.gradients = ctx.saved_tensors, ctx.gradients, None
        return *(None if g is None else g.mul_(grad / n) for g in gradients), None, None, None, None, None


def linear_cross_entropy(x: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor,
                         dtype: torch.dtype | None = None, rows: int | None = None,
                         multiple: int | None = None) -> Tensor:
    """Mean cross-entropy (nats) of `x @ weight.T + bias` against `target`, rows with target IGNORE left out.

    `x` (n, e), `weight` (v, e), `bias` (v) or None, `target` (n). The matrix products run in `dtype` (default: that of
    `x`), everything between them in float32 or better, `rows` at a time, on a number of words that is filled up to a
    `multiple`.
    """
    dtype = dtype or x.dtype
    if rows is None:  # blocks of one size, or the last might be a few rows: each adds to as large a gradient
        most = max(256, LOGITS[x.device.type] // (len(weight) * dtype.itemsize))
        rows = -(-len(x) // max(1, round(len(x) / most)))
    return _LinearCrossEntropy.apply(x, weight, bias, target, dtype, rows, multiple or ALIGNED[x.device.type],
                                     torch.is_grad_enabled())
