"""The C++ beside this file, if it has been built: what the CPU does between matrix products, and the recurrence itself.

    python -m ulmfit.kernels.native      builds it (g++; `make setup` does); without it torch's operations are used

A build is good for the source and the processor that it was made from: its name says which.
"""
import ctypes, hashlib, os, platform, re, subprocess
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

SOURCE = Path(__file__).with_suffix(".cpp")
FLAGS = ["-std=c++17", "-O3", "-march=native", "-fPIC", "-fopenmp"]


def built() -> Path:
    "Where the library for this source and this processor is, or would be."
    info = Path("/proc/cpuinfo")
    features = re.search(r"^(flags|Features).*$", info.read_text(), re.M) if info.exists() else None
    made_from = SOURCE.read_bytes() + " ".join([*FLAGS, platform.machine(), features[0] if features else ""]).encode()
    return SOURCE.with_name(f"native-{hashlib.sha256(made_from).hexdigest()[:16]}.so")


def build() -> Path:
    "Compile, linked to the OpenMP that torch has loaded, so that both share their threads."
    path, part = built(), SOURCE.with_name(f"native.{os.getpid()}")
    try:
        maps = Path("/proc/self/maps").read_text()
        openmp = re.search(r"\S*lib(gomp|iomp5)\S*", maps)[0]
        subprocess.run(["g++", *FLAGS, "-c", SOURCE, "-o", part], check=True, capture_output=True, text=True)
        subprocess.run(["g++", "-shared", part, openmp, "-o", f"{part}.so"], check=True, capture_output=True, text=True)
        for old in SOURCE.parent.glob("native-*.so"): old.unlink()
        os.replace(f"{part}.so", path)
    finally:
        for p in (part, Path(f"{part}.so")): p.unlink(missing_ok=True)
    return path


@cache
def library() -> ctypes.CDLL | None:
    "The library, or None where it has not been built."
    try: return ctypes.CDLL(str(built()))
    except OSError: return None


def function(name: str, like: Tensor):
    "A function of the library for the type of `like`; None where there is none, or `like` is not on the CPU."
    if like.device.type != "cpu" or library() is None: return None
    return getattr(library(), f"{name}_{str(like.dtype).removeprefix('torch.')}", None)


def call(f, *arguments: Tensor | int):
    "Call with the tensors' addresses, whole numbers, and the number of threads."
    for a in arguments: assert isinstance(a, int) or a.is_contiguous()
    f(*(ctypes.c_void_p(a.data_ptr()) if isinstance(a, Tensor) else ctypes.c_long(a) for a in arguments),
      ctypes.c_long(torch.get_num_threads()))


def main():
    "Build, or say why not: everything works without."
    try: print(f"built {build().name}")
    except Exception as e:
        why = getattr(e, "stderr", None) or str(e)
        print(f"the C++ kernels were not built ({why.strip().splitlines()[0]}): torch's operations are used, which are slower")


if __name__ == "__main__": main()
