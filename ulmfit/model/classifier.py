"""The classifier (section 3.3): the LM's encoder over a whole document, concat pooling, a head of linear blocks.

Padding stands at a document's end and is masked where outputs are pooled; the LSTM is causal, so no real position ever
sees it: a text's prediction does not depend on the batch that it sits in.
"""
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from fastcore.script import CliError
from torch import Generator, Tensor, nn

from ..kernels.pooling import Pooled, Window
from ..training.distributed import Ranks
from .dropout import Columns, dropout
from .encoder import Encoded, Encoder, States, detach
from .language_model import Loss, Regularization


@dataclass(frozen=True)
class Reading:
    "How a long document is read: BPTT for text classification (BPT3C)."
    bptt: int = 70  # tokens a window
    max_length: int = 1400  # tokens at a document's end that are pooled and learnt from; those before only carry state
    detach_windows: bool = True  # no gradient across window borders, as in every implementation

    def __post_init__(self):
        if self.max_length < self.bptt:
            raise CliError(f"--max-length {self.max_length} is less than a window; give at least --bptt {self.bptt}")


@dataclass(frozen=True)
class HeadSettings:
    "The linear blocks behind the pooling."
    head_hidden: int = 50  # width of the block between pooling and classes
    head_drop: float = 0.4  # dropout of the pooled document
    head_hidden_drop: float = 0.1  # dropout before the last linear layer


class Share(NamedTuple):
    "A process's share of a batch: its documents, and the lengths (b) of all."
    here: slice
    lengths: Tensor
    ranks: Ranks

    def reaching(self, start: int, active: Tensor) -> Columns:
        "Among the documents that reach beyond `start`, those of this process: the `active` of its own."
        going = self.lengths > start
        return Columns((going.cumsum(0) - 1)[self.here][active], int(going.sum()))


def windows(encoder: Encoder, ids: Tensor, lengths: Tensor, bptt: int, state: States | None, cut: bool,
            rng: Generator | None = None, dtype: torch.dtype | None = None,
            share: Share | None = None) -> Iterator[tuple[Tensor, Encoded]]:
    """Window by window (which documents reach into it, what the encoder makes of theirs), the state carried.

    A document that has ended is not computed any further. With `cut` no gradient crosses a window's border.
    """
    active = torch.arange(ids.shape[1], device=ids.device)
    columns, evaluating = None, not (encoder.training or torch.is_grad_enabled())
    layers = encoder.lasting_layers(dtype) if evaluating else None
    for start in range(0, int((lengths if share is None else share.lengths).max()), bptt):
        going = lengths[active] > start
        if not going.all():
            active = active[going]
            state = state and [(h[going], c[going]) for h, c in state]
        if share: columns = share.reaching(start, active)
        if not len(active):  # other processes' documents go on: their masks are drawn here too, and that is all
            with torch.no_grad(): encoder(ids[:1, :1], None, rng, dtype, columns._replace(at=slice(1)))
            continue
        window = ids[start:start + bptt]
        window = window if len(active) == ids.shape[1] else window[:, active]
        encoded = encoder(window, state, rng, dtype, columns, layers)
        state = detach(encoded.state) if cut else encoded.state
        yield active, encoded


def learnt_from(lengths: Tensor, how: Reading) -> Tensor:
    "How many tokens at the end of documents of such lengths (b) are pooled."
    return lengths - ((lengths - how.max_length).clamp(min=0) + how.bptt - 1) // how.bptt * how.bptt


def read(encoder: Encoder, ids: Tensor, lengths: Tensor, how: Reading, rng: Generator | None = None,
         dtype: torch.dtype | None = None, layer: int = -1, share: Share | None = None) -> tuple[list[Window], Tensor]:
    """A layer's outputs over the end of each document, window by window, and how many of them are real (b).

    A document's first windows, as many as it takes for the rest to fit into `max_length`, are run without a graph for
    their state alone; where they end depends on the document's own length only, never on the batch.
    """
    kept = learnt_from(lengths, how)
    skip = lengths - kept
    state = state_after(encoder, ids, skip, how.bptt, dtype) if skip.any() else None
    at = torch.arange(int(kept.max()), device=ids.device)[:, None] + skip
    ids = ids.gather(0, at.clamp(max=len(ids) - 1))
    share = share and share._replace(lengths=learnt_from(share.lengths, how))
    return [Window(active, encoded.layers[layer]) for active, encoded in
            windows(encoder, ids, kept, how.bptt, state, how.detach_windows, rng, dtype, share)], kept


@torch.no_grad()
def state_after(encoder: Encoder, ids: Tensor, skip: Tensor, bptt: int, dtype: torch.dtype | None) -> States:
    "The state of each document after its first `skip` (b) tokens, multiples of `bptt`; dropout off."
    was_training = encoder.training
    encoder.eval()
    done = encoder.initial_state(ids.shape[1])
    for active, encoded in windows(encoder, ids, skip, bptt, None, True, dtype=dtype):
        done = [(h0.index_copy(0, active, h), c0.index_copy(0, active, c))
                for (h0, c0), (h, c) in zip(done, encoded.state)]
    encoder.train(was_training)
    return done


