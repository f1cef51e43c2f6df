"""Files that are whole or absent: everything that a run writes goes through `write_whole`."""
import hashlib, os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fastcore.script import CliError


def write_whole(path: Path, write: Callable[[Path], None]):
    """Let `write` fill a temporary file beside `path`, then put it in place: the old one stays until then.

    Whatever happens, power failure included, `path` has its old content or its new one. CliError where it cannot be
    written, for want of space say.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        os.chmod(part, 0o666 & ~umask())  # some libraries write for the owner alone
        with open(part, "rb") as f: os.fsync(f.fileno())
        os.replace(part, path)
        sync(path.parent)
    # torch has a RuntimeError of its own for a full disk, safetensors an exception of its own
    except Exception as e:
        cause = next((c for c in causes(e) if isinstance(c, OSError)), e)
        why = getattr(cause, "strerror", None) or str(cause).splitlines()[0]
        raise CliError(f"{path} cannot be written ({why}); what was there before is as it was") from e
    finally:
        with suppress(OSError): part.unlink(missing_ok=True)  # what has no name that can be is not there


def write_text(path: Path, text: str): write_whole(path, lambda p: p.write_text(text, encoding="utf-8"))


def sha256(path: Path) -> str:
    with open(path, "rb") as f: return hashlib.file_digest(f, "sha256").hexdigest()


def causes(e: BaseException | None):
    "An exception and those that led to it."
    while e is not None:
        yield e
        e = e.__cause__ or e.__context__


def umask() -> int:
    "That of the process, which can only be seen by setting it."
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def sync(folder: Path):
    "Have the disk know of the folder's entries (where folders can be opened)."
    if os.name != "posix": return
    entries = os.open(folder, os.O_RDONLY)
    try: os.fsync(entries)
    finally: os.close(entries)
