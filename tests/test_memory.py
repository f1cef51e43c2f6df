"Memory that lies free goes back to the system."
import re
import sys
from pathlib import Path

import pytest
from ulmfit.training import memory


def resident() -> int: return 1024 * int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the C library does it on Linux")
def test_what_lies_free_between_pieces_goes_back():
    pieces = [bytearray(b"x" * 60_000) for _ in range(2000)]
    kept = pieces[::100]
    del pieces
    before = resident()
    memory.hand_back()
    assert before - resident() > 60_000_000 and len(kept) == 20


def test_where_the_c_library_cannot_nothing_happens(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    memory.hand_back()
