"""Hostile input: every case must end in success or in one line of error.

    python -m experiments.fuzz [--cases 10000] [--seed 0]                  (make fuzz; minutes)
    python -m experiments.fuzz --only csv --first 123 --cases 1            one case again

Text rules, tokenizer, tables, folders, models, run.json and the command line are given what `experiments/hostile.py`
makes. A case fails by a traceback, an error of more than a line, more than SECONDS or MEMORY, a temporary file that is
left, or output of a command that has failed. Counts go to experiments/results/fuzz.csv.
"""
import faulthandler, os, random, resource, shutil, signal, tempfile, time, traceback, warnings
from collections.abc import Callable
from contextlib import chdir, contextmanager
from pathlib import Path

import torch
from fastcore.script import CliError, call_parse

from ulmfit.corpus import source
from ulmfit.training.files import write_text
from ulmfit.training.records import csv_text

from .hostile import SURFACES, Failed, command

RESULT = Path(__file__).parent / "results" / "fuzz.csv"
SECONDS, MEMORY = 60, 2 << 30  # of a case, by the clock; more than the process has when it begins
OF_A_RUN = {"run.json", "metrics.csv", "checkpoint"}  # what a stage leaves that has begun and cannot go on


class Hang(BaseException): "The case takes too long."


@contextmanager
def limits():
    "Of the time that a case may take; memory is limited once, for all."
    def stop(*_): raise Hang(f"more than {SECONDS} seconds")
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    faulthandler.dump_traceback_later(4 * SECONDS, exit=True)  # where no handler is called any more
    try: yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        faulthandler.cancel_dump_traceback_later()


def ending(run: Callable) -> tuple[str, str]:
    "How a case ends, done, refused or failed, and why."
    try:
        with limits(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run()
        return "done", ""
    except (CliError, Failed) as e:
        lines = str(e).splitlines()
        return ("refused", lines[0]) if len(lines) == 1 else ("failed", f"{len(lines)} lines of error: {e}")
    except (Exception, Hang) as e:
        where = traceback.extract_tb(e.__traceback__)
        ours = [f"{Path(f.filename).name}:{f.lineno}" for f in where if "/ulmfit/" in f.filename]
        return "failed", f"{type(e).__name__}: {str(e)[:200]} ({' '.join(ours[-2:])})"


def paths(folder: Path) -> set[Path]: return set(folder.rglob("*"))


def left_over(new: set[Path], how: str) -> str:
    "What a case has left behind that it should not have."
    for path in sorted(new):
        temporary = path.suffix in (".part", ".tmp", ".lock") or path.name.startswith(".")
        began = OF_A_RUN & {path.name, path.parent.name} or path.name in ("out", "a", "b", "é")
        if temporary or how == "refused" and path.is_file() and not began: return f"it has left {path.name}"
    return ""


def prepare_ground(root: Path):
    "Valid things to damage: a corpus, models. What the commands prepare by themselves goes there too."
    cards = source.ROOT
    source.ROOT = root / "data"
    shutil.copytree(cards, root / "data", ignore=shutil.ignore_patterns("prepared", "downloads", "pydocs.toml"))
    rows = [f"{'a fine film' if i % 2 else 'so dull and bad'} {i},{'ab'[i % 2]}" for i in range(40)]
    (root / "texts.csv").write_text("\n".join(["text,label", *rows]))
    words = ["--tokenizer", "words", "--workers", "1"]
    small = "--batch 4 --bptt 5 --epochs 1 --device cpu".split()
    network = "--emb 4 --hidden 4 --layers 1 --min-freq 1".split()
    command("prepare", root / "texts.csv", *words, "--out", root / "corpus")
    command("prepare", root / "texts.csv", *words, "--shard", "1/1", "--out", root / "shard")
    command("pretrain", "--corpus", root / "corpus", *network, *small, "--out", root / "lm")
    command("classify", "--dataset", root / "corpus", "--model", root / "lm", *small, "--max-length", "20", "--out",
            root / "classifier")


def fuzz(cases: int, seed: int, only: str | None = None, first: int = 0) -> tuple[list[dict], list[str]]:
    "Counts of each surface, and its failures with what makes them again."
    rows, failures = [], []
    with tempfile.TemporaryDirectory() as folder:
        ground, prepared = Path(folder) / "ground", Path(folder) / "ground/data/prepared"
        ground.mkdir()
        prepare_ground(ground)
        for name, (build, share) in SURFACES.items():
            if only not in (None, name): continue
            row, began = dict(surface=name, cases=0, done=0, refused=0, failed=0), time.monotonic()
            for n in range(first, first + (cases if only else -(-cases * share // 100))):
                shutil.rmtree(place := Path(folder) / "case", ignore_errors=True)
                place.mkdir()
                run = build(random.Random(f"{seed} {name} {n}"), ground, place)
                before = paths(place)
                with chdir(place): how, why = ending(run)  # a file that a case names may have any name
                if how != "failed":
                    left = left_over(paths(place) - before, how) or left_over(set(prepared.glob(".*")), how)
                    if left: how, why = "failed", left
                if how == "failed":
                    failures.append(f"--seed {seed} --only {name} --first {n} --cases 1: {why}")
                    print(failures[-1], flush=True)
                    for path in prepared.glob(".*"): shutil.rmtree(path, ignore_errors=True)
                row["cases"] += 1
                row[how] += 1
            row["seconds"] = round(time.monotonic() - began, 1)
            rows.append(row)
            print(", ".join(f"{k} {v}" for k, v in row.items()), flush=True)
    return rows, failures


def limit_memory():
    "From here on: an allocation beyond MEMORY more than there is fails."
    here = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (here + MEMORY, resource.RLIM_INFINITY))


@call_parse
def main(
    cases: int = 10_000,  # of all surfaces together, or of the one
    seed: int = 0,  # of the cases
    only: str = None,  # a surface
    first: int = 0,  # number of the first case of each
):
    "Give everything that reads something what it does not expect."
    torch.set_num_threads(1)
    limit_memory()
    rows, failures = fuzz(cases, seed, only, first)
    total = dict(surface="all") | {k: round(sum(r[k] for r in rows), 1) for k in rows[0] if k != "surface"}
    print(", ".join(f"{k} {v}" for k, v in total.items()))
    if not only: write_text(RESULT, csv_text([*rows, total]))
    if failures: raise CliError(f"{len(failures)} cases failed")
