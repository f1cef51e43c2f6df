"""Shards of a corpus, prepared by several jobs or machines, become one prepared corpus.

    python -m ulmfit.prepare enwiki --shard 1/2 --out parts/1
    python -m ulmfit.prepare enwiki --shard 2/2 --out parts/2
    python -m ulmfit.merge parts/1 parts/2 --out data/prepared/enwiki

The result is, bit by bit, that of one run.
"""
from pathlib import Path
from typing import Annotated

from fastcore.script import call_parse

from .corpus.shards import merge
from .corpus.store import describe


@call_parse
def main(
    shards: Annotated[str, "folders of all the shards, in any order", dict(nargs="+")],
    out: Path = Path("prepared"),  # folder to write
):
    "Join the shards of a corpus."
    merge([Path(s) for s in ([shards] if isinstance(shards, (str, Path)) else shards)], out)
    print(describe(out))
