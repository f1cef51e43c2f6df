"""The layers over a window: one after the other, or on a GPU side by side, each a chunk ahead of the next.

Axes: t time, b batch, h hidden.
"""
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from .lstm import State

CHUNK = 14  # steps: more chunks leave less to wait for, each costs a copy of the weights


class DroppedLayer(NamedTuple):
    "A layer as it is for one window, its masks drawn."
    kernel: Callable
    locked: Tensor | None  # (1, b, input): mask of the input, the same at all times; in bf16 1/(1-p) would be another
    weights: tuple[Tensor, ...]  # of the inputs, dropped recurrent ones, two biases

    def __call__(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        "Outputs (t, b, h) and last state of a window, or of a part of it."
        if self.locked is not None: x = (x * self.locked).to(x.dtype)
        out, (h, c) = self.kernel(x, state, *self.weights)
        return out, (h.to(state[0].dtype), c.to(state[1].dtype))


def in_turn(layers: Sequence[DroppedLayer], x: Tensor, states: Sequence[State]) -> tuple[list[Tensor], list[State]]:
    "Each layer's outputs and last state, for inputs (t, b, input) and the states before."
    outputs, last = [], []
    for layer, state in zip(layers, states):
        x, state = layer(x, state)
        outputs.append(x)
        last.append(state)
    return outputs, last


@cache
def streams_of(device: torch.device, n: int) -> list[torch.cuda.Stream]:
    "Always the same ones: memory that one of them has used is its own."
    return [torch.cuda.Stream(device) for _ in range(n)]


def wavefront(layers: Sequence[DroppedLayer], x: Tensor, states: Sequence[State]) -> tuple[list[Tensor], list[State]]:
    """`in_turn`, the window in chunks and each layer on a stream of its own.

    A layer's chunk waits for its own chunk before, and for the same chunk of the layer below, for nothing else. A small
    batch's recurrent product keeps a quarter of a GPU busy: three layers have room side by side. Autograd takes the
    backward pass over the same streams. On the CPU the chunks are computed one after another.
    """
    streams = streams_of(x.device, len(layers)) if x.is_cuda else []
    def on_stream(i: int): return torch.cuda.stream(streams[i]) if streams else nullcontext()
    for i, stream in enumerate(streams):
        stream.wait_stream(torch.cuda.current_stream())
        # memory that two streams use is not to be given away before both are done with it
        for t in (x, layers[i].locked, *layers[i].weights, *states[i]):
            if t is not None: t.record_stream(stream)
    outputs, last = [[] for _ in layers], list(states)
    for part in x.split(CHUNK):
        for i, layer in enumerate(layers):
            if streams and i:
                streams[i].wait_stream(streams[i - 1])
                part.record_stream(streams[i])
            with on_stream(i): part, last[i] = layer(part, last[i])
            outputs[i].append(part)
    for i, stream in enumerate(streams):
        torch.cuda.current_stream().wait_stream(stream)
        for t in (*outputs[i], *last[i]): t.record_stream(torch.cuda.current_stream())
    return [torch.cat(parts) for parts in outputs], last
