"""What a run leaves behind: a folder with run.json, metrics.csv, the model, and while it lasts a checkpoint."""
import csv, io, json, math, os, platform, subprocess
from importlib.metadata import version
from pathlib import Path

import torch
from fastcore.script import CliError

from .. import __version__
from .checkpoint import Checkpoints
from .distributed import Ranks
from .files import write_text
from .memory import peak_resident
from .settings import by_name

HARMLESS = ("on_nonfinite", "max_skipped", "checkpoint_minutes", "keep_checkpoint")
PACKAGES = ("torch", "numpy", "fastcore", "safetensors")
PREDICTIONS = "predictions.csv"  # of a classifier's run, for the documents of its test split


def commit() -> str | None:
    "The commit of the code that runs, `+` if it is changed; None where that is not known."
    def git(*args): return subprocess.run(["git", *args], cwd=Path(__file__).parent, capture_output=True, text=True)
    try: head = git("rev-parse", "HEAD")
    except FileNotFoundError: return None  # there is no git
    return (head.stdout.strip() + ("+" if git("status", "--porcelain", "-uno").stdout else "")
            if head.returncode == 0 else None)


def peak_memory(device: torch.device) -> int:
    "Bytes at their highest: of the device where it is a GPU, what recorded steps hold included, else of the process."
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else peak_resident()


def csv_text(rows: list[dict], columns: list[str] | None = None) -> str:
    "Rows as CSV; columns as given, or in order of first appearance."
    out = io.StringIO()
    writer = csv.DictWriter(out, columns or list(dict.fromkeys(k for r in rows for k in r)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


SHAPE = dict(stage=str, settings=dict, seed=int, split_seed=int, corpus=str, data=str, result=dict, device=str,
             text_column=str, label_column=str, encoding=str)
FIGURES = ("valid_perplexity", "test_error")  # of which a finished run has one


def read_record(folder: Path) -> dict | None:
    "A run's run.json, None where there is none; CliError where it is not what a run writes."
    if not os.path.isfile(path := Path(folder) / "run.json"): return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not is_record(record): raise ValueError
    except (ValueError, RecursionError):
        raise CliError(f"{path} is damaged; remove the folder {folder} to begin again") from None
    return record


def as_read(record: dict, **given: str | None) -> dict[str, str]:
    "How files of one's own are read: as given, else as the run of this record did, else as is usual."
    usual = dict(text_column="text", label_column="label", encoding="utf-8")
    return {k: v if v is not None else record.get(k, usual[k]) for k, v in given.items()}


def is_record(record) -> bool:
    "Whether what is read of a run.json is there and of its type."
    if not isinstance(record, dict) or not {"stage", "settings", "seed"} <= set(record): return False
    if any(not isinstance(record[k], kind) for k, kind in SHAPE.items() if k in record): return False
    settings, result = record["settings"], record.get("result", dict.fromkeys(FIGURES, 0))
    numbers = [settings.get("max_steps"), settings.get("epochs"), *result.values(),
               *(v for k, v in settings.items() if k.endswith("_fraction"))]
    return bool(set(FIGURES) & set(result)) and all(isinstance(n, (int, float)) for n in numbers)


class Run:
    """A run's folder. Opening it again with the same settings continues it, or finds it finished.

    Of several processes the first writes it, the others read.
    """
    def __init__(self, folder: Path, stage: str, blocks: list, seed: int, device: torch.device, ranks: Ranks = Ranks(),
                 kernel: str = "fused", **about):
        self.folder, self.ranks = Path(folder), ranks
        self.checkpoints = Checkpoints(self.folder / "checkpoint", ranks.leads)
        if os.path.exists(folder) and not self.folder.is_dir():
            raise CliError(f"--out {folder} is a file; give a folder")
        settings, defaults = by_name(blocks), by_name([type(b)() for b in blocks])
        self.record = json.loads(json.dumps(dict(stage=stage, settings=settings, seed=seed, **about)))
        ranks.check_alike("settings or data", self.record)
        old = read_record(self.folder)
        if old is not None:
            for part in ("stage", "settings", "seed", *about):
                here = self.record[part]
                there = old.get(part, here)  # what is newer than the run is not held against it
                # a setting that is newer had its default; older runs have a network's, where it is the model's
                if part == "settings": there = {k: (defaults | there | changeable(there, here))[k] for k in here}
                if there != here:
                    raise CliError(f"{self.folder} holds another run ({difference(part, there, here)}); "
                                   "give another --out, or remove the folder")
        self.result = None if old is None else old.get("result")
        if self.result and extent(settings) != extent(old["settings"]):
            if not self.checkpoints.notes():
                raise CliError(f"{self.folder} is finished and was not run with --keep-checkpoint: there is nothing to "
                               "go on from; give another --out")
            self.result = None
        if old is not None and not self.result and self.checkpoints.notes():
            if (there := old.get("device", device.type).partition(":")[0]) != device.type:
                raise CliError(f"{self.folder} was begun on {there} and its masks are drawn there: go on with --device "
                               f"{there}, or give another --out")
        versions = dict(python=platform.python_version(), ulmfit=__version__) | {p: version(p) for p in PACKAGES}
        self.record |= dict(device=str(device), kernel=kernel,
                            deterministic=torch.are_deterministic_algorithms_enabled(),
                            machine=platform.processor() or platform.machine(), threads=torch.get_num_threads(),
                            processes=ranks.size, versions=versions, commit=commit())

    @property
    def model(self) -> Path: return self.folder / "model"

    def write(self): self._keep("run.json", json.dumps(self.record, indent=1, ensure_ascii=False) + "\n")

    def metrics(self, rows: list[dict]): self._keep("metrics.csv", csv_text(rows))

    def _keep(self, name: str, text: str):
        if self.ranks.leads: write_text(self.folder / name, text)

    def finish(self, figures: dict, result: dict, keep_checkpoint: bool = False):
        "Record the result; the checkpoint has done its work."
        self.result = result
        self.record |= dict(seconds=figures["seconds"], best_epoch=figures["epoch"],
                            skipped_steps=figures["skipped_steps"], result=result)
        self.write()
        if not keep_checkpoint: self.checkpoints.remove()


def extent(settings: dict) -> tuple[float, float]:
    "How long a run trains at most: steps, epochs."
    return settings["max_steps"] or math.inf, settings["epochs"]


def changeable(old: dict, new: dict) -> dict:
    "What of the new settings a run may be continued with: what changes no weight, and more training than before."
    longer = all(a >= b for a, b in zip(extent(new), extent(old)))
    return {k: new[k] for k in (*HARMLESS, *(("max_steps", "epochs") if longer else ()))}


def difference(name: str, old, new) -> str:
    "Where two values differ, in words."
    if isinstance(old, dict) and isinstance(new, dict):
        names = sorted({*old, *new})
        return ", ".join(difference(k, old.get(k), new.get(k)) for k in names if old.get(k) != new.get(k))
    return f"{name}: {old} there, {new} here"
