"Fast paths, each beside the slow reference that it must equal. `--kernel` chooses between them, here and nowhere else."
from collections.abc import Callable
from typing import NamedTuple

from .layers import in_turn, wavefront
from .linear_cross_entropy import linear_cross_entropy, linear_cross_entropy_reference
from .lstm import lstm, lstm_reference
from .pooling import pool, pool_reference


class Kernels(NamedTuple):
    "What a model is computed with."
    lstm: Callable
    layers: Callable
    linear_cross_entropy: Callable
    pool: Callable
    recorded: bool  # whole steps as CUDA graphs


KERNELS = dict(fused=Kernels(lstm, in_turn, linear_cross_entropy, pool, True),
               unrecorded=Kernels(lstm, in_turn, linear_cross_entropy, pool, False),
               wavefront=Kernels(lstm, wavefront, linear_cross_entropy, pool, True),
               reference=Kernels(lstm_reference, in_turn, linear_cross_entropy_reference, pool_reference, False))
