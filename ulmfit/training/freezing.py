"""Freezing plans: which groups of layers learn, for how long. A plan is data, a list of phases.

Groups are counted from the input; `last=2` trains the last two, `only=0` the first alone, neither of them all.
"""
from dataclasses import dataclass, field, fields

from fastcore.script import CliError

from .settings import restored


@dataclass(frozen=True)
class Phase:
    "A stretch of training with the same layers frozen; what is None comes from the stage's settings."
    epochs: int = 1
    last: int | None = None
    only: int | None = None
    lr: float | None = None
    cut_frac: float | None = None
    ratio: float | None = None

    def trained(self, groups: int) -> list[int]:
        "Indices of the groups that learn."
        if self.only is not None: return [self.only % groups]
        return list(range(0 if self.last is None else max(0, groups - self.last), groups))


PLANS = ("full", "last", "gradual", "scripts", "chain_thaw")


@dataclass(frozen=True)
class Unfreezing:
    "Epochs, and the plan that spends them."
    epochs: int = 1  # all phases together
    plan: str = field(default="full", metadata=dict(choices=PLANS))  # full | last | gradual | scripts | chain_thaw
    phases: list = field(default_factory=list)  # phases instead of a plan: [{"last": 1, "epochs": 1, "lr": 0.02}, …]

    def of(self, groups: int) -> list[Phase]:
        "The phases, for a model of so many groups."
        if self.phases:
            known = {f.name for f in fields(Phase)}
            for p in self.phases:
                if not isinstance(p, dict): raise CliError(f'{p!r} is no phase; one is as {{"last": 1, "epochs": 1}}')
                if unknown := set(p) - known:
                    raise CliError(f"a phase has no {', '.join(sorted(unknown))}; it has: {', '.join(sorted(known))}")
            return [restored(Phase, p) for p in self.phases]
        plans = dict(full=full, last=last_only, gradual=gradual, scripts=scripts, chain_thaw=chain_thaw)
        if self.plan not in plans: raise CliError(f"no plan is called {self.plan!r}; there are: {', '.join(plans)}")
        return [p for p in plans[self.plan](self.epochs, groups) if p.epochs > 0]


def full(epochs: int, groups: int) -> list[Phase]:
    "Everything at once."
    return [Phase(epochs)]


def last_only(epochs: int, groups: int) -> list[Phase]:
    "The last group alone (the paper's `Last`)."
    return [Phase(epochs, last=1)]


def gradual(epochs: int, groups: int) -> list[Phase]:
    "Gradual unfreezing (section 3.3): the last group one epoch, then one more each epoch, then all until the end."
    steps = [Phase(1, last=n) for n in range(1, groups)][:epochs]
    return [*steps, Phase(epochs - len(steps))]


def scripts(epochs: int, groups: int) -> list[Phase]:
    "The authors' scripts: last, last two, then all, each with its own triangle (8 and 1/3, then 1/8)."
    steps = [Phase(1, last=n, cut_frac=1 / 3, ratio=8) for n in (1, 2)][:epochs]
    return [*steps, Phase(epochs - len(steps), cut_frac=1 / 8, ratio=8)]


def chain_thaw(epochs: int, groups: int) -> list[Phase]:
    "Chain-thaw (Felbo et al. 2017): the new layer, then each layer alone from the first on, then all."
    alone = [Phase(1, only=groups - 1), *(Phase(1, only=n) for n in range(groups - 1))][:epochs]
    return [*alone, Phase(epochs - len(alone))]
