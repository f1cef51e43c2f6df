"Several processes learn what one does: the same weights, the same continuation, the same decisions."
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch._dynamo  # noqa: F401 (torch imports it with the first optimizer; once here is once for all forks)
from commands import PRETRAIN, REPOSITORY, films, metrics, record, table, weights
from corpora import says
from fastcore.script import CliError
from safetensors.torch import load_file
from ulmfit import classify, finetune_lm, pretrain
from ulmfit.corpus.store import Documents
from ulmfit.corpus.stream import IGNORE, LanguageModelStream, Windows
from ulmfit.training import files, loop, step as stepping
from ulmfit.training.checkpoint import Checkpoints
from ulmfit.training.distributed import Ranks, join

MODULES = dict(pretrain=pretrain, finetune_lm=finetune_lm, classify=classify)
NO_DROPOUT = dict(output_p=0.0, hidden_p=0.0, input_p=0.0, embed_p=0.0, weight_p=0.0)
DROPOUT = dict(output_p=0.1, hidden_p=0.2, input_p=0.3, embed_p=0.1, weight_p=0.2)
HEAD = {True: dict(head_drop=0.4, head_hidden_drop=0.1), False: dict(head_drop=0.0, head_hidden_drop=0.0)}
LM = dict(batch=5, bptt=8, min_freq=1, epochs=2, device="cpu", clip=0.3, draw="merity", scale_rate=True,
          alpha=2.0, beta=1.0, keep_best=False)
STAGES = dict(
    pretrain=lambda m: dict(corpus=str(m.one), emb=8, hidden=12, layers=2, **LM),
    finetune_lm=lambda m: dict(dataset=str(m.data), model=m.lm, plan="gradual", **LM),
    classify=lambda m: dict(dataset=str(m.data), model=str(m.tuned), labelled=0, batch=5, bptt=5, max_length=12,
                            plan="gradual", epochs=4, device="cpu", clip=0.3, alpha=2.0, beta=1.0, keep_best=False,
                            lr=4e-4))


def settings(stage: str, made, dropout: bool = True, **more) -> dict:
    """With penalties and clipping; the batch of 5 is shared unevenly.

    The classifier's rate is low: at the usual one batch norm magnifies rounding, of one process's two kernels too.
    """
    head = HEAD[dropout] if stage == "classify" else {}
    return STAGES[stage](made) | (DROPOUT if dropout else NO_DROPOUT) | head | more


def work(stage: str, out: Path, how: dict, before):
    "In float64; of each process the weights that it ends with are kept beside the run's folder."
    torch.set_default_dtype(torch.float64)
    module, fit = MODULES[stage], loop.fit
    module.device_and_dtype = lambda device, precision, deterministic: (torch.device("cpu"), torch.float64)

    def kept(task, *more):
        figures = fit(task, *more)
        torch.save(task.model.state_dict(), out.with_suffix(f".{os.environ.get('RANK', 0)}"))
        return figures
    module.fit = kept
    before(int(os.environ.get("RANK", 0)))
    try: module.main(out=out, **how)
    except CliError as e: raise SystemExit(str(e)) from None


def process(rank: int, size: int, port: int, said: Path, *task):
    "One of those that torchrun would start, two on a machine; only the first may write what a run leaves."
    for fd in (1, 2): os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), fd)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
    if size > 1:
        os.environ |= dict(RANK=str(rank), LOCAL_RANK=str(rank % 2), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1",
                           MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="test")
    if rank: files.os = None
    work(*task)


class Group:
    "A stage by so many processes, forks of this one."
    def __init__(self, size: int, stage: str, out: Path, how: dict, before=lambda rank: None):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        self.said = [out.with_suffix(f".said{rank}") for rank in range(size)]
        for path in self.said: path.unlink(missing_ok=True)
        fork = multiprocessing.get_context("fork")
        self.processes = [fork.Process(target=process, args=(r, size, port, self.said[r], stage, out, how, before))
                          for r in range(size)]
        for p in self.processes: p.start()

    def end(self) -> tuple[list[int], list[str]]:
        "Exit codes, and what each has said."
        for p in self.processes: p.join(30)
        hanging = [p for p in self.processes if p.is_alive()]
        for p in hanging: p.kill()
        said = [path.read_text() for path in self.said]
        assert not hanging, said
        return [p.exitcode for p in self.processes], said


def run(size: int, *task) -> list[str]:
    "What the processes of a run that succeeds say."
    codes, said = Group(size, *task).end()
    assert codes == [0] * size and not any(said[1:]), said
    return said


def difference(a: Path, b: Path) -> float:
    "The largest between two runs' weights."
    x, y = (load_file(r / "model/model.safetensors") for r in (a, b))
    assert x.keys() == y.keys() and all(v.dtype in (torch.float64, torch.int64) for v in x.values())
    return max((x[k] - y[k]).abs().max().item() for k in x)


# --- the same as one process ---

