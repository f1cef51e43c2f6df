"One process at a time: a lock that refuses instead of waiting."
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastcore.script import CliError
from filelock import FileLock, Timeout


class Busy(CliError):
    "Another process is at work there."


@contextmanager
def alone(lock: Path, why: str) -> Iterator[None]:
    "For this process alone; Busy, in these words, where another process holds the file `lock`."
    lock = FileLock(lock, blocking=False)
    try: lock.acquire()
    except Timeout: raise Busy(why) from None
    try: yield
    finally:
        # Removed while it is held: filelock does not take a file that has lost its name since it was opened.
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
