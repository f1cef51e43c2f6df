"""Where a corpus comes from: a card in `data/`, or a path of one's own.

`open_source` gives a `Source`: its kind, its documents by split, and what identifies its content. The files of a card
are looked for in `$ULMFIT_DATA/<name>/`, then in `data/downloads/<name>/`, then fetched from their addresses.
"""
import hashlib, os, tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from pathlib import Path

from fastcore.script import CliError

from . import pydocs, readers
from .archives import Member
from .download import fetch
from .readers import Document

ROOT = Path(__file__).parents[2] / "data"
SUFFIXES = ("", ".xz", ".gz")
TABLES, TEXTS = (".csv", ".tsv"), (".txt",)
READERS = dict(wikitext=readers.read_wikitext, trec=readers.read_trec, trec_fine=partial(readers.read_trec, fine=True),
               wikiextractor=readers.read_wikiextractor, whole=readers.read_file, zhang=readers.read_zhang)
Stamp = tuple[int, int]
Place = Path | Member  # a file, a folder or a member of an archive


@dataclass
class Source:
    "A corpus before preparation."
    name: str
    kind: str  # lm | classification
    read: Callable[[], Iterator[tuple[str, Document]]]  # (split, document)
    files: list[Path] = field(default_factory=list)
    identity: str = ""  # what identifies the content beside the files
    notes: list[str] = field(default_factory=list)  # what the user should know, partial data for one
    classes: list[str] | None = None  # in their official order, if there is one
    expected: dict[str, int | dict[str, int]] = field(default_factory=dict)  # documents by split, or split and class

    @cached_property
    def fingerprint(self) -> str:
        "sha256 of the content."
        h = hashlib.sha256(self.identity.encode())
        for path in self.files: h.update(bytes.fromhex(sha256(path, stamp(path))))
        return h.hexdigest()

    def stamps(self) -> list[Stamp | None]:
        "The stamp of each file: another one after reading says that it was changed meanwhile."
        return list(map(stamp, self.files))


def stamp(path: Path) -> Stamp | None:
    "Size and time of change of a file; None where there is none."
    return (s.st_size, s.st_mtime_ns) if path.exists() and (s := path.stat()) else None


@lru_cache
def sha256(path: Path, stamp: Stamp | None) -> str:
    "Of a file with this stamp; computed once, though a card's check and the fingerprint ask, and each of its members."
    with open(path, "rb") as f: return hashlib.file_digest(f, "sha256").hexdigest()


def cards() -> dict[str, Path]: return {p.stem: p for p in sorted(ROOT.glob("*.toml"))}


def read_card(name: str) -> dict:
    "A card, as its file has it."
    if name not in cards(): raise CliError(f"no dataset is called {name!r}; there are: {', '.join(cards())}")
    return tomllib.loads(cards()[name].read_text(encoding="utf-8"))


def folders(card: dict) -> list[Path]:
    "Where a card's files may lie; downloads go to the last."
    name, mirror = card.get("folder", card["name"]), os.environ.get("ULMFIT_DATA")
    return [*([Path(mirror) / name] if mirror else []), ROOT / "downloads" / name]


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


def pages_of(leave_out: str | None) -> set[str]:
    "The ids in `12,345`; `none` is none."
    return {p.strip() for p in (leave_out or "").split(",") if p.strip() not in ("", "none")}


def no_pages(name: str) -> CliError: return CliError(f"{name}: --leave-out is for WikiExtractor's pages, it has none")


def files_of(places: list[Place]) -> list[Path]:
    "The files that some places are, or are in: those of a folder one by one, each archive once."
    paths = dict.fromkeys(place.archive if isinstance(place, Member) else place for place in places)
    return [f for p in paths for f in (sorted(filter(Path.is_file, p.rglob("*"))) if p.is_dir() else [p])]


def split_name(path: Path) -> str | None:
    "Which split a file or folder of the user's is, by its name."
    stem = path.name.split(".")[0].lower()
    known = dict(train=("train",), valid=("valid", "val", "dev"), test=("test",), unsup=("unsup", "unlabelled"))
    return next((s for s, names in known.items() if stem in names), None)


def open_path(path: Path, kind: str | None, text: str, label: str, encoding: str,
              leave_out: str | None = None) -> Source:
    "A corpus of the user's own: a file, or a folder of files, of `train/<label>/*.txt` or of WikiExtractor's output."
    def is_wanted(p): return p.is_file() and (set(p.suffixes) & {*TABLES, *TEXTS} or p.name.startswith("wiki_"))
    files = sorted(filter(is_wanted, path.rglob("*"))) if path.is_dir() else [path]
    if not files: raise CliError(f"{path}: no .txt, .csv or .tsv file in it")
    tables = [p for p in files if set(p.suffixes) & set(TABLES)]
    kind = kind or ("classification" if tables or (path / "train").is_dir() else "lm")
    places = [str(p.relative_to(path)) if p != path else p.name for p in files]  # they tell form and split
    name, identity = path.name.split(".")[0], f"{kind} {text} {label} {encoding} {leave_out} {places}"

    def split_of(p):
        "By the name of the file, or of a folder within `path` that it is in."
        return next((s for q in (p, *(q for q in p.parents if path in q.parents)) if (s := split_name(q))), "train")

    def splits(): return [(split_name(p) or "train", p) for p in (tables if path.is_dir() else files)]
    def label_of(split): return label if kind == "classification" and split != "unsup" else None

    if (tables or kind == "classification") and leave_out is not None: raise no_pages(path)
    if tables:
        def read(): return ((s, d) for s, p in splits() for d in readers.read_table(p, text, label_of(s), encoding))
    elif kind == "classification":
        inside = sorted(path.iterdir()) if path.is_dir() else []
        subfolders = [(s, p) for p in inside if p.is_dir() and (s := split_name(p))]
        if not subfolders:
            raise CliError(f"{path}: for classification give a CSV or TSV, or a folder with train/<label>/*.txt")
        def read(): return ((s, d) for s, p in subfolders for d in readers.read_label_folders(p, encoding))
    else:
        def read():
            for p in files:
                form = readers.sniff_text(p, encoding)
                if form is readers.read_wikiextractor: form = partial(form, leave_out=pages_of(leave_out))
                elif leave_out is not None: raise no_pages(p)
                # in a folder of plain texts a file is a document
                if form is readers.read_paragraphs and path.is_dir(): form = readers.read_file
                yield from ((split_of(p), d) for d in form(p, encoding))
    return Source(name, kind, read, files, identity)


def open_source(name_or_path: str, kind: str | None = None, text: str = "text", label: str = "label",
                encoding: str = "utf-8", leave_out: str | None = None) -> Source:
    "The corpus that a name (a card) or a path stands for."
    if name_or_path in cards(): return open_card(name_or_path, kind, leave_out)
    if (path := Path(name_or_path)).exists(): return open_path(path, kind, text, label, encoding, leave_out)
    raise CliError(f"{name_or_path} is neither a file or folder nor a name of these: {', '.join(cards())}")
