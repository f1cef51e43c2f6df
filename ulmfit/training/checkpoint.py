"""Checkpoints: the last two and the best weights, each with a note of its bytes and sha256.

    checkpoint/step-000123.pt       where a run was: plain types and tensors, nothing that could run code
    checkpoint/step-000123.json     what it must be like, and which file has the best weights so far
    checkpoint/best-000100.pt       weights, likewise with a note

A note is written after its file and removed before it: a file without one was not finished. A flipped byte loads
without complaint in torch as elsewhere, so the hash is checked; what is damaged is named, and the one before it used.
"""
import json, sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from fastcore.script import CliError

from ..locks import alone
from .files import sha256, write_text, write_whole

KEPT, LOCK = 2, "lock"


class Damaged(Exception): "A checkpoint that is not what was written, and why."


class Checkpoints:
    "Those of a run, in a folder of their own; of several processes one `writes`."
    def __init__(self, folder: Path, writes: bool = True):
        self.folder, self.writes, self.damaged = Path(folder), writes, []

    def save(self, step: int, state: dict, best: str | None = None):
        "Keep the state at a step; with the good one before it and the best weights that they name, no others stay."
        if not self.writes: return
        while self.damaged: remove(self.damaged.pop())
        write(self.folder / f"step-{step:06}.pt", state, best=best)
        kept, old = (notes := self.notes())[:KEPT], notes[KEPT:]
        for note in old: remove(note)
        named = {json.loads(note.read_text()).get("best") for note in kept}
        for path in self.folder.glob("best-*.pt"):
            if path.name not in named: remove(path.with_suffix(".json"))

    def save_best(self, step: int, weights: dict) -> str:
        "Keep weights, beside those of before until a later checkpoint names these; returns the file's name."
        path = self.folder / f"best-{step:06}.pt"
        if self.writes: write(path, weights)
        return path.name

    def newest(self) -> dict | None:
        """The last state that is as it was written. CliError where none is left of any.

        What is damaged is said, and gone when the next one is saved.
        """
        notes, last = self.notes(), None
        for note in notes:
            try: return read(note)
            except Damaged as e:
                last = e
                self.damaged.append(note)
                print(f"{e}; the checkpoint before it is used" if note is not notes[-1] else str(e), file=sys.stderr)
        if last: raise CliError(f"{last}, and there is no other; remove {self.folder} to begin again")

    def best(self, name: str) -> dict:
        "The best weights, of that name."
        try: return read((self.folder / name).with_suffix(".json"))
        except Damaged as e: raise CliError(f"{e}; remove {self.folder} to begin again") from None

    @contextmanager
    def held(self) -> Iterator[None]:
        "For this process alone, while it trains; Busy where another one does."
        why = f"another process is at work on {self.folder.parent}; wait for it, or give another --out"
        with ExitStack() as stack:
            stack.callback(remove_empty, self.folder, self.folder.parent)  # it may end before there is anything to keep
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(alone(self.folder / LOCK, why))
            except OSError as e: raise CliError(f"{self.folder} cannot be written ({e.strerror})") from None
            yield

    def notes(self) -> list[Path]:
        "Of the states, the newest first."
        return sorted(self.folder.glob("step-*.json"), key=lambda path: (len(path.name), path.name), reverse=True)

    def remove(self):
        "All of them, and the folder if nothing else is in it."
        if not self.writes: return
        for note in [*self.notes(), *self.folder.glob("best-*.json")]: remove(note)
        remove_empty(self.folder)


def remove_empty(*folders: Path):
    "Each as long as there is nothing in it."
    for folder in folders:
        try: folder.rmdir()
        except OSError: return


def digest(path: Path) -> dict:
    return dict(bytes=path.stat().st_size, sha256=sha256(path))


def write(path: Path, content: dict, **about):
    "A file and its note; a note of before goes first, as it would be of another file."
    path.with_suffix(".json").unlink(missing_ok=True)
    write_whole(path, lambda p: torch.save(content, p))
    write_text(path.with_suffix(".json"), json.dumps(digest(path) | about, indent=1) + "\n")


def read(note: Path) -> dict:
    "What a note's file holds; `Damaged` where it is not what the note says."
    path = note.with_suffix(".pt")
    try:
        about = json.loads(note.read_text())
        found = digest(path)
        for what in ("bytes", "sha256"):
            if found[what] != about[what]:
                raise Damaged(f"{path} is damaged ({what} {found[what]}, {about[what]} written)")
        return torch.load(path, map_location="cpu", weights_only=True)
    except Damaged: raise
    except FileNotFoundError as e: raise Damaged(f"{e.filename} is missing") from None
    except Exception as e: raise Damaged(f"{path} cannot be read ({str(e).splitlines()[0]})") from None


def remove(note: Path):
    note.unlink(missing_ok=True)
    note.with_suffix(".pt").unlink(missing_ok=True)
