"""Benchmarks by name.

    python -m experiments.bench tokenize --input imdb [--documents 25000] [--peer fastai] [--json]

One JSON object a contender with `--json`, else a table. `--peer fastai` needs `make bench-peers`.
"""
from json import dumps
from pathlib import Path

from fastcore.script import CliError, call_parse

from ulmfit.training.files import write_text

from . import tokenize
from .rounds import machine

RESULTS = Path(__file__).parents[1] / "results" / "bench"


def table(rows: list[dict]) -> str:
    "Rows under the columns of the first, aligned."
    cells = [list(rows[0]), *([f"{v:,}" if isinstance(v, (int, float)) and not isinstance(v, bool) else str(v)
                               for v in (r.get(k, "") for k in rows[0])] for r in rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    return "\n".join("  ".join(c.rjust(w) for c, w in zip(line, widths)) for line in cells)


@call_parse(pos=["what"])
def main(
    what: str,  # tokenize
    input: str = "imdb",  # tokenize: a dataset by name, or a file
    documents: int = 25_000,  # tokenize: so many of its documents (0: all)
    peer: str = None,  # fastai
    rounds: int = 3,  # of each contender
    json: bool = False,  # print JSON, an object a contender
    save: bool = False,  # keep the figures in experiments/results/bench/
):
    "Measure, beside a peer if there is one."
    if what != "tokenize": raise CliError(f"no benchmark is called {what!r}; there is: tokenize")
    if peer not in (None, "fastai"): raise CliError(f"no peer is called {peer!r}; there is: fastai")
    rows = tokenize.compare(input, documents, peer, rounds)
    print("\n".join(map(dumps, rows)) if json else table(rows))
    if save: write_text(RESULTS / f"{what}.json", dumps(dict(machine=machine(), contenders=rows), indent=1) + "\n")
