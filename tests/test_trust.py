"A run can be believed: files whole or absent, checkpoints checked, signals heeded, no step on nonsense, safe loading."
import copy
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from commands import CLASSIFY, FINETUNE, PRETRAIN, REPOSITORY, command, metrics, ok, record, weights
from corpora import says
from experiments.soak import soak, started
from fastcore.script import CliError
from safetensors.torch import save_file
from ulmfit.model import bundle
from ulmfit.training import checkpoint, files, loop, step as stepping
from ulmfit.training.checkpoint import Checkpoints
from ulmfit.training.distributed import Ranks
from ulmfit.training.files import write_text, write_whole
from ulmfit.training.loop import Training, stopped_early
from ulmfit.training.signals import Signals, Stop
from ulmfit.training.step import Eager, step


def names(folder: Path) -> list[str]: return sorted(p.name for p in folder.iterdir())


# --- whole or absent ---

def test_a_file_that_cannot_be_finished_leaves_the_old_one(tmp_path):
    write_text(tmp_path / "f", "old")

    def half(path: Path):
        path.write_text("half")
        raise OSError(28, "No space left on device")
    with says("f cannot be written (No space left on device)"): write_whole(tmp_path / "f", half)
    assert (tmp_path / "f").read_text() == "old" and names(tmp_path) == ["f"]


@pytest.mark.parametrize("write", [
    lambda p: p.write_text("x" * 200_000), lambda p: torch.save(dict(x=torch.zeros(50_000)), p),
    lambda p: save_file(dict(x=torch.zeros(50_000)), p)], ids=["text", "torch", "safetensors"])
