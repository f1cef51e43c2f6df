"What the tests of corpora share: files to write, errors to expect."
import gzip
import lzma
from pathlib import Path

from fastcore.script import CliError
from ulmfit.corpus.source import Source
from ulmfit.locks import Busy

PACK = {"": lambda b: b, ".gz": gzip.compress, ".xz": lzma.compress}


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def texts(documents) -> list[str]: return [text for text, _ in documents]


def by_split(source: Source) -> dict[str, list]:
    found = {}
    for split, document in source.read(): found.setdefault(split, []).append(document)
    return found


def says(*parts: str):
    "One line of error that has all of these."
    class Says:
        def __enter__(self): return self
        def __exit__(self, kind, error, _):
            assert kind in (CliError, Busy), f"{kind} instead of an error for the user"
            assert "\n" not in str(error)
            for part in parts: assert part in str(error), str(error)
            return True
    return Says()
