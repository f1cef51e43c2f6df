"""What has to run for the paper's tables: their rows, at a scale, as jobs that share what they have in common.

A table is a file in `experiments/tables/`: rows, each with its name in the paper and the settings that make it, what
they share under `every`. A scale is a file in `experiments/scales/`: datasets, pretrained models and the settings that
all rows share. A job is one command; its key is the hash of all its settings, its data and its models, so that two rows
with the same stage in them have the same job, and a finished one is known again. Where it ran, and in which precision,
stands beside its figures.
"""
import hashlib, json, tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

from fastcore.script import CliError

from ulmfit import classify, finetune_lm, pretrain
from ulmfit.corpus.registry import open_source
from ulmfit.corpus.source import Source
from ulmfit.model import bundle
from ulmfit.training.records import PREDICTIONS
from ulmfit.training.settings import by_name, choose, preset

HERE = Path(__file__).parent
STAGES = dict(pretrain=pretrain, finetune_lm=finetune_lm, classify=classify)
KINDS = ("classifier", "both directions", "features", "bag of words", "counts")


opened = lru_cache(open_source)


@dataclass(frozen=True)
class Job:
    "One command of the project, and the jobs whose models it starts from."
    stage: str  # pretrain | finetune_lm | classify | evaluate | baseline | counts
    data: str
    flags: dict = field(hash=False, default_factory=dict)  # but for those of the fields here
    preset: str = ""
    models: tuple["Job | str", ...] = ()  # a name is a model that travels with the code
    seed: int = 0

    @cached_property
    def key(self) -> str:
        "sha256, in short, of all settings, the data's content, and the keys of the models."
        flags = self.flags
        if self.stage in STAGES:
            values = preset(self.preset, self.stage, "from_scratch" in flags or "none" in self.models)
            blocks = choose(STAGES[self.stage].SETTINGS, values, flags)
            settings = by_name(blocks)
            flags = settings | {k: v for k, v in flags.items() if k not in settings}
        models = [bundle.fingerprint(bundle.located(m, self.flags.get("backwards", False))) if isinstance(m, str) else
                  m.key for m in self.models if m != "none"]
        about = [self.stage, self.source.fingerprint, flags, models, self.seed]
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def source(self) -> Source: return opened(self.data, "lm" if self.stage == "pretrain" else "classification")

    @property
    def name(self) -> str: return f"{self.stage}-{Path(self.data).stem}-{self.key}"

    def needs(self) -> Iterator["Job"]:
        "The jobs before this one, the first ones first, then itself."
        for m in self.models:
            if isinstance(m, Job): yield from m.needs()
        yield self

    def command(self, root: Path) -> list[str]:
        "The arguments of python, with runs under `root`."
        models = [m if isinstance(m, str) else str(root / m.name) for m in self.models]
        flags = [a for k, v in self.flags.items() for a in flag(k, v)]
        if self.stage == "evaluate":
            return ["-m", "ulmfit.evaluate", *models, "--dataset", self.data, *flags,
                    "--predictions", str(root / self.name / PREDICTIONS)]
        if self.stage == "counts": return ["-m", "experiments.counts", "--dataset", self.data, *flags]
        if self.stage == "baseline":
            model = ["--model", *models] if models else []
            return ["-m", "experiments.baselines", "--dataset", self.data, *model, *flags, "--seed", str(self.seed)]
        data = ["--corpus" if self.stage == "pretrain" else "--dataset", self.data]
        model = ["--model", *models] if models else []
        split = [] if self.stage == "pretrain" else ["--split-seed", "0"]
        return ["-m", f"ulmfit.{self.stage}", *data, *model, "--preset", self.preset, *flags, "--seed", str(self.seed),
                *split, "--out", str(root / self.name)]


def flag(name: str, value) -> list[str]:
    "A setting as it is typed."
    name = name.replace("_", "-")
    if isinstance(value, bool): return [f"--{name}"] if value else [f"--no-{name}"]
    return [f"--{name}", json.dumps(value) if isinstance(value, list) else str(value)]


@dataclass
class Cell:
    "What stands in a table for one seed: the row's job on a dataset."
    table: str
    row: str
    dataset: str
    labelled: int  # 0: all
    seed: int
    job: Job

    @property
    def place(self) -> tuple: return self.table, self.row, self.dataset, self.labelled, self.seed


def read_toml(folder: str, name: str) -> dict:
    "A table or scale, by its name or as a file."
    path = HERE / folder / f"{name}.toml" if not name.endswith(".toml") else Path(name)
    if not path.is_file(): raise CliError(f"{folder}: there is no {name}; there are: {', '.join(names(folder))}")
    about = tomllib.loads(path.read_text())
    if "every" in about: about["row"] = [about["every"] | row for row in about["row"]]
    return about


