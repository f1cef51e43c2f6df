"""Files and members of archives as streams of bytes. An archive is read where it lies; nothing is unpacked.

A file may be plain, `.gz` or `.xz`; an archive tar (compressed or not) or zip. What is damaged becomes one line of
error, and so does an archive with a member that points out of it, as none of the corpora has: its other members are not
to be trusted either.
"""
import gzip, io, lzma, tarfile, zipfile, zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from fastcore.script import CliError

COMPRESSED = {".gz": gzip.open, ".xz": lzma.open}
SYMLINK = 0o12  # the kind of a file in the first four bits of a zip member's attributes
DAMAGE = (EOFError, lzma.LZMAError, gzip.BadGzipFile, zlib.error, tarfile.TarError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Member:
    "A file within an archive; it stands where a path does."
    archive: Path
    name: str

    def __str__(self) -> str: return f"{self.archive}/{self.name}"


@contextmanager
def readable(path: Path | Member):
    "What is damaged in a file or archive is one line."
    try: yield
    except DAMAGE as e: raise CliError(f"{path}: damaged archive ({str(e) or type(e).__name__})") from None


@contextmanager
def open_bytes(path: Path | Member) -> Iterator[BinaryIO]:
    "A file, or a member of an archive, opened to be read from its beginning."
    with readable(path):
        if not isinstance(path, Member):
            with COMPRESSED.get(path.suffix, open)(path, "rb") as f: yield f
        elif path.archive.suffix == ".zip":
            with zipfile.ZipFile(path.archive) as archive:
                for info in archive.infolist():
                    check_member(path.archive, info.filename, info.external_attr >> 28 == SYMLINK)
                if path.name not in archive.namelist(): raise missing(path)
                try: member = archive.open(path.name)
                except RuntimeError as e: raise CliError(f"{path}: {e}") from None  # encrypted, or packed unusually
                with member as f: yield f
        else:
            with closing(tar_members(path.archive)) as members:
                found = next((f for name, f in members if name == path.name), None)
                if found is None: raise missing(path)
                yield io.BufferedReader(OneWay(found))
                for _ in members: pass  # what stands behind it is checked too


class OneWay(io.RawIOBase):
    "A member of a tar that is read as a stream: it does not know whether it could be read elsewhere, which text asks."
    def __init__(self, member: BinaryIO): self.member = member
    def readable(self) -> bool: return True
    def readinto(self, buffer: memoryview) -> int:
        data = self.member.read(len(buffer))
        buffer[:len(data)] = data
        return len(data)


def tar_members(archive: Path) -> Iterator[tuple[str, BinaryIO]]:
    "Name and content of each file in a tar archive, in its order; a content is read before the next is asked for."
    with readable(archive), tarfile.open(archive, "r|*") as tar:
        for member in tar:
            check_member(archive, member.name, not (member.isfile() or member.isdir()))
            if member.isfile(): yield member.name, tar.extractfile(member)


def check_member(archive: Path, name: str, is_link: bool):
    "Refuse what leaves the archive: an absolute path, `..`, a link or a device."
    path = PurePosixPath(name.replace("\\", "/"))
    if is_link or path.is_absolute() or ".." in path.parts or path.parts[:1] and path.parts[0].endswith(":"):
        what = "a link or device" if is_link else "a path out of the archive"
        raise CliError(f"{archive}: its member {name!r} is {what}; this is not the archive that it should be")


def missing(member: Member) -> CliError: return CliError(f"{member.archive}: there is no {member.name} in it")
