"""The C++ beside this file, where it has been built (build.py): what the CPU does between two large matrix products.

Without it torch's operations do the same, more slowly.
"""
import ctypes, hashlib, math, platform, re, threading
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

SOURCE = Path(__file__).with_suffix(".cpp")
FLAGS = ["-std=c++17", "-O3", "-march=native", "-fPIC", "-fopenmp"]


@cache
def features() -> str:
    "What the processor can do, as Linux names it."
    info = Path("/proc/cpuinfo")
    found = re.search(r"^(flags|Features).*$", info.read_text(), re.M) if info.exists() else None
    return found[0] if found else ""


def built() -> Path:
    "The library for this source and this processor, if it is there: its name says what it was made from."
    made_from = SOURCE.read_bytes() + " ".join([*FLAGS, platform.machine(), features()]).encode()
    return SOURCE.with_name(f"native-{hashlib.sha256(made_from).hexdigest()[:16]}.so")


@cache
def library() -> ctypes.CDLL | None:
    try: return ctypes.CDLL(str(built()))
    except OSError: return None


def multiplies_bf16() -> bool:
    "Is bf16 faster than fp32 on this processor? Not without the library: torch's pointwise operations are slow in it."
    return library() is not None and re.search(r"\b(avx512_bf16|amx_bf16)\b", features()) is not None


def function(name: str, like: Tensor, *others: Tensor) -> Callable | None:
    """A function for the type of `like`, and float32 in `others`, which it reads as such whatever they are.

    None where there is none, or `like` is not on the CPU.
    """
    if like.device.type != "cpu" or library() is None or any(o.dtype != torch.float32 for o in others): return None
    return getattr(library(), f"{name}_{str(like.dtype).removeprefix('torch.')}", None)


def call(run: Callable, *arguments: Tensor | int):
    "Run on the tensors' memory and whole numbers, with as many threads as torch has."
    assert all(isinstance(a, int) or a.is_contiguous() for a in arguments)
    run(*(ctypes.c_void_p(a.data_ptr()) if isinstance(a, Tensor) else ctypes.c_long(a) for a in arguments),
        ctypes.c_long(torch.get_num_threads()))


kept = threading.local()


def scratch(like: Tensor, *shape: int) -> Tensor:
    """An uninitialised tensor until the same thread asks for the next one, of the type of `like`.

    On the CPU it is always the same memory: new memory comes from the system page by page, which costs more than
    filling it.
    """
    if like.device.type != "cpu": return like.new_empty(shape)
    size = math.prod(shape) * like.element_size()
    if getattr(kept, "bytes", None) is None or len(kept.bytes) < size:
        with torch.inference_mode(False): kept.bytes = torch.empty(size, dtype=torch.uint8)
    return kept.bytes[:size].view(like.dtype).view(shape)


def packed(w: Tensor, bias: Tensor) -> Tensor:
    "Recurrent weights (4h, h) in the order in which the steps read them; as they are where torch takes the steps."
    if not (pack := function("lstm_pack", w, bias)): return w
    h = w.shape[1]
    call(pack, w, out := w.new_empty(function("lstm_packed_size", w)(ctypes.c_long(h))), h)
    return out


def add_rows(out: Tensor, d: Tensor):
    "`out` (n) += each row of `d` (m, n), without a copy of `d` in the type of `out`."
    if run := function("add_rows", d, out): call(run, d, out, *d.shape)
    else: out += d.sum(dim=0, dtype=out.dtype)


def add_transposed(out: Tensor, d: Tensor):
    "`out` (n, m) += the transpose of `d` (m, n), likewise."
    if run := function("add_transposed", d, out): call(run, d, out, *d.shape)
    else: out += d.T
