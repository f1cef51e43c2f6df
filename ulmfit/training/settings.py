"""Settings: frozen dataclasses whose fields are a stage's flags; a preset is a file of values for them.

A flag on the command line wins over the preset, the preset over the field's default.
"""
import argparse, inspect, json, math, os, shlex, tomllib
from collections.abc import Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Annotated, get_args, get_type_hints

from fastcore.docments import docments
from fastcore.script import CliError

PRESETS = Path(__file__).parents[2] / "experiments" / "presets"


# The lowest value that a number can have; shares lie between 0 and 1.
LEAST = dict(batch=1, bptt=1, emb=1, hidden=1, layers=1, epochs=1, head_hidden=1, train_tokens=1, eval_tokens=1,
             max_length=1, max_steps=0, patience=0, labelled=0, tested=0, drop_mult=0, lr=0, clip=0, weight_decay=0,
             alpha=0, beta=0, nonmono=0, checkpoint_minutes=0, subwords=20, validate_every=1, last=1, ratio=1, div=1,
             div_final=1, discriminative=1e-3)
SHARES = ("_p", "_drop", "_fraction", "cut_frac", "pct_start")


def default_of(field):
    "A dataclass field's default value."
    return field.default if field.default_factory is MISSING else field.default_factory()


def by_name(blocks: Sequence) -> dict:
    "The values of all settings of some instances."
    return {k: v for b in blocks for k, v in asdict(b).items()}


def natural(text: str) -> int:
    "The value of a flag that is a seed; ValueError where it is none."
    if not 0 <= (value := int(text)) < 2**63: raise ValueError
    return value


def json_list(text: str) -> list:
    "The value of a flag that is a list; ValueError where it is none."
    try: value = json.loads(text)
    except RecursionError: value = None
    if not isinstance(value, list): raise ValueError
    return value


def words(block: type) -> dict[str, str]:
    "What is said of each field of a settings class, where it stands: in the class or in one that it builds on."
    return {k: v for c in reversed(block.__mro__) if is_dataclass(c) for k, v in docments(c).items() if v}


def flags(*blocks: type):
    "Decorator: gives a `main(…, **given)` a flag for each field of the classes `blocks`; one not given is None."
    def add(main):
        own = [p for p in inspect.signature(main).parameters.values() if p.kind != p.VAR_KEYWORD]
        extra = []
        for block in blocks:
            docs, types = words(block), get_type_hints(block)
            for field in fields(block):
                kind, default = types[field.name], default_of(field)
                how = {}
                if kind is bool: how = dict(action=argparse.BooleanOptionalAction)
                elif kind is list: kind, how = json_list, dict(metavar="(json)")
                elif get_args(kind): kind = get_args(kind)[0]
                help = f"{docs.get(field.name, '')} ({default})".replace("%", "%%")
                extra.append(inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=None,
                                               annotation=Annotated[kind, help, how]))
        main.__signature__ = inspect.signature(main).replace(parameters=own + extra)
        main.__annotations__ |= {p.name: p.annotation for p in extra}
        return main
    return add


def preset(name: str, stage: str, from_nothing: bool = False) -> dict:
    "The values that a preset (a name, or a TOML file) has for a stage, and what it wants otherwise for random weights."
    path = PRESETS / f"{name}.toml" if not name.endswith(".toml") else Path(name)
    if not os.path.isfile(path):  # which a name that is too long is not either
        known = ", ".join(sorted(p.stem for p in PRESETS.glob("*.toml")))
        raise CliError(f"no preset is called {name!r}; there are: {known}")
    try: values = tomllib.loads(path.read_text()).get(stage)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e: raise CliError(f"{path}: {e}") from None
    if values is None: raise CliError(f"the preset {path} has no [{stage}]; give another, or its settings")
    other = values.pop("from_scratch", {}) if isinstance(values, dict) else None
    if not isinstance(other, dict): raise CliError(f"{path}: [{stage}] and its [from_scratch] must be tables")
    return values | other if from_nothing else values


def onward(name: str, stage: str) -> str:
    "The preset for the next stage: the same one, or `small` where it has nothing for that stage."
    path = PRESETS / f"{name}.toml"
    return name if not path.is_file() or stage in tomllib.loads(path.read_text()) else "small"


def variables(**named: str) -> str:
    "As `make` is given them, behind a target; its defaults are left out."
    usual = dict(PRESET="demo", DATASET="pydocs", SEED="0")
    return "".join(f" {k}={shlex.quote(v)}" for k, v in named.items() if v != usual[k])


def check(name: str, value, choices: Sequence[str] | None = None):
    "Refuse a value that its setting cannot have."
    flag, share = f"--{name.replace('_', '-')} {value!r}", name.endswith(SHARES) or name in ("decay", "beta1_low")
    if choices and value not in choices: raise CliError(f"{flag} is not one of: {', '.join(choices)}")
    if isinstance(value, float) and not math.isfinite(value): raise CliError(f"{flag} is not a finite number")
    if (least := LEAST.get(name, 0 if share else None)) is not None and value < least:
        raise CliError(f"{flag}: it must be at least {least}")
    # everything may be dropped, but not everything held out
    if share and (value >= 1 if name.endswith("_fraction") else value > 1):
        raise CliError(f"{flag}: it must be below 1")


def restored(block: type, values: dict):
    "An instance of a settings class; CliError where it has no such setting, or not with such a value."
    types = get_type_hints(block)
    if unknown := set(values) - set(types): raise CliError(f"no setting is called {', '.join(sorted(unknown))}")
    for f in fields(block):
        value, kind = values.get(f.name, default_of(f)), types[f.name]
        if not isinstance(value, kind) and not (isinstance(value, int) and isinstance(0.0, kind)):
            raise CliError(f"{f.name} = {value!r}: it must be of type {getattr(kind, '__name__', kind)}")
        if value is not None: check(f.name, value, f.metadata.get("choices"))
    return block(**values)


def choose(blocks: Sequence[type], values: dict, given: dict, model: str = "none",
           of_model: Sequence[type] = ()) -> list:
    """An instance of each settings class: `given` where it is not None, else the preset's `values`, else the default.

    What the classes `of_model` say, a `model` brings itself, if it is not `none`: to be given it is an error.
    """
    brought = {f.name for b in of_model if model != "none" for f in fields(b)}
    if idle := sorted(k for k in brought & set(given) if given[k] is not None):
        raise CliError(f"--{idle[0].replace('_', '-')} is the model's own: leave it out, or begin with --model none")
    known = {f.name for b in blocks for f in fields(b)}
    if unknown := set(values) - known:
        raise CliError(f"the preset sets {', '.join(sorted(unknown))}, which this stage does not know")
    merged = values | {k: v for k, v in given.items() if v is not None}
    return [restored(b, {f.name: merged[f.name] for f in fields(b) if f.name in merged}) for b in blocks]
