"""Oracles: slow and plain, one position, row or document at a time. Nothing in here calls the package."""
import math

import torch
from torch import Tensor


def close(actual: Tensor, expected: Tensor, bound: float = 1e-12):
    "The same shape and type, no element further off than `bound`."
    torch.testing.assert_close(actual, expected, rtol=0, atol=bound)


def lstm(x: Tensor, h: Tensor, c: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor):
    "One LSTM layer, time step by time step, gate by gate: outputs, last hidden, last cell."
    outputs = []
    for x_t in x:
        gate = [x_t @ w_ih[rows].T + b_ih[rows] + h @ w_hh[rows].T + b_hh[rows]
                for rows in (slice(k * h.shape[1], (k + 1) * h.shape[1]) for k in range(4))]
        i, f, g, o = gate[0].sigmoid(), gate[1].sigmoid(), gate[2].tanh(), gate[3].sigmoid()
        c = f * c + i * g
        h = o * c.tanh()
        outputs.append(h)
    return torch.stack(outputs), h, c


def drop_mask(shape: tuple, p: float, rng: torch.Generator) -> Tensor:
    "Zeros with probability `p`, else 1/(1-p); 32 random bits each, nothing drawn where `p` is 0."
    if not p: return torch.ones(shape, dtype=torch.float64)
    n = math.prod(shape)
    bits = torch.empty((n + 1) // 2, dtype=torch.int64).random_(-2 ** 63, None, generator=rng).view(torch.int32)
    uniform = bits[:n].double().view(shape) / 2 ** 32 + 0.5
    return (uniform >= p).double() / (1 - p)


def encode(w: dict[str, Tensor], ids: Tensor, state: list | None = None, p: dict | None = None, rng=None):
    """AWD-LSTM: last layer's outputs and each layer's last (h, c), from weights by their names in `Encoder`.

    Masks are drawn in the order of use: whole words, input, then for each layer the hidden mask before it and
    that of its weights.
    """
    p = p or dict(embed=0, input=0, hidden=0, weight=0)
    t, b = ids.shape
    of_word = drop_mask((len(w["embedding"]), 1), p["embed"], rng)
    x = torch.stack([torch.stack([w["embedding"][i] * of_word[i] for i in row]) for row in ids])
    x = x * drop_mask((1, b, x.shape[2]), p["input"], rng)
    last = []
    for k in range(sum(name.endswith("weight_hh") for name in w)):
        if k: x = x * drop_mask((1, b, x.shape[2]), p["hidden"], rng)
        w_ih, w_hh, b_ih, b_hh = (w[f"layers.{k}.{n}"] for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        zero = torch.zeros(b, w_hh.shape[1], dtype=w_hh.dtype)
        h, c = state[k] if state else (zero, zero)
        x, h, c = lstm(x, h, c, w_ih, w_hh * drop_mask(tuple(w_hh.shape), p["weight"], rng), b_ih, b_hh)
        last.append((h, c))
    return x, last


def cross_entropy(logits: Tensor, targets: Tensor, ignore: int = -100) -> Tensor:
    "Mean over rows of log-sum-exp less the target's logit; rows whose target is `ignore` are left out."
    losses = [row.exp().sum().log() - row[y] for row, y in zip(logits, targets.tolist()) if y != ignore]
    return sum(losses) / len(losses)


def ar(x: Tensor, lengths: list[int]) -> Tensor:
    "Mean square of the activations at real positions, document by document."
    real = [x[t, j] for j, n in enumerate(lengths) for t in range(n)]
    return sum(a.square().sum() for a in real) / (len(real) * x.shape[2])


def tar(x: Tensor, lengths: list[int]) -> Tensor | float:
    "Mean square of the change between neighbouring real positions; 0 where there are none."
    steps = [x[t, j] - x[t - 1, j] for j, n in enumerate(lengths) for t in range(1, n)]
    return sum(a.square().sum() for a in steps) / (len(steps) * x.shape[2]) if steps else 0.0


def language_model_loss(w: dict[str, Tensor], x: Tensor, y: Tensor, state, p: dict, alpha: float, beta: float,
                        ar_on: str, rng) -> tuple[Tensor, Tensor]:
    "(objective, cross-entropy) of a window in training, from weights by their names in `LanguageModel`."
    encoder = {k.removeprefix("encoder."): v for k, v in w.items() if k.startswith("encoder.")}
    raw, _ = encode(encoder, x, state, p, rng)
    dropped = raw * drop_mask((1, *raw.shape[1:]), p["output"], rng)
    logits = dropped.reshape(-1, raw.shape[2]) @ encoder["embedding"].T
    if "decoder_bias" in w: logits = logits + w["decoder_bias"]
    ce = cross_entropy(logits, y.reshape(-1))
    whole = [len(x)] * x.shape[1]
    return ce + alpha * ar(dropped if ar_on == "dropped" else raw, whole) + beta * tar(raw, whole), ce


def concat_pool(x: Tensor, lengths: list[int]) -> Tensor:
    "Last, maximum and mean over each document's real positions."
    return torch.stack([torch.cat([x[n - 1, j], x[:n, j].max(dim=0).values, sum(x[t, j] for t in range(n)) / n])
                        for j, n in enumerate(lengths)])


def skipped(length: int, bptt: int, max_length: int) -> int:
    "Tokens in front that only carry state: whole windows, until the rest fits."
    skip = 0
    while length - skip > max_length: skip += bptt
    return skip


def read_one(w: dict[str, Tensor], document: Tensor, bptt: int, max_length: int, detach: bool = True) -> Tensor:
    "Last layer's outputs (t', h) of one document (t) over the part that is kept, no dropout."
    at, state, kept = skipped(len(document), bptt, max_length), None, []
    with torch.no_grad():
        if at: _, state = encode(w, document[:at, None])
    while at < len(document):
        x, state = encode(w, document[at:at + bptt, None], state)
        if detach: state = [(h.detach(), c.detach()) for h, c in state]
        kept.append(x[:, 0])
        at += bptt
    return torch.cat(kept)


def linear_block(w: dict[str, Tensor], name: str, x: Tensor, mask: Tensor) -> Tensor:
    "Batch norm by the batch's own mean and variance, dropout, linear."
    norm = (x - x.mean(dim=0)) / (x.var(dim=0, unbiased=False) + 1e-5).sqrt()
    x = norm * w[f"{name}.norm.weight"] + w[f"{name}.norm.bias"]
    return (x * mask) @ w[f"{name}.linear.weight"].T + w[f"{name}.linear.bias"]


def classifier_loss(w: dict[str, Tensor], documents: list[Tensor], targets: Tensor, bptt: int, max_length: int,
                    detach: bool, drops: tuple[float, float], alpha: float, beta: float, rng) -> tuple[Tensor, Tensor]:
    "(objective, cross-entropy) of documents in training, each read alone; dropout in the head only."
    encoder = {k.removeprefix("encoder."): v for k, v in w.items() if k.startswith("encoder.")}
    outputs = [read_one(encoder, d, bptt, max_length, detach) for d in documents]
    lengths = [len(x) for x in outputs]
    padded = torch.nn.utils.rnn.pad_sequence(outputs)
    x = concat_pool(padded, lengths)
    x = linear_block(w, "head.0", x, drop_mask(tuple(x.shape), drops[0], rng)).clamp(min=0)
    x = linear_block(w, "head.1", x, drop_mask(tuple(x.shape), drops[1], rng))
    ce = cross_entropy(x, targets)
    return ce + alpha * ar(padded, lengths) + beta * tar(padded, lengths), ce


def slanted_triangular(t: int, T: int, cut_frac: float, ratio: float) -> float:
    "The paper's formula to the letter (section 3.2, version 5), for a highest rate of 1."
    cut = math.floor(T * cut_frac)
    p = t / cut if t < cut else 1 - (t - cut) / (cut * (1 / cut_frac - 1))
    return (1 + p * (ratio - 1)) / ratio


def one_cycle(x: float, pct_start: float, first: float, last: float) -> float:
    "Half a cosine from `first` to 1 until `pct_start`, another from there down to `last`."
    if x < pct_start: return first + (1 - first) * math.sin(math.pi / 2 * x / pct_start) ** 2
    return last + (1 - last) * math.cos(math.pi / 2 * (x - pct_start) / (1 - pct_start)) ** 2


def asgd_trigger(losses: list[float], n: int) -> int | None:
    "Number of the evaluation that switches to averaging, by the line in awd-lstm-lm's main.py; None: none does."
    before = []
    for k, value in enumerate(losses):
        if len(before) > n and value > min(before[:-n]): return k
        before.append(value)
    return None
