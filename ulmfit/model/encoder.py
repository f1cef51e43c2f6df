"""AWD-LSTM (Merity et al. 2018): embedding, then LSTM layers with dropped recurrent weights; the state goes in and out.

Axes: t time, b batch, v vocabulary, e embedding, h hidden.
"""
from dataclasses import dataclass
from typing import NamedTuple

import torch
from fastcore.script import CliError
from torch import Generator, Tensor, nn

from ..kernels import KERNELS
from ..kernels.layers import DroppedLayer
from ..kernels.lstm import State, lasting
from .dropout import Columns, dropout, embed, locked_dropout, locked_mask

States = list[State]


@dataclass(frozen=True)
class Architecture:
    "Sizes of the network; the defaults are the paper's."
    emb: int = 400  # width of the embedding, and of the last layer, to which the decoder is tied
    hidden: int = 1150  # width of the other layers
    layers: int = 3  # number of LSTM layers
    decoder_bias: bool = True  # the scripts have none, fastai has one

    @property
    def widths(self) -> list[int]: return [*[self.hidden] * (self.layers - 1), self.emb]
    @property
    def inputs(self) -> list[int]: return [self.emb, *self.widths[:-1]]


@dataclass(frozen=True)
class Dropouts:
    "Probabilities of dropping; the defaults are the authors' for the language model."
    output_p: float = 0.1  # on the last layer's output, before the decoder (language model only)
    hidden_p: float = 0.15  # between layers
    input_p: float = 0.25  # on the embedded words
    embed_p: float = 0.02  # of whole words
    weight_p: float = 0.2  # of recurrent weights (DropConnect)

    drop_mult: float = 1.0  # factor on all of them (the scripts' dropmult)

    def scaled(self) -> "Dropouts":
        "The probabilities themselves, `drop_mult` multiplied in."
        each = (self.output_p, self.hidden_p, self.input_p, self.embed_p, self.weight_p)
        return Dropouts(*(min(1.0, p * self.drop_mult) for p in each))


@dataclass(frozen=True)
class ClassifierDropouts(Dropouts):
    "The paper's set (section 4.1), which is the classifier's; `output_p` is its head's and stands there."
    output_p: float = 0.0
    hidden_p: float = 0.3
    input_p: float = 0.4
    embed_p: float = 0.05
    weight_p: float = 0.5


NO_DROPOUT = Dropouts(0.0, 0.0, 0.0, 0.0, 0.0)


class Encoded(NamedTuple):
    "What the encoder gives back."
    layers: list[Tensor]  # each layer's output (t, b, h), before any dropout on it
    state: States  # each layer's last (hidden, cell), both (b, h)

    @property
    def last(self) -> Tensor: return self.layers[-1]


class LSTMLayer(nn.Module):
    "The weights of one layer, initialised as torch's: uniform within 1/sqrt(h)."
    def __init__(self, inputs: int, h: int):
        super().__init__()
        bound = h ** -0.5
        def uniform(*shape): return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))
        self.weight_ih, self.weight_hh = uniform(4 * h, inputs), uniform(4 * h, h)
        self.bias_ih, self.bias_hh = uniform(4 * h), uniform(4 * h)

    def dropped(self, p: float = 0.0, rng: Generator | None = None) -> tuple[Tensor, ...]:
        "The weights for a window; with `p`, the recurrent matrix is dropped anew."
        return self.weight_ih, dropout(self.weight_hh, p, rng), self.bias_ih, self.bias_hh


class Encoder(nn.Module):
    "Word ids to hidden states."
    def __init__(self, vocab: int, architecture: Architecture = Architecture(), dropouts: Dropouts = Dropouts(),
                 kernel: str = "fused"):
        super().__init__()
        if kernel not in KERNELS: raise CliError(f"no kernel is called {kernel!r}; there are: {', '.join(KERNELS)}")
        self.architecture, self.dropouts, self.kernels = architecture, dropouts.scaled(), KERNELS[kernel]
        self.embedding = nn.Parameter(torch.empty(vocab, architecture.emb).uniform_(-0.1, 0.1))
        self.layers = nn.ModuleList(LSTMLayer(i, h) for i, h in zip(architecture.inputs, architecture.widths))

    def initial_state(self, b: int) -> States:
        "Zeros for `b` columns."
        return [(z := self.embedding.new_zeros(b, h), z) for h in self.architecture.widths]

    @torch.no_grad()
    def lasting_layers(self, dtype: torch.dtype | None = None) -> list[DroppedLayer]:
        "Layers without dropout for many windows in `dtype`, as long as no weight changes."
        dtype = dtype or self.embedding.dtype
        return [DroppedLayer(kernel, None, weights) for kernel, weights in
                (lasting(self.kernels.lstm, dtype, *layer.dropped()) for layer in self.layers)]

    def forward(self, ids: Tensor, state: States | None = None, rng: Generator | None = None,
                dtype: torch.dtype | None = None, columns: Columns | None = None,
                layers: list[DroppedLayer] | None = None) -> Encoded:
        """`ids` (t, b); the layers compute in `dtype` (default: that of the weights), the state stays in the weights'.

        `layers`: the `lasting_layers`, in evaluation.
        """
        p = self.dropouts if self.training else NO_DROPOUT
        b = ids.shape[1]
        state = state or self.initial_state(b)
        x = embed(ids, self.embedding, p.embed_p, rng)
        x = locked_dropout(x, p.input_p, rng, columns).to(dtype or x.dtype)
        def locked(h: int): return locked_mask(b, h, p.hidden_p, self.embedding, rng, columns)
        layers = layers or [DroppedLayer(self.kernels.lstm, locked(h) if i else None, layer.dropped(p.weight_p, rng))
                            for i, (layer, h) in enumerate(zip(self.layers, self.architecture.inputs))]
        return Encoded(*self.kernels.layers(layers, x, state))


def detach(state: States) -> States:
    "The state without the graph that led to it."
    return [(h.detach(), c.detach()) for h, c in state]
