"""A corpus before preparation: its documents, and what identifies its content.

The sha256 of a large file is kept in `data/prepared/hashes.json` beside the file's stamp, so that a corpus which is
there is found at once, however large; `ulmfit.data check` reads the files themselves.
"""
import hashlib, json, os, time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

from fastcore.script import CliError

from .archives import Member
from .readers import Document

ROOT = Path(__file__).parents[2] / "data"
LARGE, SETTLED = 1 << 26, 2.0  # bytes; seconds since its last change after which another change has another stamp
Stamp = tuple[int, int, int, int]
Place = Path | Member  # a file, a folder or a member of an archive


def in_data(path: str) -> Path:
    "A place in `data/`, where cards, downloads and prepared corpora are."
    return ROOT / path


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
        h = hashlib.sha256(self.identity.encode(errors="backslashreplace"))  # names of files may be no text
        for path in self.files: h.update(bytes.fromhex(sha256(path, stamp(path))))
        return h.hexdigest()

    def stamps(self) -> list[Stamp | None]:
        "The stamp of each file: another one after reading says that it was changed meanwhile."
        return list(map(stamp, self.files))


def stamp(path: Path) -> Stamp | None:
    "Size, times of change and number of a file; None where there is none."
    return (s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) if path.exists() and (s := path.stat()) else None


@lru_cache
def sha256(path: Path, stamp: Stamp | None) -> str:
    "Of a file with this stamp; computed once, though a card's check and the fingerprint ask, and each of its members."
    if stamp is None or stamp[0] < LARGE: return digest(path)
    known, name = known_hashes(), str(path.resolve())
    if (there := known.get(name)) and there[1:] == [*stamp]: return there[0]
    settled = time.time() - max(stamp[1:3]) / 1e9 > SETTLED
    found = digest(path)
    if settled: remember(known | {name: [found, *stamp]})
    return found


def digest(path: Path) -> str:
    with open(path, "rb") as f: return hashlib.file_digest(f, "sha256").hexdigest()


def known_hashes() -> dict[str, list]:
    try: known = json.loads(in_data("prepared/hashes.json").read_text(encoding="utf-8"))
    except (OSError, ValueError): return {}
    return known if isinstance(known, dict) else {}


def remember(hashes: dict[str, list]):
    "A convenience: where it cannot be written, the next preparation hashes again."
    path = in_data("prepared/hashes.json")
    part = path.with_name(f".hashes.{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(hashes, indent=0), encoding="utf-8")
        part.replace(path)


def files_of(places: list[Place]) -> list[Path]:
    "The files that some places are, or are in: those of a folder one by one, each archive once."
    paths = dict.fromkeys(place.archive if isinstance(place, Member) else place for place in places)
    return [f for p in paths for f in (sorted(filter(Path.is_file, p.rglob("*"))) if p.is_dir() else [p])]


def pages_of(leave_out: str | None) -> set[str]:
    "The ids in `12,345`; `none` is none."
    return {p.strip() for p in (leave_out or "").split(",") if p.strip() not in ("", "none")}


def no_pages(name: str) -> CliError: return CliError(f"{name}: --leave-out is for WikiExtractor's pages, it has none")
