"How much memory a process has had at most."
import resource, sys
from pathlib import Path


def peak_resident() -> int:
    """Bytes of this process's resident memory at their highest.

    On Linux getrusage would give those of the process that started it, where they were more.
    """
    if sys.platform == "darwin": return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
