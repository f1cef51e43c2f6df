"What the tests of commands share: running one, reading what it leaves, small data for a very small model."
import csv
import io
import json
import random
import runpy
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

REPOSITORY = Path(__file__).parents[1]
PRETRAIN = ["--emb", "8", "--hidden", "12", "--layers", "2", "--batch", "4", "--bptt", "8", "--min-freq", "1",
            "--epochs", "2", "--device", "cpu", "--precision", "fp32"]
FINETUNE = ["--batch", "4", "--bptt", "8", "--min-freq", "1", "--epochs", "2", "--device", "cpu", "--precision", "fp32"]
CLASSIFY = ["--labelled", "0", "--batch", "6", "--bptt", "5", "--max-length", "12", "--epochs", "3", "--device", "cpu",
            "--precision", "fp32"]
SCRATCH = [*CLASSIFY, "--emb", "8", "--hidden", "12", "--layers", "2", "--min-freq", "1", "--model", "none"]


def command(name: str, *args, stdin: str | bytes = "") -> SimpleNamespace:
    "`python -m ulmfit.NAME ARGS` within this process: exit status, standard output, standard error."
    out, err = io.StringIO(), io.StringIO()
    raw = stdin if isinstance(stdin, bytes) else stdin.encode()
    kept, code = (sys.argv, sys.stdin), 0
    sys.argv, sys.stdin = [f"ulmfit.{name}", *map(str, args)], io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8")
    try:
        with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            runpy.run_module(f"ulmfit.{name}", run_name="__main__", alter_sys=True)
    except SystemExit as e:
        code = 1 if isinstance(e.code, str) else e.code or 0
        if isinstance(e.code, str): print(e.code, file=err)
    finally: sys.argv, sys.stdin = kept
    return SimpleNamespace(code=code, out=out.getvalue(), err=err.getvalue())


def ok(name: str, *args, **how) -> str:
    "The standard output of a command that succeeds."
    r = command(name, *args, **how)
    assert r.code == 0, r.err
    return r.out


def record(run: Path) -> dict: return json.loads((run / "run.json").read_text())


def rows(text: str) -> list[dict]: return list(csv.DictReader(io.StringIO(text)))


def metrics(run: Path) -> list[dict]:
    return [{k: v for k, v in r.items() if k != "seconds"} for r in rows((run / "metrics.csv").read_text())]


def weights(run: Path) -> bytes: return (run / "model/model.safetensors").read_bytes()


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def table(path: Path, documents: list[tuple[str, str]], header=("text", "label")) -> Path:
    out = io.StringIO()
    csv.writer(out).writerows([header, *documents])
    return write(path, out.getvalue())


def films(n: int, seed: int) -> list[tuple[str, str]]:
    "Texts whose words tell their class."
    rng, about = random.Random(seed), dict(bad="dull awful boring", good="great fine lovely", so="fair usual plain")
    def text(words):
        return " ".join(rng.choices("The film was a very , story and it".split() + 4 * words.split(),
                                    k=rng.randint(3, 25)))
    return [(text(words), label) for label, words in about.items() for _ in range(n)]
