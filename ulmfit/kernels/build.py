"""Build the C++ of the kernels for this processor, in a few seconds; `make setup` does.

    python -m ulmfit.kernels.build      needs g++; without it everything works, more slowly
"""
import os, re, subprocess
from pathlib import Path

from .native import FLAGS, SOURCE, built


def build() -> Path:
    "Compile, linked to the OpenMP that torch has loaded: two pools of threads would be in each other's way."
    path, part = built(), SOURCE.with_name(f"native.{os.getpid()}")
    openmp = re.search(r"\S+lib(gomp|iomp5)\S+", Path("/proc/self/maps").read_text())[0]
    try:
        subprocess.run(["g++", *FLAGS, "-shared", "-Wl,--as-needed", SOURCE, openmp, "-o", part], check=True,
                       capture_output=True, text=True)
        for old in SOURCE.parent.glob("native-*.so"): old.unlink()
        os.replace(part, path)
    finally: part.unlink(missing_ok=True)
    return path


def main():
    "Build, or say in a line why not."
    try: print(f"kernels: built {build().name}")
    except (OSError, subprocess.CalledProcessError, TypeError) as e:
        why = (getattr(e, "stderr", None) or str(e)).strip().splitlines()[0]
        print(f"kernels: not built, torch's operations are used, which are slower ({why})")


if __name__ == "__main__": main()
