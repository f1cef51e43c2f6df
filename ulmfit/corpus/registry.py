"""Where a corpus comes from: a card in `data/`, or a path of one's own.

`open_source` gives a `Source`: its kind, its documents by split, and what identifies its content.
"""
import hashlib, os, tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fastcore.script import CliError

from . import pydocs, readers
from .readers import Document

ROOT = Path(__file__).parents[2] / "data"
SUFFIXES = ("", ".xz", ".gz")
TABLES, TEXTS = (".csv", ".tsv"), (".txt",)


@dataclass
class Source:
    "A corpus before preparation."
    name: str
    kind: str  # lm | classification
    read: Callable[[], Iterator[tuple[str, Document]]]  # (split, document), split by split
    files: list[Path] = field(default_factory=list)
    identity: str = ""  # what identifies the content beside the files
    notes: list[str] = field(default_factory=list)  # what the user should know, partial data for one
    classes: list[str] | None = None  # in their official order, if there is one
    expected: dict[str, int] = field(default_factory=dict)  # documents by split, as the card has them

    def fingerprint(self) -> str:
        "sha256 of the content."
        h = hashlib.sha256(self.identity.encode())
        for path in self.files:
            with open(path, "rb") as f: h.update(hashlib.file_digest(f, "sha256").digest())
        return h.hexdigest()


def cards() -> dict[str, Path]: return {p.stem: p for p in sorted(ROOT.glob("*.toml"))}


def find_file(card: dict, about: dict) -> tuple[Path, bool]:
    """A card's file where it lies, and whether it is complete.

    It lies in `$ULMFIT_DATA/<name>/` or else `data/downloads/<name>/`, also as .xz or .gz. A file that has the card's
    own name is checked against the card's size and sha256.
    """
    mirror = os.environ.get("ULMFIT_DATA")
    folders = [*([Path(mirror) / card["name"]] if mirror else []), ROOT / "downloads" / card["name"]]
    for names, complete in (([about["name"], *about.get("also", [])], True), (about.get("partial", []), False)):
        for path in (folder / f"{name}{suffix}" for folder in folders for name in names for suffix in SUFFIXES):
            if path.is_file():
                if path.name == about["name"] and "sha256" in about: check(path, about)
                return path, complete
    size = f" ({about['bytes']:,} bytes, sha256 {about['sha256']})" if "sha256" in about else ""
    where = f" from {about['urls'][0]}" if about.get("urls") else ""
    raise CliError(f"{card['name']}: {about['name']}{size} is not here; get it{where} and put it into {folders[-1]}/, "
                   "or point ULMFIT_DATA at a folder that has it")


def check(path: Path, about: dict):
    "Refuse a file whose size or sha256 is not the card's."
    if (size := path.stat().st_size) != about["bytes"]:
        raise CliError(f"{path}: {size:,} bytes, the card says {about['bytes']:,}")
    with open(path, "rb") as f: found = hashlib.file_digest(f, "sha256").hexdigest()
    if found != about["sha256"]: raise CliError(f"{path}: sha256 is {found}, the card says {about['sha256']}")


def open_card(name: str, kind: str | None) -> Source:
    "A corpus that has a card."
    card = tomllib.loads(cards()[name].read_text())
    kinds = card["kinds"]
    if (kind := kind or kinds[0]) not in kinds:
        raise CliError(f"{name} is a corpus for {' and '.join(kinds)}, not for {kind}")
    if card["reader"] == "pydocs":
        return Source(name, kind, pydocs.read_general if kind == "lm" else pydocs.read_task,
                      identity=pydocs.fingerprint())
    found = [find_file(card, about) for about in card["files"]]
    notes = [f"{name}: {path.name} is only a part of {about['name']}"
             for (path, whole), about in zip(found, card["files"]) if not whole]
    expected = {} if notes else card.get("documents", {})
    classes = card.get("classes")
    if card["reader"] == "imdb":
        archive = found[0][0]
        return Source(name, kind, lambda: readers.read_imdb(archive), [archive], "imdb", notes, classes, expected)
    read = dict(wikitext=readers.read_wikitext, trec=readers.read_trec, wikiextractor=readers.read_wikiextractor,
                lines=readers.read_lines, whole=readers.read_file,
                zhang=lambda p: readers.read_zhang(p, classes))[card["reader"]]
    parts = [(about["split"], path) for (path, _), about in zip(found, card["files"])]
    return Source(name, kind, lambda: ((s, d) for s, p in parts for d in read(p)), [p for _, p in parts],
                  card["reader"], notes, classes, expected)


def split_name(path: Path) -> str | None:
    "Which split a file or folder of the user's is, by its name."
    stem = path.name.split(".")[0].lower()
    known = dict(train=("train",), valid=("valid", "val", "dev"), test=("test",), unsup=("unsup", "unlabelled"))
    return next((s for s, names in known.items() if stem in names), None)


def open_path(path: Path, kind: str | None, text: str, label: str, encoding: str) -> Source:
    "A corpus of the user's own: a file, or a folder of files or of `train/<label>/*.txt`."
    wanted = {*TABLES, *TEXTS}
    files = sorted(p for p in path.rglob("*") if p.is_file() and set(p.suffixes) & wanted) if path.is_dir() else [path]
    if not files: raise CliError(f"{path}: no .txt, .csv or .tsv file in it")
    tables = [p for p in files if set(p.suffixes) & set(TABLES)]
    kind = kind or ("classification" if tables or (path / "train").is_dir() else "lm")
    places = [str(p.relative_to(path)) for p in files]
    name, identity = path.name.split(".")[0], f"{kind} {text} {label} {encoding} {places}"

    def split_of(p):
        "By the name of the file, or of a folder within `path` that it is in."
        return next((s for q in (p, *(q for q in p.parents if path in q.parents)) if (s := split_name(q))), "train")

    def splits(): return [(split_name(p) or "train", p) for p in (tables if path.is_dir() else files)]
    def label_of(split): return label if kind == "classification" and split != "unsup" else None

    if tables:
        def read(): return ((s, d) for s, p in splits() for d in readers.read_table(p, text, label_of(s), encoding))
    elif kind == "classification":
        inside = sorted(path.iterdir()) if path.is_dir() else []
        folders = [(s, p) for p in inside if p.is_dir() and (s := split_name(p))]
        if not folders:
            raise CliError(f"{path}: for classification give a CSV or TSV, or a folder with train/<label>/*.txt")
        def read(): return ((s, d) for s, p in folders for d in readers.read_label_folders(p, encoding))
    else:
        def read():
            for p in files:
                form = readers.sniff_text(p, encoding)
                # in a folder of plain texts a file is a document
                if form is readers.read_paragraphs and path.is_dir(): form = readers.read_file
                yield from ((split_of(p), d) for d in form(p, encoding))
    return Source(name, kind, read, files, identity)


def open_source(name_or_path: str, kind: str | None = None, text: str = "text", label: str = "label",
                encoding: str = "utf-8") -> Source:
    "The corpus that a name (a card) or a path stands for."
    if name_or_path in cards(): return open_card(name_or_path, kind)
    if (path := Path(name_or_path)).exists(): return open_path(path, kind, text, label, encoding)
    raise CliError(f"{name_or_path} is neither a file or folder nor a name of these: {', '.join(cards())}")
