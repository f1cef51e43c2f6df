"""The language model: AWD-LSTM encoder and a decoder tied to its embedding; the loss with AR and TAR."""
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from ..kernels.linear_cross_entropy import IGNORE
from ..training.distributed import Ranks
from .dropout import Columns, locked_dropout
from .encoder import Encoder, States, detach


@dataclass(frozen=True)
class Regularization:
    """Activation regularisation (Merity et al. 2017): penalties on the last layer's output.

    AR is on the output after dropout (`dropped`: Merity, fastai) or before it (`raw`: the scripts).
    """
    alpha: float = 2.0  # AR: keeps activations small
    beta: float = 1.0  # TAR: keeps them slow
    ar_on: str = field(default="dropped", metadata=dict(choices=("dropped", "raw")))  # of an LM: dropped | raw


class Share(NamedTuple):
    "A process's share of a batch: its columns, and how many targets all columns have."
    columns: Columns
    targets: int


class Loss(NamedTuple):
    "A batch's loss; of a share of it, that share's part of the sum."
    objective: Tensor  # what is minimised, penalties included
    value: Tensor  # cross-entropy alone (nats), detached
    targets: int  # over how many targets it is a mean, those of other shares included
    state: States | None  # detached, for the next window


def activation_regularization(x: Tensor) -> Tensor:
    "AR: mean square of the activations (t, b, h)."
    return x.float().square().mean() if x.dtype != torch.float64 else x.square().mean()


def temporal_activation_regularization(x: Tensor) -> Tensor:
    "TAR: mean square of the change from step to step; 0 for a window of one step."
    return activation_regularization(x[1:] - x[:-1]) if len(x) > 1 else x.new_zeros(())


class LanguageModel(nn.Module):
    "Predicts the next word."
    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder
        v = len(encoder.embedding)
        self.decoder_bias = nn.Parameter(torch.zeros(v)) if encoder.architecture.decoder_bias else None

    def forward(self, ids: Tensor, state: States | None = None,
                dtype: torch.dtype | None = None) -> tuple[Tensor, States]:
        "`ids` (t, b): logits (t, b, v) and the last state. For evaluation and generation; training uses `loss`."
        encoded = self.encoder(ids, state, dtype=dtype)
        weight = self.encoder.embedding
        return F.linear(encoded.last.to(weight.dtype), weight, self.decoder_bias), encoded.state

    def loss(self, x: Tensor, y: Tensor, state: States | None = None, regularization: Regularization = Regularization(),
             rng: Generator | None = None, dtype: torch.dtype | None = None, share: Share | None = None) -> Loss:
        "Loss of a window: `x`, `y` (t, b), targets IGNORE left out."
        def targets(): return int((y != IGNORE).sum())  # the host waits for the device
        share = share or Share(Columns(slice(None), x.shape[1]), targets())
        of_columns = x.shape[1] / share.columns.of
        of_targets = 1.0 if of_columns == 1 else targets() / max(1, share.targets)
        encoded = self.encoder(x, state, rng, dtype, share.columns)
        raw = encoded.last.to(self.encoder.embedding.dtype)
        dropped = locked_dropout(raw, self.encoder.dropouts.output_p, rng, share.columns) if self.training else raw
        kernel = self.encoder.kernels.linear_cross_entropy
        ce = of_targets * kernel(dropped.flatten(0, 1), self.encoder.embedding, self.decoder_bias, y.flatten(), dtype)
        objective = ce
        if self.training:
            alpha, beta = of_columns * regularization.alpha, of_columns * regularization.beta
            of = dropped if regularization.ar_on == "dropped" else raw
            if alpha: objective = objective + alpha * activation_regularization(of)
            if beta: objective = objective + beta * temporal_activation_regularization(raw)
        return Loss(objective, ce.detach(), share.targets, detach(encoded.state))


@torch.no_grad()
def mean_loss(model: LanguageModel, batches: Iterable[tuple[Tensor, Tensor]], dtype: torch.dtype | None = None,
              ranks: Ranks = Ranks()) -> tuple[float, int]:
    """Mean cross-entropy (nats per token) over a stream and its number of targets; state is carried, dropout off.

    Each process is given its own columns; the mean is over those of all.
    """
    was_training = model.training
    model.eval()
    total, targets, state = 0.0, 0, None
    for x, y in batches:
        loss = model.loss(x, y, state, dtype=dtype)
        total, targets, state = total + loss.value.double().item() * loss.targets, targets + loss.targets, loss.state
    model.train(was_training)
    total, targets = ranks.sum(torch.tensor([total, targets], dtype=torch.float64)).tolist()
    return total / max(1, targets), int(targets)


def with_vocabulary(weights: dict[str, Tensor], sources: np.ndarray) -> dict[str, Tensor]:
    """A language model's weights for another vocabulary.

    Rows go by token, a new token has the mean of the old rows; the bias likewise. `sources` has for each new token its
    old row, or -1.
    """
    new, known = dict(weights), torch.from_numpy(sources >= 0)
    for name in ("encoder.embedding", "decoder_bias"):
        if name in weights:
            old = weights[name]
            rows = old.mean(dim=0, keepdim=True).repeat(len(sources), *[1] * (old.dim() - 1))
            rows[known] = old[torch.from_numpy(sources)[known]]
            new[name] = rows
    return new


def layer_groups(model: LanguageModel) -> dict[str, list[nn.Parameter]]:
    "Parameters by group, from the input to the output; the embedding is the decoder, hence last (as in the scripts)."
    layers = {f"lstm_{i}": list(layer.parameters()) for i, layer in enumerate(model.encoder.layers, 1)}
    bias = [] if model.decoder_bias is None else [model.decoder_bias]
    return {**layers, "decoder": [model.encoder.embedding, *bias]}
