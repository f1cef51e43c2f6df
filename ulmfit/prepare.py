"""Text to ids, once: a dataset by name, or files of one's own, become a prepared corpus.

    python -m ulmfit.prepare imdb --out data/prepared/imdb
    python -m ulmfit.prepare reviews.csv --text-column review --label-column stars --out prepared/reviews
    python -m ulmfit.prepare books/ --kind lm --lang de --out prepared/books

The stages do this by themselves for a name or a path; a prepared folder is what one keeps, or takes to another machine.
"""
from pathlib import Path

from fastcore.script import call_parse

from .corpus.prepare import prepare
from .corpus.registry import open_source
from .text.tokenizer import TextSettings, Tokenizer
from .training.settings import choose, flags


@call_parse
@flags(TextSettings)
def main(
    source: str,  # name of a dataset (a card in data/), or a path
    out: Path = Path("prepared"),  # folder to write
    kind: str = None,  # lm | classification (default: as the source suggests)
    text_column: str = "text",  # column of the text, or several: title+body
    label_column: str = "label",  # column of the class
    encoding: str = "utf-8",  # of the files
    workers: int = None,  # processes (default: one a core)
    **given,
):
    "Tokenise a corpus and store its ids."
    settings, = choose([TextSettings], {}, given)
    opened = open_source(source, kind, text_column, label_column, encoding)
    corpus = prepare(opened, Tokenizer.named(settings), out, workers)
    for split, n in corpus.manifest["splits"].items():
        print(f"{split}: {n['documents']:,} documents, {n['tokens']:,} tokens")
    classes = f", classes: {', '.join(corpus.classes[:20])}" if corpus.classes else ""
    print(f"{len(corpus.lexicon):,} distinct tokens{classes}; in {out}")
