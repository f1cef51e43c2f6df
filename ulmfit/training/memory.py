"What memory a process has had at most, and what it need not keep."
import ctypes, resource, sys
from pathlib import Path


def peak_resident() -> int:
    """Bytes of this process's resident memory at their highest.

    On Linux getrusage would give those of the process that started it, where they were more.
    """
    if sys.platform == "darwin": return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def hand_back():
    """What lies free between pieces in use goes back to the system, where the C library can do that (glibc).

    Batches of documents are each of another shape, and what one leaves is too small for the next.
    """
    try: trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError): return
    trim(0)