def names(folder: str) -> list[str]: return sorted(p.stem for p in (HERE / folder).glob("*.toml"))


class Scale:
    "Datasets, pretrained models and shared settings, and how a row becomes jobs at them."
    def __init__(self, name: str):
        about = read_toml("scales", name)
        self.seeds, self.bases, self.datasets = about["seeds"], about["bases"], about["datasets"]
        self.preset, self.shared = about["preset"], {s: about.get(s, {}) for s in STAGES}

    def base(self, row: dict, backwards: bool) -> "Job | str":
        "A row's pretrained model: one in the box, or a job, with the row's changes."
        base = dict(self.bases[row.get("base", "default")])
        if "model" in base: return base["model"]
        corpus, preset = base.pop("corpus"), base.pop("preset", self.preset)
        flags = self.shared["pretrain"] | base | row.get("pretrain", {}) | direction(backwards)
        return Job("pretrain", corpus, flags, preset)

    def settings(self, stage: str, dataset: str, row: dict) -> dict:
        "The scale's, then the dataset's, then the row's."
        return (self.shared[stage] | self.datasets[dataset].get(stage, {}) | row.get(stage, {})
                | self.held_out(dataset, row))

    def held_out(self, dataset: str, row: dict) -> dict:
        "What of a dataset is for validation and testing: the same for all of its jobs, unless a row says otherwise."
        return self.datasets[dataset].get("held_out", {}) | row.get("held_out", {})

    def few(self, dataset: str, labelled: int) -> dict:
        "What a dataset's classifiers change where there are few labels: epochs are few steps then."
        about = self.datasets[dataset].get("few", {})
        return about.get("classify", {}) if 0 < labelled <= about.get("labelled", 0) else {}

    def language_model(self, row: dict, dataset: str, labelled: int, seed: int, backwards: bool) -> "Job | str":
        "Stage 2 of a row, one for all seeds; on the labelled texts alone, where it says so, one for each."
        base = "none" if row.get("base") == "none" else self.base(row, backwards)
        if row.get("finetune_lm") is False: return base
        few = labels(labelled) if row.get("texts") == "labelled" else {}
        return Job("finetune_lm", dataset, self.settings("finetune_lm", dataset, row) | few | direction(backwards),
                   self.preset, (base,), seed if few else 0)

    def classifier(self, row: dict, dataset: str, labelled: int, seed: int, backwards: bool = False) -> Job:
        flags = (self.settings("classify", dataset, row) | self.few(dataset, labelled) | labels(labelled)
                 | direction(backwards))
        return Job("classify", dataset, flags, self.preset,
                   (self.language_model(row, dataset, labelled, seed, backwards),), seed)

    def job(self, row: dict, dataset: str, labelled: int, seed: int) -> Job:
        "What a row asks for."
        match row.get("kind", "classifier"):
            case "classifier": return self.classifier(row, dataset, labelled, seed, row.get("backwards", False))
            case "both directions":
                pair = tuple(self.classifier(row, dataset, labelled, seed, b) for b in (False, True))
                tested = {k: v for k, v in self.held_out(dataset, row).items() if k == "tested"}
                return Job("evaluate", dataset, tested, models=pair)
            case "features":
                lm = self.language_model(row, dataset, labelled, seed, False)
                how = self.settings("classify", dataset, row).items()
                reading = {k: v for k, v in how if k in ("max_length", "bptt")}  # as a classifier's
                return Job("baseline", dataset, self.held_out(dataset, row) | reading | labels(labelled),
                           models=(lm,), seed=seed)
            case "counts": return Job("counts", dataset, dict(of=row["of"]))
            case "bag of words":
                return Job("baseline", dataset, self.held_out(dataset, row) | labels(labelled), seed=seed)
            case other: raise CliError(f"no kind of row is called {other!r}; there are: {', '.join(KINDS)}")

    def cells(self, table: str, datasets: list[str] | None = None, seeds: int | None = None) -> list[Cell]:
        "All of a table, dataset by dataset."
        about = read_toml("tables", table)
        here = [d for d, how in self.datasets.items() if table in how.get("only", [table])]
        return [Cell(table, row["name"], d, n, seed, self.job(row, d, n, seed))
                for d in here if datasets is None or d in datasets
                for n in self.sizes(about, d) for row in about["row"]
                for seed in range(1 if row.get("kind") == "counts" else seeds or self.seeds)]

    def sizes(self, about: dict, dataset: str) -> list[int]:
        "With how many labels: the table's list of the scale, the table's number, or the dataset's usual one."
        if "labels" in about: return self.datasets[dataset].get("labels", {}).get(about["labels"], [])
        return [about.get("labelled", self.datasets[dataset].get("labelled", 0))]


def direction(backwards: bool) -> dict: return dict(backwards=True) if backwards else {}
def labels(n: int) -> dict: return dict(labelled=n) if n else {}
