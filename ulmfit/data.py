"""The datasets: which are here, fetching them, checking them, and a look at one before training on it.

    python -m ulmfit.data list                       every card: here, in part or missing, and where
    python -m ulmfit.data get imdb                   fetch its files into data/downloads/
    python -m ulmfit.data check imdb                 files against size and sha256, documents and words against the card
    python -m ulmfit.data show imdb --plot imdb.png  counts, lengths, classes, unknown words, duplicates, some documents

`check` and `show` also take a path of one's own or a prepared corpus.
"""
import hashlib, os
from collections import Counter
from pathlib import Path

from fastcore.script import CliError, call_parse

from .corpus.archives import Member, open_bytes
from .corpus.picture import draw
from .corpus.prepare import prepared, say
from .corpus.registry import cards, find, first_existing, get, open_source, read_card
from .corpus.statistics import report
from .corpus.store import MANIFEST, check_files, describe, read_manifest
from .text.tokenizer import TextSettings, Tokenizer
from .text.vocab import VocabSettings
from .training.settings import choose, flags, natural


def state(card: dict) -> tuple[str, str]:
    "What of a dataset is here, in words, and where."
    if card["reader"] == "pydocs": return "here", "the libraries that are installed"
    try: found = [find(card, about) for about in card["files"]]
    except CliError as e: return "damaged", str(e)
    where = ", ".join(dict.fromkeys(str((p.archive if isinstance(p, Member) else p).parent) for p, _ in found if p))
    lacking = [about["name"] for about, (place, _) in zip(card["files"], found) if place is None]
    parts = [place.name for place, whole in found if place and not whole]
    if len(lacking) == len(found):
        size = sum(a.get("bytes", 0) for a in ([card["archive"]] if "archive" in card else card["files"]))
        return "missing", f"{size / 1e6:,.0f} MB to fetch" if urls_of(card) else f"no address: {card.get('how', '')}"
    if lacking or parts:
        return "in part", where + "".join([f", without {', '.join(lacking)}" * bool(lacking),
                                           f", only {', '.join(parts)}" * bool(parts)])
    return "here", where


def urls_of(card: dict) -> list[str]:
    return [u for a in (card.get("archive", {}), *card["files"]) for u in a.get("urls", [])]


def list_all():
    "A table of all cards."
    rows = [("name", "kind", "state", "where")]
    for name in cards():
        card = read_card(name)
        rows.append((name, "lm" if card["kinds"] == ["lm"] else "classification", *state(card)))
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows: print("  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip())


def get_all(name: str):
    "Fetch what is missing of a dataset."
    card = read_card(name)
    if card["reader"] == "pydocs": return print(f"{name} is made of the libraries that are installed")
    for about in card["files"]:
        place, whole = find(card, about)
        if place is None or not whole: place = get(card, about)
        print(f"{about['name']}: {place}")


def check_one(name: str, kind: str | None, **how):
    "Count what is there, and hold it against the card."
    if os.path.isfile(Path(name) / MANIFEST):
        check_files(Path(name), read_manifest(Path(name))["files"], contents=True)
        return print(f"{describe(Path(name))}\nevery file is as it was written")
    card = read_card(name) if name in cards() else {}
    archive = [card["archive"]] if "archive" in card else []
    for about in [*archive, *card.get("files", [])]: check_contents(card, about)
    source = open_source(name, kind, **how)
    say(source.notes)
    promised_words, promised = card.get("words", {}), card.get("documents", {})
    documents, words = {split: Counter() for split in promised}, Counter()
    for split, (text, label) in source.read():
        documents.setdefault(split, Counter())[label] += 1
        words[split] += len(text.split())
    wrong = []
    for split, counts in documents.items():
        expected = promised.get(split)
        print(f"{split}: {compared(counts.total(), expected, wrong)} documents, "
              f"{compared(words[split], promised_words.get(split), wrong)} words")
        of_class = expected if isinstance(expected, dict) else {}
        for label in sorted(filter(None, {*counts, *of_class})):
            print(f"    {label}: {compared(counts[label], of_class.get(label), wrong)}")
    if source.notes and not source.expected: print("in part, or not as the card has it (see the notes)")
    elif wrong: raise CliError(f"{name}: {wrong[0]}")
    else: print("as the card says" if promised or promised_words else "nothing is promised of its numbers")


def compared(found: int, promised: int | dict | None, wrong: list[str]) -> str:
    "A number, with the card's where it differs; that is noted in `wrong`."
    if isinstance(promised, dict): promised = sum(promised.values())
    if promised in (None, found): return f"{found:,}"
    wrong.append(f"{found:,} found where the card says {promised:,}")
    return f"{found:,} (the card says {promised:,})"


def check_contents(card: dict, about: dict):
    "A file, or a compressed copy of it, must hold what the card says of it; it is read, whatever is known of it."
    if "sha256" not in about: return
    place = first_existing(card, about, [about["name"]])
    if place is None: return
    with open(place, "rb") if place.name == about["name"] else open_bytes(place) as f:
        found = hashlib.file_digest(f, "sha256").hexdigest()
    if found != about["sha256"]:
        raise CliError(f"{place}: sha256 of its content is {found}, the card says {about['sha256']}")


@call_parse(pos=["name"])
@flags(TextSettings, VocabSettings)
def main(
    action: str,  # list | get | check | show
    name: str = None,  # dataset; for check and show also a path or a prepared corpus
    kind: str = None,  # lm | classification (default: as the source suggests)
    documents: int = 3,  # show: so many documents as tokens
    plot: Path = None,  # show: a picture to write (.png, .svg, .pdf)
    seed: natural = 0,  # show: of the documents drawn
    text_column: str = "text",  # of one's own table; several: title+body
    label_column: str = "label",  # of one's own table
    encoding: str = "utf-8",  # of one's own files
    **given,
):
    "List, fetch, check and show datasets."
    text, vocab = choose([TextSettings, VocabSettings], {}, given)
    if action not in ("list", "get", "check", "show"):
        raise CliError(f"{action!r} is not one of: list, get NAME, check NAME, show NAME")
    if action == "list": return list_all()
    if not name: raise CliError(f"which dataset? give one of: {', '.join(cards())}")
    if action == "get": return get_all(name)
    if action == "check": return check_one(name, kind, text=text_column, label=label_column, encoding=encoding)
    if documents < 0: raise CliError(f"--documents {documents}: it must be at least 0")
    corpus = prepared(name, kind, Tokenizer.named(text), text_column, label_column, encoding)
    words = corpus.vocab(["train"], vocab.max_vocab, vocab.min_freq)
    print(report(corpus, words, documents, seed))
    if plot:
        draw(corpus, words, plot)
        print(f"\na picture of it is in {plot}")
