"""The paper's tables and figures, by one command.

    python -m experiments.run table7 --scale small --seeds 3            (make tables SCALE=small TABLE=7)
    python -m experiments.run --scale small --dry-run                   everything: what is to be done, and the hours
    python -m experiments.run table4 table6 --print-commands            one line for each training, for a cluster's
                                                                        scheduler; what is left then is minutes

Jobs run one after another, each a command as anyone would type it, in a folder of its own under `runs/tables/`. A job
that is finished is not run again, one that was interrupted goes on, one that fails is reported and the others run. To
use several GPUs or machines, start this command there too, on the same folder: a job is locked while it runs. Figures
of finished jobs are in `experiments/results/tables/<scale>.csv`: `make report` reads nothing else.
"""
import csv, json, multiprocessing, os, runpy, shlex, sys, time
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import torch._dynamo  # noqa: F401 (torch imports it with the first optimizer; once here is once for all forked jobs)
from fastcore.script import CliError, call_parse
from filelock import FileLock

from ulmfit.locks import Busy, alone
from ulmfit.training.files import write_text
from ulmfit.training.records import PREDICTIONS, commit, csv_text

from .plan import STAGES, Cell, Job, Scale, names

RESULTS = Path(__file__).parent / "results" / "tables"
PLACE = ["table", "row", "dataset", "labelled", "seed"]
MEASURED = ["value", "valid_error", "test_error", "documents_per_second"]
COLUMNS = [*PLACE, *MEASURED, "valid_documents", "test_documents", "valid_perplexity", "epochs", "seconds",
           "tokens_per_second", "peak_memory_mib", "only_wrong", "only_first_wrong", "run", "data", "commit",
           "precision", "notes", "command"]
CURVES = ["run", "epoch", "train_loss", "valid_loss", "valid_error"]
EACH = " + "  # between the stages' figures
PRINTED = ("evaluate", "baseline", "counts")  # their figures are what they print
FORK = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")
ELSEWHERE = 75  # exit status of a job that another runner has
PATIENCE = 5  # seconds before looking again at what runs elsewhere


def record(job: Job, root: Path) -> dict | None:
    "What a finished job left, None of any other."
    path = root / job.name / "run.json"
    if not path.is_file(): return None
    found = json.loads(path.read_text())
    return found if found.get("result") else None


def as_begun(job: Job, root: Path) -> list[str]:
    "A job that was interrupted goes on in the precision that it began in, on whatever machine."
    path = root / job.name / "run.json"
    if job.stage not in STAGES or "precision" in job.flags or not path.is_file(): return []
    return ["--precision", "bf16" if json.loads(path.read_text())["dtype"] == "torch.bfloat16" else "fp32"]


def beside(folder: Path, suffix: str) -> Path: return folder.with_name(f"{folder.name}.{suffix}")


def carry_out(job: Job, root: Path):
    """Run a job's command in this process, which has all imports behind it; what it says goes to a log.

    The lock is this process's: where the runner is killed, the job stays locked for as long as it is at work.
    """
    folder, began = root / job.name, time.monotonic()
    printed, log = folder / "printed.json", beside(folder, "log")
    try:
        with alone(beside(folder, "lock"), f"{folder} is another runner's"):
            if record(job, root): return
            printed.unlink(missing_ok=True)
            sys.stdout, sys.stderr = open(printed if job.stage in PRINTED else log, "a"), open(log, "a")
            for number, stream in (1, sys.stdout), (2, sys.stderr): os.dup2(stream.fileno(), number)
            _, module, *sys.argv[1:] = job.command(root) + as_begun(job, root)
            sys.modules.pop(module, None)  # it begins anew, as a command does
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            if job.stage in PRINTED:
                sys.stdout.flush()
                result = json.loads(printed.read_text().splitlines()[-1])
                about = dict(seconds=time.monotonic() - began, commit=commit(), notes=job.source.notes, result=result)
                write_text(folder / "run.json", json.dumps(about))
    except Busy: sys.exit(ELSEWHERE)
    except SystemExit as e:  # of a command; its data may just be prepared, or fetched, for another runner's job
        sys.exit(ELSEWHERE if isinstance(e.__context__, Busy) else e.code)


def execute(job: Job, root: Path) -> str:
    "Run a job unless another runner does: done | failed | elsewhere."
    (root / job.name).mkdir(parents=True, exist_ok=True)
    process = FORK.Process(target=carry_out, args=(job, root))
    process.start()
    process.join()
    return {0: "done", ELSEWHERE: "elsewhere"}.get(process.exitcode, "failed")


def last_line(job: Job, root: Path) -> str:
    "What a failed job said last."
    lines = beside(root / job.name, "log").read_text(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "it said nothing")


@cache
def wrong(path: Path) -> np.ndarray:
    "Which documents of the test split a finished job has wrong, by its predictions; read once, as figures ask often."
    return np.array([r["label"] != r["predicted"] for r in saved(path)])


