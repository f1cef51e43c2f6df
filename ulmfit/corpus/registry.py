"""The datasets that have a card in `data/`, and the door to all: a name or a path becomes a `Source`.

The files of a card are looked for in `$ULMFIT_DATA/<name>/`, then in `data/downloads/<name>/`, then fetched from their
addresses.
"""
import os, tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from fastcore.script import CliError

from . import pydocs, readers
from .archives import Member
from .download import fetch
from .own import open_path
from .source import Place, Source, files_of, in_data, no_pages, pages_of, sha256, stamp

SUFFIXES = ("", ".xz", ".gz")
READERS = dict(wikitext=readers.read_wikitext, trec=readers.read_trec, trec_fine=partial(readers.read_trec, fine=True),
               wikiextractor=readers.read_wikiextractor, whole=readers.read_file, zhang=readers.read_zhang)


def cards() -> dict[str, Path]: return {p.stem: p for p in sorted(in_data("").glob("*.toml"))}


def read_card(name: str) -> dict:
    "A card, as its file has it."
    if name not in cards(): raise CliError(f"no dataset is called {name!r}; there are: {', '.join(cards())}")
    return tomllib.loads(cards()[name].read_text(encoding="utf-8"))


def folders(card: dict) -> list[Path]:
    "Where a card's files may lie; downloads go to the last."
    name, mirror = card.get("folder", card["name"]), os.environ.get("ULMFIT_DATA")
    return [*([Path(mirror) / name] if mirror else []), in_data("downloads") / name]


def first_existing(card: dict, about: dict, names: list[str]) -> Path | None:
    "The first of some names, plain or compressed, in a card's folders; what has the card's own name is checked."
    for path in (folder / f"{name}{suffix}" for folder in folders(card) for name in names for suffix in SUFFIXES):
        if path.exists():
            if path.name == about["name"] and "sha256" in about: check(path, about)
            return path


def find(card: dict, about: dict) -> tuple[Place | None, bool]:
    "A card's file where it lies, alone or in the card's archive, and whether it is complete."
    if path := first_existing(card, about, [about["name"], *about.get("also", [])]): return path, True
    if (archive := card.get("archive")) and (path := first_existing(card, archive, [archive["name"]])):
        return Member(path, about["member"]), True
    return first_existing(card, about, about.get("partial", [])), False


def check(path: Path, about: dict):
    "Refuse a file whose size or sha256 is not the card's."
    if (size := path.stat().st_size) != about["bytes"]:
        raise CliError(f"{path}: {size:,} bytes, the card says {about['bytes']:,}")
    if (found := sha256(path, stamp(path))) != about["sha256"]:
        raise CliError(f"{path}: sha256 is {found}, the card says {about['sha256']}")


def get(card: dict, about: dict) -> Place:
    "Fetch a card's file, or the archive that has it, into the downloads; what is there already stays."
    whole, folder = about if about.get("urls") else card.get("archive", about), folders(card)[-1]
    path, or_else = folder / whole["name"], f"or point ULMFIT_DATA at a folder that has {folder.name}/{whole['name']}"
    if not whole.get("urls") and not path.exists():
        raise CliError(f"{card['name']}: {whole['name']} is not here and has no address; {card.get('how', 'get it')}, "
                       f"and put it into {folder}/, {or_else}")
    try: fetch(whole.get("urls", []), path, whole.get("bytes"), whole.get("sha256"))
    except CliError as e: raise CliError(f"{card['name']}: {e}; {or_else}") from None
    return path if whole is about else Member(path, about["member"])


def open_card(name: str, kind: str | None, leave_out: str | None = None) -> Source:
    "A corpus that has a card."
    card = read_card(name)
    if (kind := kind or card["kinds"][0]) not in card["kinds"]:
        raise CliError(f"{name} is a corpus for {' and '.join(card['kinds'])}, not for {kind}")
    if leave_out is not None and card["reader"] != "wikiextractor": raise no_pages(name)
    if card["reader"] == "pydocs":
        return Source(name, kind, pydocs.read_general if kind == "lm" else pydocs.read_task,
                      identity=pydocs.fingerprint())
    abouts, notes = card["files"], []
    found = [find(card, about) for about in abouts]
    for i, (place, _) in enumerate(found):
        if place is None:
            try: found[i] = get(card, abouts[i]), True
            except CliError as e:
                if not any(place for place, _ in found): raise
                notes.append(f"{name}: without {abouts[i]['name']}, which is not here ({e})")
    notes += [f"{name}: {place.name} is only a part of {about['name']}"
              for (place, whole), about in zip(found, abouts) if place and not whole]
    read, more = reader_of(card, leave_out)
    parts = [(about.get("split"), place) for (place, _), about in zip(found, abouts) if place]
    if more: notes.append(f"{name}: {more}")
    as_the_card_says = leave_out is None and all(place and whole for place, whole in found)

    def documents():
        for split, place in parts:
            for d in read(place): yield d if split is None else (split, d)
    return Source(name, kind, documents, files_of([place for _, place in parts]), f"{card['reader']} {more}", notes,
                  card.get("classes"), card.get("documents", {}) if as_the_card_says else {})


def reader_of(card: dict, leave_out: str | None) -> tuple[Callable, str]:
    "What reads a card's files, and what it leaves out, in words."
    if card["reader"] == "imdb": return readers.read_imdb, ""
    read = READERS[card["reader"]]
    if card["reader"] == "zhang": return partial(read, names=card["classes"]), ""
    if pages := pages_of(",".join(card.get("leave_out", [])) if leave_out is None else leave_out):
        return partial(read, leave_out=pages), f"without the pages {', '.join(sorted(pages))}"
    return read, ""


def open_source(name_or_path: str, kind: str | None = None, text: str = "text", label: str = "label",
                encoding: str = "utf-8", leave_out: str | None = None) -> Source:
    "The corpus that a name (a card) or a path stands for."
    if name_or_path in cards(): return open_card(name_or_path, kind, leave_out)
    path = Path(name_or_path)
    try: there = path.exists()
    except OSError: there = False  # no name of a file at all
    if there: return open_path(path, kind, text, label, encoding, leave_out)
    raise CliError(f"{name_or_path} is neither a file or folder nor a name of these: {', '.join(cards())}")