class LinearBlock(nn.Module):
    "Batch norm, dropout, linear, and ReLU unless it is the last."
    def __init__(self, inputs: int, outputs: int, p: float, relu: bool):
        super().__init__()
        self.norm, self.linear, self.p, self.relu = nn.BatchNorm1d(inputs), nn.Linear(inputs, outputs), p, relu

    def forward(self, x: Tensor, rng: Generator | None = None) -> Tensor:
        x = self.norm(x)
        x = self.linear(dropout(x, self.p, rng) if self.training else x)
        return x.relu() if self.relu else x


class Classifier(nn.Module):
    "Word ids of documents to logits of classes."
    def __init__(self, encoder: Encoder, classes: int, head: HeadSettings = HeadSettings(),
                 reading: Reading = Reading()):
        super().__init__()
        self.encoder, self.reading = encoder, reading
        pooled = 3 * encoder.architecture.widths[-1]
        self.head = nn.ModuleList([LinearBlock(pooled, head.head_hidden, head.head_drop, relu=True),
                                   LinearBlock(head.head_hidden, classes, head.head_hidden_drop, relu=False)])

    def forward(self, ids: Tensor, lengths: Tensor, rng: Generator | None = None,
                dtype: torch.dtype | None = None) -> Tensor:
        "`ids` (t, b) padded at the end, `lengths` (b): logits (b, classes)."
        return self._decide(self._pool(*read(self.encoder, ids, lengths, self.reading, rng, dtype)).vectors, rng)

    def _pool(self, outputs: list[Window], kept: Tensor) -> Pooled:
        return self.encoder.kernels.pool(outputs, kept, self.encoder.embedding.dtype)

    def _decide(self, x: Tensor, rng: Generator | None = None) -> Tensor:
        for block in self.head: x = block(x, rng)
        return x

    def loss(self, ids: Tensor, lengths: Tensor, targets: Tensor, regularization: Regularization = Regularization(),
             rng: Generator | None = None, dtype: torch.dtype | None = None, share: Share | None = None) -> Loss:
        """Cross-entropy of a batch of documents; AR and TAR over real positions.

        Of a share, `ids` and `lengths` are those of its documents, `targets` those of all: batch norm is over the whole
        batch, so each process has the head decide on all documents, and counts its part of that loss.
        """
        outputs, kept = read(self.encoder, ids, lengths, self.reading, rng, dtype, share=share)
        pooled = self._pool(outputs, kept)
        vectors = pooled.vectors if share is None else share.ranks.whole(pooled.vectors, share.here, len(targets))
        ce = F.cross_entropy(self._decide(vectors, rng), targets)
        if share: ce = ce / share.ranks.size
        objective = ce
        if self.training and (regularization.alpha or regularization.beta):
            of_all = kept if share is None else learnt_from(share.lengths, self.reading)
            size, steps = self.encoder.architecture.widths[-1], (of_all - 1).sum().clamp(min=1)
            objective = objective + regularization.alpha * pooled.squares / (of_all.sum() * size)
            objective = objective + regularization.beta * pooled.changes / (steps * size)
        return Loss(objective, ce.detach(), len(targets), None)


@torch.no_grad()
def class_probabilities(model: Classifier, batches: Iterable, documents: int, dtype: torch.dtype | None = None,
                        ranks: Ranks = Ranks()) -> np.ndarray:
    """Probabilities (documents, classes), each in its document's row whatever the order of the batches.

    Processes take the batches in turns, and each gets the whole result.
    """
    device, was_training = model.encoder.embedding.device, model.training
    model.eval()
    out = np.zeros((documents, model.head[-1].linear.out_features))
    for batch in islice(batches, ranks.rank, None, ranks.size):
        p = model(batch.ids.to(device), batch.lengths.to(device), dtype=dtype).double().softmax(dim=1).cpu().numpy()
        out[batch.rows] = p
    model.train(was_training)
    return ranks.sum(torch.from_numpy(out)).numpy()


def predictions(probabilities: np.ndarray, targets: Sequence[int], classes: Sequence[str]) -> list[dict]:
    "A row for each document: its class, and the likeliest by `probabilities` (documents, classes)."
    return [dict(document=i, label=classes[y], predicted=classes[k])
            for i, (y, k) in enumerate(zip(targets, probabilities.argmax(axis=1)))]


def percent_wrong(probabilities: np.ndarray, targets: Sequence[int]) -> float:
    "Error rate in percent."
    return 100 * float((probabilities.argmax(axis=1) != np.asarray(targets)).mean())


def log_loss(probabilities: np.ndarray, targets: Sequence[int]) -> float:
    "Mean cross-entropy in nats."
    return float(-np.log(probabilities[np.arange(len(targets)), targets].clip(1e-12)).mean())


def layer_groups(model: Classifier) -> dict[str, list[nn.Parameter]]:
    "Parameters by group, from the input to the output: what discriminative rates and gradual unfreezing count."
    layers = {f"lstm_{i}": list(layer.parameters()) for i, layer in enumerate(model.encoder.layers, 1)}
    return {"embedding": [model.encoder.embedding], **layers, "head": list(model.head.parameters())}
