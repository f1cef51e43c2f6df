"""Schedules: pure functions of the step `t` (0 … total-1) that give the factor on the learning rate."""
import math
from collections.abc import Callable
from dataclasses import dataclass, field


def slanted_triangular(t: int, total: int, cut_frac: float = 0.1, ratio: float = 32) -> float:
    """Slanted triangular learning rates (section 3.2): up to 1 until the step `cut`, then down, never below 1/ratio.

    The paper divides by cut·(1/cut_frac - 1), which turns negative where 1/cut_frac does not divide `total`; T - cut
    is the same where it does. With no room for a descent (total = 1) the rate is at its peak.
    """
    cut = max(1, math.floor(total * cut_frac))
    p = t / cut if t < cut and total > 1 else 1 - (t - cut) / (total - cut) if total > cut else 1.0
    return (1 + p * (ratio - 1)) / ratio


def cosine_between(start: float, end: float, x: float) -> float:
    "Half a cosine from `start` (x = 0) to `end` (x = 1)."
    return end + (start - end) * (1 + math.cos(math.pi * x)) / 2


def one_cycle(t: int, total: int, pct_start: float = 0.25, div: float = 25, div_final: float = 1e5) -> float:
    "One cycle (Smith 2018) in fastai's form: cosine from 1/div to 1, then to 1/div_final."
    x = t / total
    if x < pct_start: return cosine_between(1 / div, 1, x / pct_start)
    return cosine_between(1, 1 / div_final, (x - pct_start) / (1 - pct_start))


def one_cycle_momentum(t: int, total: int, pct_start: float, high: float, low: float) -> float:
    "The momentum that goes with `one_cycle`: down while the rate rises, up again."
    x = t / total
    return (cosine_between(high, low, x / pct_start) if x < pct_start
            else cosine_between(low, high, (x - pct_start) / (1 - pct_start)))


def cosine(t: int, total: int) -> float:
    "From 1 to 0 by half a cosine (the aggressive annealing that section 5 compares with)."
    return cosine_between(1, 0, t / total)


def constant(t: int, total: int) -> float: return 1.0


def trapezoidal(t: int, total: int, cut_frac: float = 0.1, decay: float = 0.25) -> float:
    """Up in a straight line, level, down in a straight line (warm-up, stable, decay; Hägele et al. 2024).

    On the level, which is where the rise of a larger `total` has ended too, nothing depends on `total`: a run that is
    stopped there can be given more steps.
    """
    rise, fall = max(1, math.floor(total * cut_frac)), max(1, math.floor(total * decay))
    return min(1.0, (t + 1) / rise, (total - t) / fall)


SHAPES = ("stlr", "one_cycle", "cosine", "constant", "trapezoidal")


@dataclass(frozen=True)
class Schedule:
    "Which schedule, and its shape."
    schedule: str = field(default="stlr", metadata=dict(choices=SHAPES))  # its name
    cut_frac: float = 0.1  # stlr, trapezoidal: share of the steps on which the rate rises
    ratio: float = 32.0  # stlr: highest over lowest rate
    pct_start: float = 0.25  # one_cycle: share of the steps on which the rate rises
    div: float = 25.0  # one_cycle: highest over first rate
    div_final: float = 1e5  # one_cycle: highest over last rate
    decay: float = 0.25  # trapezoidal: share of the steps on which the rate falls
    beta1_low: float = 0.0  # one_cycle: momentum at the highest rate (0: constant)

    def factor(self, t: int, total: int) -> float:
        "The factor at step `t` of `total`."
        shapes: dict[str, Callable[[], float]] = dict(
            stlr=lambda: slanted_triangular(t, total, self.cut_frac, self.ratio),
            one_cycle=lambda: one_cycle(t, total, self.pct_start, self.div, self.div_final),
            cosine=lambda: cosine(t, total), constant=lambda: constant(t, total),
            trapezoidal=lambda: trapezoidal(t, total, self.cut_frac, self.decay))
        return shapes[self.schedule]()

    def momentum(self, t: int, total: int, high: float) -> float:
        "The first beta of Adam at step `t`."
        cycled = self.schedule == "one_cycle" and self.beta1_low
        return one_cycle_momentum(t, total, self.pct_start, high, self.beta1_low) if cycled else high