def figures(cell: Cell, first: Job, root: Path) -> dict | None:
    """A row of the results; None while its job is not finished.

    `seconds` and `peak_memory_mib` are of each job that led to it, one after another.
    `only_wrong` counts the test documents that this model has wrong and that of the table's first row has right,
    `only_first_wrong` the others (McNemar's test).
    """
    found = record(cell.job, root)
    if found is None: return None
    result, chain = found["result"], [r for j in cell.job.needs() if (r := record(j, root))]
    row = dict(table=cell.table, row=cell.row, dataset=cell.dataset, labelled=cell.labelled, seed=cell.seed,
               run=cell.job.name, seconds=EACH.join(f"{r['seconds']:.0f}" for r in chain if "seconds" in r),
               peak_memory_mib=EACH.join(str(b >> 20) for r in chain if (b := r["result"].get("peak_memory_bytes"))))
    row |= {k: round(result[k], 4) for k in MEASURED if k in result}
    row |= {k: result[k] for k in ("valid_documents", "test_documents") if k in result}
    if "error" in result: row |= dict(test_error=round(result["error"], 4), test_documents=result["documents"])
    speeds = [s for r in chain if (s := r["result"].get("tokens_per_second"))]
    if speeds: row |= dict(tokens_per_second=EACH.join(f"{s:.0f}" for s in speeds))
    lms = [r for r in chain if r.get("stage") == "finetune_lm"]
    if lms: row |= dict(valid_perplexity=round(lms[-1]["result"]["valid_perplexity"], 3))
    if "best_epoch" in found: row |= dict(epochs=found["best_epoch"])
    paths = [root / job.name / PREDICTIONS for job in (cell.job, first)]
    if all(p.is_file() for p in paths):
        mine, theirs = map(wrong, paths)
        if len(mine) == len(theirs):
            row |= dict(only_wrong=int((mine & ~theirs).sum()), only_first_wrong=int((theirs & ~mine).sum()))
    def each(key: str, told: Callable[[str], str]) -> str:
        return ", ".join(dict.fromkeys(told(r[key]) for r in chain if r.get(key)))
    notes = dict.fromkeys(n for r in chain for n in r.get("notes", []))
    data = [d for r in chain if (d := (r | r["result"]).get("data"))]
    if data: row |= dict(data=data[-1][:12])
    return row | dict(commit=each("commit", short), precision=each("dtype", lambda d: d.removeprefix("torch.")),
                      notes="; ".join(notes), command=commands(cell.job, root))


def commands(job: Job, root: Path) -> str:
    "What is typed for a job, from its first stage on."
    return " && ".join("python " + shlex.join(j.command(root)) for j in job.needs())


def short(commit: str) -> str: return commit[:12] + "+" * commit.endswith("+")


def saved(path: Path) -> list[dict]:
    "The rows of a CSV; none where there is none."
    return list(csv.DictReader(path.read_text().splitlines())) if path.is_file() else []


def collect(cells: list[Cell], root: Path, path: Path):
    "Write the results: what the runs at hand say, and of other places what was there before."
    first = {(c.table, c.dataset, c.labelled, c.seed): c.job for c in reversed(cells)}
    new = [(c, figures(c, first[c.table, c.dataset, c.labelled, c.seed], root)) for c in cells]
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / "results.lock"):  # another runner adds its rows, too
        rows = {tuple(r[k] for k in PLACE): r for r in saved(path)}
        for c, r in new:
            place = tuple(map(str, c.place))
            if r: rows[place] = kept(rows.get(place, {}), r)
        write_text(path, csv_text([rows[k] for k in sorted(rows)], COLUMNS))
        curves = {(r["run"], r["epoch"]): r for r in saved(path.with_name(f"{path.stem}-curves.csv"))}
        for c, r in new:
            metrics = root / c.job.name / "metrics.csv"
            if r and c.job.stage == "classify":
                curves |= {(c.job.name, m["epoch"]): dict(run=c.job.name) | m for m in saved(metrics)}
        wanted = {r["run"] for r in rows.values()}
        left = [{k: r[k] for k in CURVES} for (run, _), r in sorted(curves.items()) if run in wanted]
        write_text(path.with_name(f"{path.stem}-curves.csv"), csv_text(left, CURVES))


def kept(old: dict, new: dict) -> dict:
    "A row with what is known now, and of the same run what was known where its first stages or the first row had been."
    if old.get("run") != new["run"]: return new
    def more(key: str) -> bool: return old[key].count(EACH) > str(new.get(key, "")).count(EACH) or key not in new
    return new | {k: v for k, v in old.items() if v and more(k)}