@pytest.mark.parametrize("dropout", [False, True], ids=["plain", "dropout"])
@pytest.mark.parametrize("stage", STAGES)
def test_processes_learn_what_one_does(made, tmp_path, stage, dropout):
    "To 1e-12, masks included; and all have the same weights and statistics to the last bit."
    how = settings(stage, made, dropout)
    for size in (1, 2, 3): run(size, stage, tmp_path / f"{size}", how)
    for size in (2, 3):
        assert difference(tmp_path / "1", tmp_path / f"{size}") < 1e-12
        first, *others = (torch.load(tmp_path / f"{size}.{rank}", weights_only=True) for rank in range(size))
        assert all(torch.equal(first[k], other[k]) for other in others for k in first)
        for a, b in zip(metrics(tmp_path / "1"), metrics(tmp_path / f"{size}"), strict=True):
            assert {k: pytest.approx(float(v), abs=1e-9) for k, v in a.items()} == {k: float(v) for k, v in b.items()}


@pytest.mark.parametrize("kernel", ["fused", "reference"])
def test_a_process_may_have_no_target_in_the_last_step(made, tmp_path, kernel):
    pairs = record(made.lm)["result"]["train_tokens"] - 1
    batch = next(b for b in range(4, 20) if 0 < pairs % b <= b // 2)  # the first half's columns have one more
    how = settings("pretrain", made, batch=batch, bptt=1, draw="fixed", epochs=1, kernel=kernel, clip=0.0)
    for size in (1, 2): run(size, "pretrain", tmp_path / f"{size}", how)
    assert difference(tmp_path / "1", tmp_path / "2") < 1e-12


def test_processes_read_disjoint_contiguous_columns():
    docs = Documents(np.arange(100), np.array([0, 30, 31, 100]))
    whole = LanguageModelStream(docs, 7, Windows(4), shuffle=True)
    parts = [LanguageModelStream(docs, 7, Windows(4), shuffle=True, part=Ranks(r, 3).part) for r in range(3)]
    assert [p.here for p in parts] == [slice(0, 3), slice(3, 5), slice(5, 7)]
    for windows in zip(whole.batches(2, 1), *(p.batches(2, 1) for p in parts), strict=True):
        for all_of, *of in zip(*windows): assert torch.equal(all_of, torch.cat(of, dim=1))


def test_targets_are_those_of_all_columns():
    docs = Documents(np.arange(100), np.array([0, 30, 31, 100]))
    for batch in (1, 7, 11):
        stream = LanguageModelStream(docs, batch, Windows(6, "merity"), part=Ranks(0, 1).part)
        assert stream.targets(3) == [int((y != IGNORE).sum()) for _, y in stream.batches(3)]


def test_every_document_is_dealt_once():
    rows = np.arange(11)
    assert sorted(np.concatenate([rows[Ranks(r, 4).dealt(11)] for r in range(4)])) == rows.tolist()


# --- continuation ---

def at_step(n: int, rank: int, act):
    "Has a process do something in its n-th step: `act` gets the loss and may give another."
    def before(here: int):
        step, calls = stepping.step, []

        def acting(loss, *more):
            calls.append(1)
            if here == rank and len(calls) == n: loss = act(loss) or loss
            return step(loss, *more)
        stepping.step = acting
    return before


def send(number: int): return lambda loss: os.kill(os.getpid(), number)


@pytest.mark.parametrize("stage", STAGES)
def test_where_one_process_dies_all_end_and_the_run_goes_on_exactly(made, tmp_path, stage):
    how = settings(stage, made, checkpoint_minutes=0)
    run(2, stage, tmp_path / "whole", how)
    for rank in (1, 0):
        out = tmp_path / f"{rank}"
        codes, said = Group(2, stage, out, how, at_step(7, rank, send(signal.SIGKILL))).end()
        assert codes[rank] == -signal.SIGKILL and codes[1 - rank] == 1
        assert "another process of this run has ended" in (line := said[1 - rank].splitlines()[-1]), said
        assert "the same command goes on" in line and "Traceback" not in said[1 - rank]
        assert "continuing at step 6" in run(2, stage, out, how)[0]
        assert weights(out) == weights(tmp_path / "whole") and metrics(out) == metrics(tmp_path / "whole")


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_goes_on_with_another_number_of_processes(made, tmp_path, stage):
    "From two to three, to one; dropout included."
    how, out = settings(stage, made, checkpoint_minutes=0), tmp_path / "run"
    run(1, stage, tmp_path / "whole", how)
    for size, steps in ((2, 5), (3, 4)): Group(size, stage, out, how, at_step(steps, 1, send(signal.SIGTERM))).end()
    assert "continuing at step 9" in run(1, stage, out, how)[0]
    assert difference(out, tmp_path / "whole") < 1e-12


# --- all decide alike ---

@pytest.mark.parametrize("number, rank, code", [(signal.SIGTERM, 1, 143), (signal.SIGINT, 0, 130)])
def test_one_process_that_gets_a_signal_ends_all_after_the_same_step(made, tmp_path, number, rank, code):
    out = tmp_path / "run"
    codes, said = Group(2, "pretrain", out, settings("pretrain", made), at_step(6, rank, send(number))).end()
    assert codes == [code, code] and Checkpoints(out / "checkpoint").newest()["at"]["step"] == 6
    assert "stopped after step 6" in said[0].splitlines()[-1] and not said[1]


def test_a_signal_to_all_is_none_of_them_the_second(made, tmp_path):
    "torchrun sends its own to every process; one may hear of it from the others first, and be saving already."
    def before(rank):
        at_step(6, 1, send(signal.SIGTERM))(rank)
        save = loop.save

        def interrupted(*state):
            if rank == 0: os.kill(os.getpid(), signal.SIGTERM)
            save(*state)
        loop.save = interrupted
    codes, _ = Group(2, "pretrain", tmp_path / "run", settings("pretrain", made), before).end()
    assert codes == [143, 143] and Checkpoints(tmp_path / "run/checkpoint").newest()["at"]["step"] == 6


NAN = torch.tensor(torch.nan)
BAD = dict(loss=lambda loss: loss._replace(objective=loss.objective + NAN),  # its gradient is as it should be
           gradient=lambda loss: loss._replace(objective=loss.objective * NAN))


@pytest.mark.parametrize("stage, what", [("pretrain", "loss"), ("pretrain", "gradient"), ("classify", "gradient")])
def test_where_one_process_has_no_finite_loss_none_takes_the_step(made, tmp_path, stage, what):
    how, out = settings(stage, made, checkpoint_minutes=0), tmp_path / "run"
    codes, said = Group(2, stage, out, how, at_step(3, 1, BAD[what])).end()
    assert codes == [1, 1] and all("step 3, rate" in text for text in said)
    assert Checkpoints(out / "checkpoint").newest()["at"]["step"] == 2


def test_where_one_process_has_no_finite_loss_all_pass_over_the_step(made, tmp_path):
    out = tmp_path / "run"
    how = settings("pretrain", made, on_nonfinite="skip")
    codes, said = Group(2, "pretrain", out, how, at_step(3, 1, BAD["loss"])).end()
    assert codes == [0, 0] and record(out)["skipped_steps"] == 1, said
    first, second = (torch.load(out.with_suffix(f".{r}"), weights_only=True) for r in (0, 1))
    assert all(torch.equal(first[k], second[k]) for k in first)


# --- what cannot be shared ---

@pytest.mark.parametrize("stage", STAGES)
def test_more_processes_than_columns_or_documents_are_refused(made, tmp_path, stage):
    codes, said = Group(3, stage, tmp_path / "run", settings(stage, made, batch=2)).end()
    assert codes == [1, 1, 1] and all("a batch of 2 is too small for 3 processes" in text for text in said)
    assert not (tmp_path / "run/model").exists() and not any("Traceback" in text for text in said)


def test_processes_of_different_commands_are_refused(made, tmp_path):
    how = settings("pretrain", made)
    codes, said = Group(2, "pretrain", tmp_path / "run", how, lambda rank: how.update(seed=rank)).end()
    assert codes == [1, 1] and all("differ in their settings or data" in text for text in said)


def test_processes_that_find_different_checkpoints_are_refused(made, tmp_path):
    "As on machines that do not see the same folder."
    how = settings("pretrain", made, checkpoint_minutes=0)
    Group(2, "pretrain", tmp_path / "run", how, at_step(4, 0, send(signal.SIGTERM))).end()

    def before(rank):
        if rank: Checkpoints.newest = lambda self: None
    codes, said = Group(2, "pretrain", tmp_path / "run", how, before).end()
    assert codes == [1, 1] and all("differ in their checkpoint" in text for text in said)


def test_one_device_for_several_processes_is_refused(monkeypatch):
    for name, value in dict(RANK=1, WORLD_SIZE=2, LOCAL_RANK=1, TORCHELASTIC_RUN_ID="test").items():
        monkeypatch.setenv(name, str(value))
    with says("cuda:1 is one device for 2 processes", "--device cuda"): join(torch.device("cuda:1"))


# --- torchrun itself ---

@pytest.mark.slow
def test_torchrun_prepares_and_trains(tmp_path):
    "A corpus that only one process prepares; what is said, is said once."
    text = table(tmp_path / "text.csv", films(8, 2))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m",
               "ulmfit.pretrain", "--corpus", text, *PRETRAIN, "--out", tmp_path / "run"]
    r = subprocess.run(list(map(str, command)), cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert r.returncode == 0 and record(tmp_path / "run")["processes"] == 2, r.stdout + r.stderr
    lines = r.stdout.splitlines()
    assert len(lines) == len(set(lines)) == 5 and r.stderr.count("no valid split") == 1, r.stdout + r.stderr
