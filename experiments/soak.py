"""Kill and continue: does a run that is killed again and again end where it ends undisturbed, bit for bit?

    python -m experiments.soak [--kills 20] [--seed 0]        (make soak; ten minutes)

Each stage runs once in peace, on `pydocs` at a small size. Then it is killed (SIGKILL) at random times and started
again by the same command, until it has been killed so often and has finished; weights and metrics must be those of the
first. A checkpoint is written after every step, so that many of the kills come while one is being written. Processes
are forked from one that has loaded the libraries: a run is killed at its work, not while it imports torch.
"""
import csv, os, random, runpy, shutil, sys, time
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import RLock

import torch
from fastcore.script import CliError, call_parse
from tqdm import tqdm

WORK = Path("runs/soak")
SMALL = "--batch 8 --epochs 2 --checkpoint-minutes 0 --device cpu".split()
NETWORK = "--emb 24 --hidden 32 --layers 2".split()
STAGES = dict(
    pretrain=["--corpus", "pydocs", *NETWORK, "--max-steps", "300", "--bptt", "20", *SMALL],
    finetune_lm=["--dataset", "pydocs", "--model", WORK / "pretrain/undisturbed", "--max-steps", "300", "--bptt", "20",
                 *SMALL],
    classify=["--dataset", "pydocs", "--model", WORK / "finetune_lm/undisturbed", "--labelled", "240", "--bptt", "20",
              "--max-length", "60", *SMALL])


loaded = get_context("forkserver")
loaded.set_forkserver_preload([*(f"ulmfit.{stage}" for stage in STAGES), "torch._dynamo"])  # the last at its first step


def run(stage: str, args: list[str], said: Path):
    "`python -m ulmfit.STAGE ARGS` in this process, on one thread, what it says in a file."
    with open(said, "a") as file:
        for stream in (sys.stdout, sys.stderr): os.dup2(file.fileno(), stream.fileno())
    torch.set_num_threads(1)
    tqdm.set_lock(RLock())  # its own is a semaphore of the system's, which a killed process leaves behind
    sys.argv = [f"ulmfit.{stage}", *args]
    runpy.run_module(f"ulmfit.{stage}", run_name="__main__", alter_sys=True)


def started(stage: str, args: list, out: Path) -> BaseProcess:
    "The stage as a process, what it says kept beside its folder."
    process = loaded.Process(target=run, args=(stage, [*map(str, args), "--out", str(out)], out.with_suffix(".log")))
    process.start()
    return process


def left(out: Path) -> tuple[bytes, list[dict]]:
    "What a finished run leaves: its weights, and its metrics but for the seconds."
    rows = csv.DictReader((out / "metrics.csv").read_text().splitlines())
    rows = [{k: v for k, v in r.items() if k != "seconds"} for r in rows]
    return (out / "model/model.safetensors").read_bytes(), rows


def finished(process: BaseProcess, out: Path):
    process.join()
    if process.exitcode: raise CliError(f"{out} has failed; see {out.with_suffix('.log')}")


def disturbed(stage: str, args: list, out: Path, kills: int, longest: float, rng: random.Random) -> tuple[int, int]:
    "(kills, continuations) of a run until it is finished: killed within `longest` seconds, `kills` times at most."
    done = again = 0
    while done < kills:
        process, end = started(stage, args, out), time.monotonic() + rng.uniform(0, longest)
        process.join(max(0, end - time.monotonic()))
        if not process.is_alive(): break
        process.kill()
        process.join()
        done, again = done + 1, again + any((out / "checkpoint").glob("step-*.json"))
    finished(started(stage, args, out), out)  # says that it is finished, where it is
    return done, again


def soak(stages: dict[str, list], work: Path, kills: int, seed: int) -> list[dict]:
    "Counts for each stage."
    rows, rng = [], random.Random(seed)
    for stage, args in stages.items():
        (work / stage).mkdir(parents=True)
        for name in ("undisturbed", "timed"):  # the first may have to prepare the corpus
            out, began = work / stage / name, time.monotonic()
            finished(started(stage, args, out), out)
            longest = time.monotonic() - began
        undisturbed = left(work / stage / "undisturbed")
        row = dict(stage=stage, runs=0, kills=0, continuations=0, differences=int(left(out) != undisturbed))
        while row["kills"] < kills:
            out = work / stage / f"disturbed-{row['runs'] + 1}"
            done, again = disturbed(stage, args, out, kills - row["kills"], longest, rng)
            found = dict(runs=1, kills=done, continuations=again, differences=left(out) != undisturbed)
            row |= {k: row[k] + n for k, n in found.items()}
        rows.append(row)
        print(", ".join(f"{k} {v}" for k, v in row.items()), flush=True)
    return rows


@call_parse
def main(
    kills: int = 20,  # of each stage
    seed: int = 0,  # of the times
):
    "Kill and continue all stages."
    shutil.rmtree(WORK, ignore_errors=True)
    rows = soak(STAGES, WORK, kills, seed)
    if any(r["differences"] for r in rows): raise CliError("a run that was killed ended elsewhere")
