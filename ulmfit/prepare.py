"""Text to ids, once: a dataset by name, or files of one's own, become a prepared corpus.

    python -m ulmfit.prepare imdb --out data/prepared/imdb
    python -m ulmfit.prepare reviews.csv --text-column review --label-column stars --out prepared/reviews
    python -m ulmfit.prepare books/ --kind lm --lang de --out prepared/books
    python -m ulmfit.prepare wiki_ja/ --tokenizer subwords --subwords 15000 --out prepared/ja
    python -m ulmfit.prepare enwiki --shard 1/8 --out parts/1     (one of eight jobs; then ulmfit.merge joins them)

The stages do this by themselves for a name or a path; a prepared folder is what one keeps, or takes to another machine.
"""
import time
from pathlib import Path

from fastcore.script import CliError, call_parse

from .corpus.prepare import prepare
from .corpus.registry import open_source
from .corpus.store import describe
from .text.tokenizer import TextSettings, Tokenizer
from .training.settings import choose, flags


def shard_of(text: str) -> tuple[int, int]:
    "`2/8` as numbers."
    i, _, n = text.partition("/")
    if not (i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n)):
        raise CliError(f"--shard {text}: give which of how many, as 1/8 … 8/8")
    return int(i), int(n)


@call_parse
@flags(TextSettings)
def main(
    source: str,  # name of a dataset (a card in data/), or a path
    out: Path = Path("prepared"),  # folder to write
    kind: str = None,  # lm | classification (default: as the source suggests)
    text_column: str = "text",  # column of the text, or several: title+body
    label_column: str = "label",  # column of the class
    encoding: str = "utf-8",  # of the files
    leave_out: str = None,  # ids of WikiExtractor's pages: 12,345 (default: those of the card; none: no page)
    shard: str = None,  # prepare a part: 1/8 … 8/8
    workers: int = None,  # processes (default: one a core)
    **given,
):
    "Tokenise a corpus and store its ids."
    began = time.monotonic()
    if workers is not None and workers < 1: raise CliError(f"--workers {workers}: it must be at least 1")
    if not out.name: raise CliError(f"--out {out}: give a folder of its own")
    settings, = choose([TextSettings], {}, given)
    opened = open_source(source, kind, text_column, label_column, encoding, leave_out)
    part = shard_of(shard) if shard else None
    prepare(opened, Tokenizer.named(settings), out, workers, part)
    print(f"{describe(out)}\nin {time.monotonic() - began:.1f} s" + (
        "; when all shards are there: python -m ulmfit.merge SHARD … --out FOLDER" if part else ""))
