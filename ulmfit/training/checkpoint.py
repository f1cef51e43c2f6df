"""Checkpoints: one plain dictionary on disk, whole or absent."""
import os
from collections.abc import Callable
from pathlib import Path

import torch
from fastcore.script import CliError


def write_whole(path: Path, write: Callable[[Path], None]):
    "Let `write` fill a temporary file beside `path`, then put it in place: the old stays until the new is complete."
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(part)
        with open(part, "rb") as f: os.fsync(f.fileno())
        os.replace(part, path)
    finally: part.unlink(missing_ok=True)


def write_text(path: Path, text: str): write_whole(path, lambda p: p.write_text(text, encoding="utf-8"))


def save(path: Path, state: dict): write_whole(path, lambda p: torch.save(state, p))


def load(path: Path) -> dict:
    "Plain types and tensors only: nothing that is loaded can run code."
    try: return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:
        raise CliError(f"{path} cannot be read ({str(e).splitlines()[0]}); remove it to begin again") from e
