"""A file from the network: from the first of its addresses that has the right one, once and whole, or not at all.

What has come lies in `<path>.part` until it is complete and right; an interrupted one is continued the next time.
"""
import hashlib, os, ssl, sys, time
from collections.abc import Sequence
from contextlib import contextmanager
from http.client import HTTPException, IncompleteRead
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from fastcore.script import CliError
from tqdm import tqdm

from .. import __version__
from ..locks import alone

AGENT = f"ulmfit/{__version__}"  # some mirrors refuse urllib's own
TRIES, PAUSE, TIMEOUT = 4, 1, 30  # of one address; seconds before the second try, then three times as long; seconds
BLOCK = 1 << 16  # bytes
PASSES = (TimeoutError, ConnectionResetError, ConnectionAbortedError, BrokenPipeError, ssl.SSLEOFError, IncompleteRead)


class Refused(Exception): "This address does not give the file."
class Passing(Refused): "Not now, but it may at another try."


@contextmanager
def network():
    "What goes wrong on the way becomes `Refused` or `Passing`; an OSError that is left is the disk's."
    try: yield
    except HTTPError as e:
        e.close()
        raise (Passing if e.code == 429 or e.code >= 500 else Refused)(f"{e.code} {e.reason}") from None
    except (OSError, HTTPException, ValueError) as e:  # a malformed address is a ValueError
        cause = e.reason if isinstance(e, URLError) else e
        raise (Passing if isinstance(cause, PASSES) else Refused)(str(cause) or type(cause).__name__) from None


def receive(url: str, part: Path, start: int, size: int | None) -> int:
    """Write what `url` has from byte `start` on into `part`, to be `size` bytes in all.

    Returns the byte it really began at: 0 where the server does not know ranges.
    """
    headers = {"User-Agent": AGENT} | ({"Range": f"bytes={start}-"} if start else {})
    with network(): answer = urlopen(Request(url, headers=headers), timeout=TIMEOUT)
    with answer:
        if answer.status != 206: start = 0
        total = size if answer.length is None else start + answer.length
        if size is not None and total != size: raise Refused(f"{total:,} bytes")
        with (open(part, "ab" if start else "wb") as f,
              tqdm(desc=part.stem, total=total, initial=start, unit="B", unit_scale=True, leave=False,
                   disable=not sys.stderr.isatty()) as bar):
            while total is None or f.tell() <= total:
                with network(): block = answer.read(BLOCK)
                if not block: break
                f.write(block)
                bar.update(len(block))
            done = f.tell()
    if total is None or done == total: return start
    if done < total: raise Passing(f"ended after {done:,} of {total:,} bytes")
    part.unlink()
    raise Refused(f"more than {total:,} bytes")


def attempt(url: str, part: Path, size: int | None, sha256: str | None):
    "Make `part` complete and right, and safe on the disk."
    # without size and hash nothing would tell that the two halves are of different files
    start = part.stat().st_size if size is not None and sha256 and part.exists() else 0
    if not start or start < size: start = receive(url, part, start, size)
    with open(part, "rb") as f:
        found = hashlib.file_digest(f, "sha256").hexdigest()
        os.fsync(f.fileno())
    if found != (sha256 or found):
        part.unlink()
        # what was continued may have begun as another file: the next try begins anew
        raise (Passing if start else Refused)(f"sha256 is {found}")


def persist(url: str, part: Path, size: int | None, sha256: str | None):
    "`attempt`, again after a pause where what went wrong may pass."
    for n in range(TRIES):
        try: return attempt(url, part, size, sha256)
        except Passing:
            if n == TRIES - 1: raise
        time.sleep(PAUSE * 3**n)


def fetch(urls: Sequence[str], path: Path, size: int | None = None, sha256: str | None = None) -> Path:
    """The file at `path`, fetched from the first of `urls` that gives the right one.

    Right is what has `size` bytes and this `sha256`, as far as they are given. A file that is there already is neither
    checked nor touched. With ULMFIT_OFFLINE set nothing is asked.
    """
    if (path := Path(path)).exists(): return path
    known = [*([f"{size:,} bytes"] if size is not None else []), *([f"sha256 {sha256}"] if sha256 else [])]
    by_hand = f"put it into {path.parent}/ yourself" + (f" ({', '.join(known)})" if known else "")
    if os.environ.get("ULMFIT_OFFLINE"):
        raise CliError(f"{path.name} is not here and ULMFIT_OFFLINE is set: unset it to fetch the file from "
                       f"{' or '.join(urls)}, or {by_hand}")
    part, reasons = path.with_name(f"{path.name}.part"), []
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with alone(path.with_name(f"{path.name}.lock"),
                   f"{path} is being fetched by another process; run this again when that has ended"):
            if path.exists(): return path  # another process was quicker
            for url in urls:
                try: persist(url, part, size, sha256)
                except Refused as e: reasons.append(f"{url}: {e}")
                else: return part.replace(path)
    except OSError as e:
        raise CliError(f"{path} cannot be written ({e.strerror or e}); what has come of it stays, "
                       "and the same command goes on from there") from None
    raise CliError(f"{path.name} could not be fetched ({'; '.join(reasons)}); try again later, or {by_hand}")