def test_a_full_disk_is_one_line_and_the_old_file_stays(tmp_path, write):
    "Each library has its own way to say so."
    import resource
    write_text(tmp_path / "f", "old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    heeded = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with says("f cannot be written"): write_whole(tmp_path / "f", write)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, heeded)
    assert (tmp_path / "f").read_text() == "old" and names(tmp_path) == ["f"]


def test_files_have_ordinary_permissions(tmp_path):
    "safetensors' own have not."
    before = os.umask(0o027)
    try: write_whole(tmp_path / "f", lambda p: save_file(dict(x=torch.zeros(1)), p))
    finally: os.umask(before)
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o640


def test_a_file_is_on_the_disk_before_it_is_in_place(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        monkeypatch.setattr(files.os, name, lambda *a, f=getattr(os, name), n=name: calls.append(n) or f(*a))
    write_text(tmp_path / "f", "x")
    assert calls == ["fsync", "replace", "fsync"]


# --- checkpoints ---

@pytest.fixture
def two(tmp_path) -> Checkpoints:
    kept = Checkpoints(tmp_path / "checkpoint")
    for step_ in (3, 12, 20): kept.save(step_, dict(at=step_), kept.save_best(step_, dict(w=torch.ones(step_))))
    return kept


def test_the_last_two_and_their_best_weights_are_kept(two):
    assert names(two.folder) == sorted(f"{kind}-{n:06}.{end}" for kind in ("step", "best") for n in (12, 20)
                                       for end in ("json", "pt"))
    assert two.newest() == dict(at=20) and len(two.best("best-000012.pt")["w"]) == 12


def flip(path: Path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE = dict(cut=lambda p: p.write_bytes(p.read_bytes()[:-9]), flipped=flip, missing=Path.unlink,
              empty=lambda p: p.write_bytes(b""), foreign=lambda p: p.write_bytes(b"a poem"))


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(two, capsys, damage):
    damage(two.folder / "step-000020.pt")
    assert two.newest() == dict(at=12)
    assert "step-000020.pt" in (said := capsys.readouterr().err) and said.count("\n") == 1


@pytest.mark.parametrize("damage", [DAMAGE["cut"], DAMAGE["empty"], DAMAGE["foreign"],
                                    lambda p: p.write_text("[]"), lambda p: p.write_text('{"bytes": 1}')])
def test_a_damaged_note_is_a_damaged_checkpoint(two, damage):
    damage(two.folder / "step-000020.json")
    assert two.newest() == dict(at=12)


def test_a_run_that_went_on_from_an_earlier_checkpoint_leaves_the_damaged_one_behind(two):
    (two.folder / "step-000020.json").write_text("a poem")
    assert two.newest() == dict(at=12)
    two.save(13, dict(at=13))
    assert [note.stem for note in two.notes()] == ["step-000013", "step-000012"] and two.newest() == dict(at=13)


def test_of_the_two_that_are_kept_none_is_known_to_be_damaged(two):
    "Also where the run saves at other steps than before."
    flip(two.folder / "step-000020.pt")
    assert two.newest() == dict(at=12)
    two.save(25, dict(at=25))
    flip(two.folder / "step-000025.pt")
    assert two.newest() == dict(at=12)


def test_steps_are_in_order_however_many_they_are(tmp_path):
    kept = Checkpoints(tmp_path)
    for n in (999_998, 999_999, 1_000_000): kept.save(n, dict(at=n))
    assert kept.newest() == dict(at=1_000_000)


def test_a_checkpoint_without_its_note_was_not_finished(two):
    (two.folder / "step-000020.json").unlink()
    assert two.newest() == dict(at=12)


def test_where_no_checkpoint_is_good_the_run_is_not_begun_again_unasked(two, capsys):
    for n in (12, 20): flip(two.folder / f"step-0000{n}.pt")
    with says("step-000012.pt", "no other", "begin again"): two.newest()


def test_damaged_best_weights_are_named(two):
    flip(two.folder / "best-000020.pt")
    with says("best-000020.pt is damaged"): two.best("best-000020.pt")


def test_no_checkpoint_is_none(tmp_path): assert Checkpoints(tmp_path / "nothing").newest() is None


def test_what_is_not_a_checkpoint_stays(two):
    (two.folder / "notes.txt").write_text("mine")
    two.remove()
    assert names(two.folder) == ["notes.txt"]


# --- nothing that is loaded can run code ---

class Canary:
    def __init__(self, path: Path): self.path = path
    def __reduce__(self): return Path.touch, (self.path,)


def test_a_checkpoint_cannot_run_code(two, tmp_path, capsys):
    path, canary = two.folder / "step-000020.pt", tmp_path / "canary"
    torch.save(dict(at=Canary(canary)), path)
    write_text(path.with_suffix(".json"), json.dumps(checkpoint.digest(path)))
    assert two.newest() == dict(at=12) and "step-000020.pt cannot be read" in capsys.readouterr().err
    assert not canary.exists()
    torch.load(path, weights_only=False)
    assert canary.exists()  # it would have


@pytest.mark.parametrize("name", ["model.safetensors", "vocab.json", "config.json"])
def test_a_bundle_cannot_run_code(made, tmp_path, name):
    folder, canary = copied(made.lm, tmp_path), tmp_path / "canary"
    (folder / name).write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(CliError): bundle.load(folder)
    assert not canary.exists()


def test_no_file_of_the_project_unpickles():
    for path in (REPOSITORY / "ulmfit").rglob("*.py"):
        text = path.read_text()
        assert "weights_only=False" not in text and "pickle" not in text, path


# --- bundles ---

def copied(run: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    folder.mkdir()
    for p in (run / "model").iterdir(): (folder / p.name).write_bytes(p.read_bytes())
    return folder


@pytest.mark.parametrize("name", ["model.safetensors", "vocab.json"])
def test_a_flipped_byte_of_a_bundle_is_found(made, tmp_path, name):
    flip((folder := copied(made.lm, tmp_path)) / name)
    with says(f"copy/{name} is damaged"): bundle.load(folder)


def changed(folder: Path, **config) -> Path:
    path = folder / "config.json"
    there = json.loads(path.read_text()) | config
    path.write_text(json.dumps({k: v for k, v in there.items() if v is not None}))
    return folder


def test_a_bundle_of_the_format_before_is_read(made, tmp_path):
    "It had no hashes."
    old = bundle.load(changed(copied(made.lm, tmp_path), format=1, sha256=None))
    assert old.vocab == bundle.load(made.lm).vocab


@pytest.mark.parametrize("config, what", [
    (dict(format=99), "format 99"), (dict(vocab_fingerprint="x"), "not the vocabulary"),
    (dict(architecture=dict(emb=9, hidden=12, layers=2)), "size mismatch"), (dict(kind="classifier"), "damaged")])
def test_a_bundle_that_is_not_what_it_says_is_refused(made, tmp_path, config, what):
    with pytest.raises(CliError, match=what): bundle.load(changed(copied(made.lm, tmp_path), **config))


# --- no step on nonsense ---

class Bad:
    "A loss that is not finite, or whose gradient is not."
    def __init__(self, weight: torch.Tensor, how: str):
        factor = dict(loss=float("nan"), gradient=0.0)[how]
        # the root's slope at 0 is infinite
        self.objective = (weight * factor).sum() + (0 if how == "loss" else (weight * 0).abs().sqrt().sum())
        self.value = self.objective.detach()


@pytest.mark.parametrize("how", ["loss", "gradient"])
def test_what_is_not_finite_moves_no_weight(how):
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([weight], 0.1)
    with says("step 7", "nan", "--on-nonfinite skip"): step(Bad(weight, how), optimizer, 0.0, "step 7")
    weight.grad = None
    assert step(Bad(weight, how), optimizer, 0.0, "step 7", skip=True) is None
    assert torch.equal(weight, torch.ones(3)) and not optimizer.state and weight.grad is None


@pytest.fixture
def nan_at(monkeypatch):
    "Makes the gradient of some steps not finite."
    original, calls = stepping.step, []

    def on(*steps):
        def bad(loss, optimizer, *more):
            calls.append(1)
            if len(calls) in steps: loss = loss._replace(objective=loss.objective * float("nan"))
            return original(loss, optimizer, *more)
        monkeypatch.setattr(stepping, "step", bad)
    return on


def test_a_run_says_at_which_step_it_went_wrong_and_can_go_on(made, tmp_path, nan_at):
    nan_at(3)
    args = ["pretrain", "--corpus", made.one, *PRETRAIN, "--checkpoint-minutes", "0", "--out", tmp_path / "run"]
    r = command(*args)
    assert r.code == 1 and "step 3, rate" in r.err and "last good checkpoint: step 2" in r.err
    assert "continuing at step 2" in ok(*args, "--on-nonfinite", "skip")


def test_steps_that_are_not_finite_are_skipped_and_counted(made, tmp_path, nan_at):
    nan_at(2, 5)
    ok("pretrain", "--corpus", made.one, *PRETRAIN, "--on-nonfinite", "skip", "--out", tmp_path / "run")
    assert record(tmp_path / "run")["skipped_steps"] == 2


def test_no_more_steps_are_skipped_than_may_be(made, tmp_path, nan_at):
    nan_at(2, 5, 6)
    r = command("pretrain", "--corpus", made.one, *PRETRAIN, "--on-nonfinite", "skip", "--max-skipped", "2",
                "--out", tmp_path / "run")
    assert r.code == 1 and "more than 2 steps" in r.err


def test_a_step_that_is_passed_over_leaves_batch_norm_as_it_was():
    model = torch.nn.BatchNorm1d(2)
    before = [b.clone() for b in model.buffers()]

    def loss(batch, state, rng):
        value = model(batch).sum()
        return SimpleNamespace(objective=value, value=value.detach(), targets=len(batch), state=None)
    steps = Eager(SimpleNamespace(model=model, loss=loss), torch.optim.SGD(model.parameters(), 0.1), 0.0, True, None,
                  Ranks())
    at = dict(carry=None, count=0, skipped=0, sum=0.0, seen=0)
    assert steps(torch.full((3, 2), torch.inf), at, "step 1")["skipped"] == 1
    assert all(map(torch.equal, model.buffers(), before))
    assert "skipped" not in steps(torch.eye(2), at, "step 2") and not torch.equal([*model.buffers()][0], before[0])


# --- more training than before ---

def pretrain(made, out: Path, *more) -> str:
    return ok("pretrain", "--corpus", made.one, *PRETRAIN, "--schedule", "constant", "--out", out, *more)


@pytest.mark.parametrize("less, more", [(["--epochs", "1"], ["--epochs", "3"]),
                                        (["--max-steps", "9"], ["--max-steps", "20"]),
                                        (["--max-steps", "3"], ["--epochs", "3", "--max-steps", "0"])])
def test_a_finished_run_goes_on_when_more_is_asked_for(made, tmp_path, less, more):
    "To where it would have come at once: a constant rate does not depend on the end, nor the last weights on the best."
    pretrain(made, tmp_path / "a", *less, "--no-keep-best", "--keep-checkpoint")
    assert "continuing at step" in pretrain(made, tmp_path / "a", *more, "--no-keep-best")
    pretrain(made, tmp_path / "b", *more, "--no-keep-best")
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    assert metrics(tmp_path / "a")[-1] == metrics(tmp_path / "b")[-1]


def test_an_evaluation_within_an_epoch_triggers_no_averaging(made, tmp_path):
    "What `--max-steps` once added is not one of those that NT-ASGD and `--patience` count."
    how = ["--no-keep-best", "--optimizer", "ntasgd", "--lr", "5", "--nonmono", "0", "--epochs", "4"]
    pretrain(made, tmp_path / "a", *how, "--max-steps", "3", "--keep-checkpoint")
    assert "continuing at step 3" in pretrain(made, tmp_path / "a", *how)
    pretrain(made, tmp_path / "b", *how)
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    rows = [dict(epoch=e) for e in (1, 2, 2, 3)]
    at = dict(rows=rows, best=dict(row=0))
    assert [stopped_early(at, Training(patience=n)) for n in (2, 3)] == [True, False]


def test_after_damage_a_run_keeps_good_checkpoints_alone(made, tmp_path):
    how = ["--no-keep-best", "--checkpoint-minutes", "0", "--keep-checkpoint", "--max-steps"]
    pretrain(made, tmp_path / "run", *how, "5")
    kept = Checkpoints(tmp_path / "run/checkpoint")
    (note := kept.notes()[0]).write_text("a poem")
    assert "continuing at step 4" in pretrain(made, tmp_path / "run", *how, "6")
    assert [n.stem for n in kept.notes()] == ["step-000006", "step-000005"] and note.stem == "step-000005"
    assert [checkpoint.read(n)["at"]["step"] for n in kept.notes()] == [6, 5]


def test_a_run_goes_on_where_its_masks_are_drawn(made, tmp_path):
    pretrain(made, tmp_path / "run", "--max-steps", "2", "--keep-checkpoint")
    path = tmp_path / "run/run.json"
    path.write_text(json.dumps(record(tmp_path / "run") | dict(device="cuda:0")))
    r = command("pretrain", "--corpus", made.one, *PRETRAIN, "--schedule", "constant", "--max-steps", "4", "--out",
                tmp_path / "run")
    assert r.code == 1 and "was begun on cuda" in r.err.splitlines()[-1]


def test_less_than_before_is_another_run(made, tmp_path):
    pretrain(made, tmp_path / "run", "--keep-checkpoint")
    r = command("pretrain", "--corpus", made.one, *PRETRAIN, "--schedule", "constant", "--epochs", "1",
                "--out", tmp_path / "run")
    assert r.code == 1 and "epochs: 2 there, 1 here" in r.err


def test_a_run_without_its_checkpoint_says_that_it_cannot_go_on(made, tmp_path):
    pretrain(made, tmp_path / "run")
    r = command("pretrain", "--corpus", made.one, *PRETRAIN, "--schedule", "constant", "--epochs", "9",
                "--out", tmp_path / "run")
    assert r.code == 1 and "--keep-checkpoint" in r.err


# --- signals ---

def test_the_first_signal_is_noted_and_handlers_are_given_back():
    before = signal.getsignal(signal.SIGTERM)
    with Signals() as s:
        os.kill(os.getpid(), signal.SIGTERM)
        assert s.number == signal.SIGTERM
        with pytest.raises(Stop), s.at_once(): pass
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_can_be_begun_again_is_stopped_at_once():
    with Signals() as s, pytest.raises(Stop), s.at_once():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
        raise AssertionError("it went on")


def until(ready, alive):
    "Wait for a process to be `ready` for what the test does to it; one that has ended will not be."
    for _ in range(3000):
        if ready(): return
        assert alive()
        time.sleep(0.01)
    raise AssertionError("it did not get ready")


STAGES = dict(
    pretrain=lambda m: ["--corpus", m.one, *PRETRAIN],
    finetune_lm=lambda m: ["--dataset", m.data, "--model", m.lm, *FINETUNE],
    classify=lambda m: ["--dataset", m.data, "--model", m.tuned, *CLASSIFY])


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_run_that_is_killed_again_and_again_ends_where_it_ends_undisturbed(made, tmp_path, stage):
    "The short form of `make soak`."
    more = ["--epochs", "4", "--checkpoint-minutes", "0"]
    row, = soak({stage: [*STAGES[stage](made), *more]}, tmp_path, kills=2, seed=0)
    assert (row["kills"], row["differences"]) == (2, 0)


PARTS = ["model", "optimizer", "rng", "carry", "batch", "epoch", "best", "sum"]


@pytest.mark.parametrize("part", PARTS)
def test_no_part_of_the_state_can_be_left_out(made, tmp_path, monkeypatch, part):
    "A control: a run that goes on without it ends elsewhere, or in an error."
    args = ["pretrain", "--corpus", made.one, *PRETRAIN, "--draw", "merity", "--embed-p", "0.2", "--out"]
    ok(*args, tmp_path / "whole")
    original, calls = stepping.step, []

    def interrupted(*a):
        calls.append(1)
        if len(calls) == (16 if part in ("epoch", "best") else 6): raise KeyError("interrupted")
        return original(*a)
    with monkeypatch.context() as patch:
        patch.setattr(stepping, "step", interrupted)
        with pytest.raises(KeyError): command(*args, tmp_path / "run", "--checkpoint-minutes", "0")
    restore, empty = loop.restore, dict(carry=None, batch=0, epoch=0, best=None, sum=0.0)

    def without(state, at, model, optimizer, rng):
        kept = {k: copy.deepcopy(v.state_dict()) for k, v in (("model", model), ("optimizer", optimizer))}
        state = state | {part: dict(kept, rng=rng.get_state())[part]} if part in ("model", "optimizer", "rng") else \
            state | dict(at=state["at"] | {part: empty[part]})
        restore(state, at, model, optimizer, rng)
    monkeypatch.setattr(loop, "restore", without)
    command(*args, tmp_path / "run", "--checkpoint-minutes", "0")
    same = weights(tmp_path / "run") == weights(tmp_path / "whole") if (tmp_path / "run/model").exists() else False
    assert not same or metrics(tmp_path / "run") != metrics(tmp_path / "whole")


LONG = ["--epochs", "4000", "--checkpoint-minutes", "0"]  # it will not come to an end


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_stage_with_its_state_saved(made, tmp_path, stage, number, code):
    out = tmp_path / "run"
    process = started(stage, [*STAGES[stage](made), *LONG], out)
    until(lambda: len(Checkpoints(out / "checkpoint").notes()) == 2, process.is_alive)
    os.kill(process.pid, number)
    process.join(30)
    err = out.with_suffix(".log").read_text()
    assert process.exitcode == code and "the same command goes on from there" in err and "Traceback" not in err
    reached = int(err.split("stopped after step ")[1].split(";")[0].replace(",", ""))
    assert Checkpoints(out / "checkpoint").newest()["at"]["step"] == reached


def heeds(process: subprocess.Popen) -> bool:
    "Does it handle SIGTERM? It has imported nothing else by then."
    status = Path(f"/proc/{process.pid}/status").read_text()
    return bool(int(status.split("SigCgt:")[1].split()[0], 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux what a process does")
@pytest.mark.parametrize("number, code, said", [(signal.SIGTERM, 143, "terminated\n"),
                                                (signal.SIGINT, 130, "interrupted\n")])
@pytest.mark.parametrize("place", ["imports", "input"])
def test_a_signal_ends_a_command_in_one_line(made, tmp_path, place, number, code, said):
    "While it imports, and while it waits for its texts."
    os.mkfifo(tmp_path / "texts")
    held = []

    def reads():
        try: held.append(os.open(tmp_path / "texts", os.O_WRONLY | os.O_NONBLOCK))  # fails where nobody reads
        except OSError: return False
        return True
    args = [made.classifier, "--input", tmp_path / "texts", "--output", tmp_path / "csv"]
    process = subprocess.Popen([sys.executable, "-m", "ulmfit.predict", *map(str, args)], cwd=REPOSITORY, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until(reads if place == "input" else lambda: heeds(process), lambda: process.poll() is None)
    process.send_signal(number)
    assert (*process.communicate(timeout=30), process.returncode) == ("", said, code)
    for pipe in held: os.close(pipe)
    assert names(tmp_path) == ["texts"]


# --- one process a run ---

def test_a_run_that_another_process_trains_is_left_to_it(made, tmp_path):
    run = tmp_path / "run"
    with Checkpoints(run / "checkpoint").held():
        r = command("pretrain", "--corpus", made.one, *PRETRAIN, "--out", run)
    assert r.code == 1 and f"another process is at work on {run}" in r.err and "Traceback" not in r.err
    ok("pretrain", "--corpus", made.one, *PRETRAIN, "--out", run)
    assert names(run) == ["metrics.csv", "model", "run.json"]