def hours(jobs: list[Job], root: Path, there: list[dict]) -> tuple[float, int]:
    """Hours that jobs will take, and for how many of them nothing is known.

    One takes as long as the median of the finished ones of its stage and data, or else of its stage: of those at hand
    and of the results that are `there`.
    """
    times: dict[str, list[float]] = {}
    def took(of_data: str, seconds: float):
        for kind in (of_data, of_data.partition("-")[0]): times.setdefault(kind, []).append(seconds)
    for path in root.glob("*/run.json"):
        if seconds := json.loads(path.read_text()).get("seconds"): took(path.parent.name.rpartition("-")[0], seconds)
    for row in there:
        stage, _, data = row["run"].rpartition("-")[0].partition("-")
        before = [f"finetune_lm-{data}"] if stage == "classify" else []
        for of_data, s in zip([f"{stage}-{data}", *before], reversed(row["seconds"].split(EACH))):
            if s: took(of_data, float(s))
    known = [times.get(j.name.rpartition("-")[0]) or times.get(j.stage) for j in jobs]
    return sum(median(t) for t in known if t) / 3600, sum(t is None for t in known)


def possible(cells: list[Cell]) -> tuple[list[Cell], Counter]:
    "The cells whose data and models are here; of the others how many lack what."
    there, missing = [], Counter()
    for c in cells:
        try: c.job.key
        except CliError as e: missing[str(e)] += 1
        else: there.append(c)
    return there, missing


def unique(cells: list[Cell]) -> list[Job]:
    "The jobs of cells, each once, after those that it needs."
    return list({j.key: j for c in cells for j in c.job.needs()}.values())


def work(jobs: list[Job], root: Path, after: Callable[[], None]) -> dict[str, str]:
    """Run all that is not finished, in order; returns what failed, and why.

    A job that another runner has, and those that need it, are looked at again until it is finished there.
    """
    failed, left, began = {}, [j for j in jobs if not record(j, root)], time.monotonic()
    finished = len(jobs) - len(left)
    while left:
        again = []
        for job in left:
            before = [m for m in job.models if isinstance(m, Job)]
            if bad := next((m.name for m in before if m.name in failed), None):
                failed[job.name] = f"it needs {bad}"
            elif all(record(m, root) for m in before):
                minutes = (time.monotonic() - began) / 60
                print(f"[{finished + len(failed) + 1}/{len(jobs)}, {minutes:.0f} min] {job.name}", flush=True)
                state = execute(job, root)
                if state == "failed": failed[job.name] = last_line(job, root)
                if state == "elsewhere": again.append(job)
                finished += state == "done"
                after()
            else: again.append(job)
        if len(again) == len(left): time.sleep(PATIENCE)
        left = again
    return failed


@call_parse
def main(
    tables: Annotated[str, "which: 1, 2 (and 3), 4 … 7, figure3, recipe … (default: all)", dict(nargs="*")],
    scale: str = "small",  # smoke, small, paper, or a TOML file
    seeds: int = None,  # how many (default: the scale's)
    datasets: str = None,  # trec,ag_news,imdb … (default: the scale's)
    root: Path = None,  # folder of the runs (default: runs/tables/<scale>)
    results: Path = RESULTS,  # folder of the figures
    dry_run: bool = False,  # print what is to be done
    print_commands: bool = False,  # print each unfinished training as a command
):
    "Run the paper's tables and figures."
    chosen = [f"table{t}" if t.isdecimal() else t for t in tables] or names("tables")
    at, name = Scale(scale), Path(scale).stem
    root, path = root or Path("runs/tables") / name, results / f"{name}.csv"
    if unknown := set(datasets.split(",") if datasets else ()) - set(at.datasets):
        raise CliError(f"the scale {scale} has no {', '.join(unknown)}; it has: {', '.join(at.datasets)}")
    cells, missing = possible([c for t in chosen for c in at.cells(t, datasets and datasets.split(","), seeds)])
    for why, n in missing.items(): print(f"left out, {n} figures: {why}")
    there = {tuple(r[k] for k in PLACE): r for r in saved(path)}
    jobs = unique([c for c in cells if there.get(tuple(map(str, c.place)), {}).get("run") != c.job.name])
    left = [j for j in jobs if not record(j, root)]
    if print_commands:
        for j in left:
            if j.stage in STAGES: print("python " + shlex.join(j.command(root) + as_begun(j, root)))
        return
    predicted, unknown = hours(left, root, [*there.values()])
    more = f" and {unknown} jobs of unknown length" if unknown else ""
    plan = [f"{', '.join(chosen)}: {len(cells)} figures, {len(left)} jobs to do, {predicted:.1f} hours{more}"]
    if dry_run: plan += [f"  {'finished' if j not in left else 'to do':8}  {j.name}" for j in jobs]
    print("\n".join(plan))
    if dry_run: return
    failed = work(jobs, root, lambda: collect(cells, root, path))
    collect(cells, root, path)
    for name, why in failed.items(): print(f"failed: {name}: {why}", file=sys.stderr)
    if failed: raise CliError(f"{len(failed)} of {len(jobs)} jobs have failed; their logs are in {root}")
    print(f"figures in {path}")
