"Steps that the host does not wait for are the steps that it waits for; on the CPU, where they run without a graph."
import pytest
from commands import PRETRAIN, command, metrics, record, weights
from safetensors.torch import load
from ulmfit.model.language_model import LanguageModel
from ulmfit.training import captured, loop

AWD = ["--draw", "merity", "--scale-rate", "--clip", "0.25", "--alpha", "2", "--beta", "1"]


@pytest.fixture
def recorded(monkeypatch):
    "From here on; the device is asked every third step."
    monkeypatch.setattr(loop, "capturable", lambda *about: True)
    monkeypatch.setattr(captured, "ASKED", 3)


@pytest.fixture
def nan_at(monkeypatch):
    "The losses of some steps are not numbers."
    original, calls = LanguageModel.loss, []

    def on(*steps):
        def bad(self, *batch, **more):
            found = original(self, *batch, **more)
            if self.training: calls.append(1)
            if not self.training or len(calls) not in steps: return found
            return found._replace(objective=found.objective * float("nan"))
        calls.clear()
        monkeypatch.setattr(LanguageModel, "loss", bad)
    return on


def run(made, out, *more): return command("pretrain", "--corpus", made.one, *PRETRAIN, *AWD, *more, "--out", out)


def same(a, b, bound: float = 1e-5):
    "Weights within `bound` of their norm, and metrics; a recorded step has its rate in float32."
    x, y = (load(weights(run)) for run in (a, b))
    for name in y: assert (x[name] - y[name]).norm() <= bound * y[name].norm()
    for x, y in zip(metrics(a), metrics(b), strict=True):
        assert {k: float(v) for k, v in x.items()} == pytest.approx({k: float(v) for k, v in y.items()}, rel=1e-4)


def test_they_train_alike(made, tmp_path, recorded, monkeypatch):
    "Windows of many lengths, state carried, penalties, clipping, a rate that changes."
    assert not run(made, tmp_path / "captured").code
    monkeypatch.setattr(loop, "capturable", lambda *about: False)
    assert not run(made, tmp_path / "eager").code
    same(tmp_path / "captured", tmp_path / "eager")
    assert record(tmp_path / "captured")["result"]["tokens_per_second"] > 0


def test_a_run_that_is_continued_ends_where_it_ends_undisturbed(made, tmp_path, recorded):
    assert not run(made, tmp_path / "whole", "--schedule", "constant").code
    part = [made, tmp_path / "part", "--schedule", "constant", "--keep-checkpoint"]
    assert not run(*part, "--max-steps", "4").code and "continuing at step 4" in run(*part).out
    assert weights(tmp_path / "part") == weights(tmp_path / "whole")


def test_a_step_that_is_not_finite_is_skipped(made, tmp_path, recorded, monkeypatch, nan_at):
    for name, recording in ("captured", True), ("eager", False):
        monkeypatch.setattr(loop, "capturable", lambda *about: recording)
        nan_at(2, 5)
        assert not run(made, tmp_path / name, "--on-nonfinite", "skip").code
        assert record(tmp_path / name)["skipped_steps"] == 2
    same(tmp_path / "captured", tmp_path / "eager")


def test_a_step_that_is_not_finite_ends_the_run_with_the_weights_before_it(made, tmp_path, recorded, nan_at):
    "It is seen later: the steps in between have changed nothing."
    assert not run(made, tmp_path / "run", "--schedule", "constant", "--max-steps", "4", "--keep-checkpoint").code
    nan_at(1)
    r = run(made, tmp_path / "run", "--schedule", "constant", "--keep-checkpoint")
    assert r.code == 1 and "step 5, rate" in r.err and "gradient norm nan" in r.err and r.err.count("\n") <= 3


def test_too_many_skipped_steps_end_the_run(made, tmp_path, recorded, nan_at):
    nan_at(2, 3, 4)
    r = run(made, tmp_path / "run", "--on-nonfinite", "skip", "--max-skipped", "2")
    assert r.code == 1 and "more than 2 steps" in r.err
