"""Contenders in turns: each is a process of its own that does one round of work whenever it is asked to.

A round of each follows a round of each, so that what else the machine does falls on all alike; medians are reported.
A contender is a command that, for every line on its standard input, prints a line of JSON: seconds, what it counted
(documents, tokens …), its peak of resident memory and, if it likes, more.
"""
import json, os, platform, subprocess, sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from fastcore.script import CliError

from ulmfit.training.memory import peak_resident

PEERS = Path(".venv-peers/bin/python")  # made by `make bench-peers`


def python_of(contender: str) -> str:
    "The python that a contender runs with."
    if not contender.startswith("fastai"): return sys.executable
    if PEERS.exists(): return str(PEERS)
    if find_spec("fastai"): return sys.executable
    raise CliError("fastai is not installed: make bench-peers")


@dataclass
class Contender:
    "A process that waits for its rounds, on the first `cores` that there are."
    name: str
    command: list[str]
    cores: int = 1
    rounds: list[dict] = field(default_factory=list)

    def __enter__(self):
        def pin(): os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:self.cores])
        env = os.environ | dict(OMP_NUM_THREADS=str(self.cores))
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env,
                                        preexec_fn=pin)
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()

    def round(self):
        "One round, recorded."
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line: raise CliError(f"the contender {self.name} has ended: {' '.join(self.command)}")
        self.rounds.append(json.loads(line))


def answer(work):
    "The contender's side: `work()` gives a round's figures."
    for _ in sys.stdin:
        done = work()
        print(json.dumps(dict(peak_memory_bytes=peak_resident()) | done), flush=True)


def race(contenders: Sequence[Contender], rounds: int):
    "All rounds, one contender at a time in turns, each alive from its first round to its last."
    with ExitStack() as alive:
        for c in contenders: alive.enter_context(c)
        for n in range(rounds):
            for c in contenders:
                c.round()
                print(f"round {n + 1}: {c.name} {c.rounds[-1]['seconds']:.2f} s", file=sys.stderr, flush=True)


def rates(c: Contender, unit: str) -> dict:
    "Median, lowest and highest `unit` per second of a contender."
    found = [r[unit] / r["seconds"] for r in c.rounds]
    return {f"{unit}_per_second": round(median(found), 1), "lowest": round(min(found), 1),
            "highest": round(max(found), 1)}


def beside_last(rows: list[dict], unit: str) -> list[dict]:
    "The rows with their speed and memory over those of the last contender."
    for row in rows:
        for name, of in (("speed_ratio", f"{unit}_per_second"), ("memory_ratio", "peak_memory_bytes")):
            row[name] = round(row[of] / rows[-1][of], 2)
    return rows


def machine() -> dict:
    "What the figures were measured on."
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return dict(processor=model, cores=os.cpu_count(), python=platform.python_version())
