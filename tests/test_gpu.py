"""On a CUDA device: kernels against their references in float64, and a step of each model against the CPU's.

Recorded steps come last: torch is not to be trusted with memory in a process where a recording has failed.

    .venv/bin/python -m pytest -m gpu tests/test_gpu.py
"""
import os
from importlib import import_module

import pytest
import torch
from commands import FINETUNE, PRETRAIN, SCRATCH, films, metrics, ok, record, table, weights
from reference import close
from ulmfit.corpus import source
from ulmfit.kernels import KERNELS
from ulmfit.kernels.layers import CHUNK
from ulmfit.kernels.linear_cross_entropy import IGNORE
from ulmfit.model.classifier import Classifier, Reading
from ulmfit.model.device import device_and_dtype
from ulmfit.model.encoder import NO_DROPOUT, Architecture, Encoder
from ulmfit.model.language_model import LanguageModel, Regularization
from ulmfit.training import loop
from ulmfit.training.captured import Captured

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # torch looks once, at a process's first product
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]
CUDA = torch.device("cuda")
LIKE_MERITY = ["--tokenizer", "words", *PRETRAIN, "--draw", "merity", "--clip", "0.25", "--epochs", "4", "--schedule",
               "constant", "--keep-checkpoint", "--device", "cuda"]
BOUNDS = {torch.float32: 1e-4, torch.bfloat16: 2e-2}  # of a tensor's norm


@pytest.fixture(autouse=True)
def products_are_those_of_the_commands(request):
    of_test = getattr(request.node, "callspec", None)
    bf16 = of_test and of_test.params.get("dtype") is torch.bfloat16
    device_and_dtype("cuda", "bf16" if bf16 else "fp32")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    "Text for a language model, prepared without spaCy: the machine with the GPU may have none."
    root = tmp_path_factory.mktemp("gpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "ROOT", root / "data")
        yield table(root / "one.csv", films(8, 2))


def near(got, expected, bound: float):
    for g, e in zip(got, expected, strict=True): assert (g.cpu().double() - e).norm() <= bound * e.norm() + 1e-9


def random(*shapes, seed: int = 0) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(*s, generator=rng, dtype=torch.float64) * s[-1] ** -0.5 for s in shapes]


def with_gradients(function, arguments) -> list[torch.Tensor]:
    "Outputs, and gradients by the arguments of the sum of their squares."
    arguments = [a.detach().requires_grad_() for a in arguments]
    out = function(*arguments)
    return [*out, *torch.autograd.grad(sum(o.float().square().sum() for o in out), arguments)]


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("t, b, inputs, h", [(1, 1, 3, 5), (2, 4, 8, 16), (7, 3, 400, 1150), (70, 64, 40, 115),
                                          (7, 3, 40, 160)])
def test_lstm(t, b, inputs, h, dtype):
    arguments = random((t, b, inputs), (b, h), (b, h), (4 * h, inputs), (4 * h, h), (4 * h,), (4 * h,))

    def of(kernel, dtype):
        def call(x, h, c, *weights):
            out, (h, c) = kernel(x.to(dtype), (h, c), *weights)
            return out, h, c
        return call
    expected = with_gradients(of(KERNELS["reference"].lstm, torch.float64), arguments)
    got = with_gradients(of(KERNELS["fused"].lstm, dtype), [a.to(CUDA, torch.float32) for a in arguments])
    near(got, expected, BOUNDS[dtype])


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("n, v, e", [(1, 2, 3), (65, 1000, 40), (700, 33_278, 16)])
@pytest.mark.parametrize("blocks", ["one", "several"])
def test_linear_cross_entropy(n, v, e, dtype, blocks, monkeypatch):
    lce = import_module("ulmfit.kernels.linear_cross_entropy")
    if blocks == "several": monkeypatch.setattr(lce, "LOGITS", dict(cuda=1))
    arguments, target = random((n, e), (v, e), (v,)), torch.arange(n) * 31 % v
    if n > 1: target[-1] = IGNORE
    def of(kernel, target, dtype): return lambda *arguments: [kernel(*arguments, target, dtype)]
    expected = with_gradients(of(KERNELS["reference"].linear_cross_entropy, target, torch.float64), arguments)
    got = with_gradients(of(KERNELS["fused"].linear_cross_entropy, target.to(CUDA), dtype),
                         [a.to(CUDA, torch.float32) for a in arguments])
    near(got, expected, BOUNDS[dtype])


def loss_and_gradients(model, *batch, device, dtype) -> list[torch.Tensor]:
    model = model.to(device, torch.float64 if device == "cpu" else torch.float32).train()
    loss = model.loss(*(b.to(device) for b in batch), regularization=Regularization(2.0, 1.0), dtype=dtype)
    loss.objective.backward()
    found = [loss.value, *(p.grad for p in model.parameters())]
    model.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("dtype", BOUNDS)
def test_a_step_of_either_model_is_the_cpus(dtype):
    "The classifier's in float32 alone: in bf16 its maxima meet ties, which batch norm over six documents magnifies."
    torch.manual_seed(0)
    encoder = Encoder(100, Architecture(20, 37, 2), NO_DROPOUT)
    ids, lengths = torch.randint(100, (30, 6)), torch.tensor([30, 30, 20, 11, 2, 1])
    classifier = Classifier(encoder, 3, reading=Reading(bptt=8, max_length=24))
    for block in classifier.head: block.p = 0.0
    steps = [(LanguageModel(encoder), ids[:-1], ids[1:]), (classifier, ids, lengths, lengths % 3)]
    for model, *batch in steps if dtype == torch.float32 else steps[:1]:
        expected = loss_and_gradients(model, *batch, device="cpu", dtype=None)
        got = loss_and_gradients(model, *batch, device="cuda", dtype=dtype)
        near(got, expected, 10 * BOUNDS[dtype])


def test_masks_of_a_seed_are_the_same_twice():
    encoder, ids = Encoder(50, Architecture(8, 16, 2)).to(CUDA).train(), torch.randint(50, (9, 4), device=CUDA)
    a, b = (encoder(ids, rng=torch.Generator(CUDA).manual_seed(1)).last for _ in range(2))
    close(a, b, 0.0)


@pytest.mark.parametrize("dtype", BOUNDS)
def test_layers_side_by_side_are_those_in_turn(dtype):
    found, ids = {}, torch.randint(100, (3 * CHUNK + 2, 16), device=CUDA)
    for kernel in "fused", "wavefront":
        torch.manual_seed(0)
        model = LanguageModel(Encoder(100, Architecture(40, 115, 3), kernel=kernel)).to(CUDA).train()
        for _ in range(3):  # memory of the first is used again by the next
            model.zero_grad()
            loss = model.loss(ids[:-1], ids[1:], rng=torch.Generator(CUDA).manual_seed(0), dtype=dtype)
            loss.objective.backward()
        found[kernel] = [loss.value, *(p.grad for p in model.parameters())]
    near(found["wavefront"], [t.cpu().double() for t in found["fused"]], 2 * BOUNDS[dtype])


def valid_losses(run) -> list[float]: return [float(r["valid_loss"]) for r in metrics(run)]


def alike(got: list[float], expected: list[float]):
    assert got == pytest.approx(expected, rel=10 * BOUNDS[torch.float32])


def test_a_classifier_learns_in_bf16_as_in_float32(corpus, tmp_path):
    for precision in "fp32", "bf16":
        ok("classify", "--dataset", corpus, "--tokenizer", "words", *SCRATCH, "--epochs", "4", "--device", "cuda",
           "--precision", precision, "--out", tmp_path / precision)
    assert valid_losses(tmp_path / "bf16") == pytest.approx(valid_losses(tmp_path / "fp32"), rel=0.1)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_deterministic_run_that_is_stopped_ends_bit_for_bit_where_it_would(corpus, tmp_path, undetermined, precision):
    args = ["--corpus", corpus, *LIKE_MERITY, "--no-keep-best", "--precision", precision, "--deterministic"]
    ok("pretrain", *args, "--out", tmp_path / "whole")
    for steps in "5", "9", "0": ok("pretrain", *args, "--max-steps", steps, "--out", tmp_path / "part")
    assert weights(tmp_path / "part") == weights(tmp_path / "whole")


@pytest.fixture
def recordings(monkeypatch) -> list[int]:
    "Lengths of the windows whose step was recorded, in turn."
    lengths, recorded = [], Captured.recorded
    monkeypatch.setattr(Captured, "recorded", lambda self, *a: lengths.append(len(a[0])) or recorded(self, *a))
    return lengths


@pytest.mark.parametrize("kernel", ["fused", "wavefront"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_recorded_steps_train_as_those_that_are_waited_for(corpus, tmp_path, monkeypatch, recordings, precision,
                                                           kernel):
    "Windows of several lengths, each recorded and replayed, in several chunks; and a run that is stopped and goes on."
    monkeypatch.setattr("ulmfit.kernels.layers.CHUNK", 3)
    args = ["--corpus", corpus, *LIKE_MERITY, "--precision", precision, "--kernel", kernel]
    ok("pretrain", *args, "--out", tmp_path / "recorded")
    assert len({*recordings}) > 1
    ok("pretrain", *args, "--max-steps", "9", "--out", tmp_path / "part")
    ok("pretrain", *args, "--out", tmp_path / "part")
    monkeypatch.setattr(loop, "capturable", lambda *about: False)
    ok("pretrain", *args, "--out", tmp_path / "eager")
    alike(valid_losses(tmp_path / "recorded"), valid_losses(tmp_path / "eager"))
    alike(valid_losses(tmp_path / "part")[-1:], valid_losses(tmp_path / "recorded")[-1:])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_recorded_steps_of_a_wide_model_are_those_that_are_waited_for(corpus, tmp_path, monkeypatch, recordings,
                                                                     precision):
    "From a width of 193 cuDNN computes otherwise, and torch the gradient of 3,073 ids or more."
    many = table(tmp_path / "many.csv", films(500, 3))
    args = ["--corpus", many, *LIKE_MERITY, "--draw", "fixed", "--emb", "200", "--hidden", "264", "--batch", "64",
            "--bptt", "60", "--max-steps", "5", "--precision", precision]
    ok("pretrain", *args, "--out", tmp_path / "recorded")
    assert recordings
    monkeypatch.setattr(loop, "capturable", lambda *about: False)
    ok("pretrain", *args, "--out", tmp_path / "eager")
    alike(valid_losses(tmp_path / "recorded"), valid_losses(tmp_path / "eager"))


def test_steps_are_recorded_anew_when_more_layers_learn(corpus, tmp_path, monkeypatch, recordings):
    "And AdamW's as Adam's."
    ok("pretrain", "--corpus", corpus, *LIKE_MERITY, "--out", tmp_path / "lm")
    recordings.clear()
    args = ["--dataset", corpus, "--model", tmp_path / "lm", *FINETUNE, "--device", "cuda", "--epochs", "4", "--plan",
            "gradual", "--optimizer", "adamw", "--weight-decay", "0.1"]
    ok("finetune_lm", *args, "--out", tmp_path / "recorded")
    assert recordings.count(8) > 1
    monkeypatch.setattr(loop, "capturable", lambda *about: False)
    ok("finetune_lm", *args, "--out", tmp_path / "eager")
    alike(valid_losses(tmp_path / "recorded"), valid_losses(tmp_path / "eager"))


def test_a_recorded_step_that_is_not_finite_is_skipped(corpus, tmp_path, monkeypatch, recordings):
    factor, steps, loss, set_rate = torch.ones((), device=CUDA), [], LanguageModel.loss, loop.set_rate

    def spoilt(self, *batch, **more):
        found = loss(self, *batch, **more)
        return found._replace(objective=found.objective * factor) if self.training else found

    def counting(*about):  # before each step, recorded or not
        steps.append(1)
        factor.fill_(torch.nan if len(steps) in (6, 9) else 1.0)
        set_rate(*about)
    monkeypatch.setattr(LanguageModel, "loss", spoilt)
    monkeypatch.setattr(loop, "set_rate", counting)
    args = ["--corpus", corpus, *LIKE_MERITY, "--draw", "fixed", "--on-nonfinite", "skip"]
    for name, capturable in ("recorded", loop.capturable), ("eager", lambda *about: False):
        steps.clear()
        monkeypatch.setattr(loop, "capturable", capturable)
        ok("pretrain", *args, "--out", tmp_path / name)
        assert record(tmp_path / name)["skipped_steps"] == 2
    assert recordings
    alike(valid_losses(tmp_path / "recorded"), valid_losses(tmp_path / "eager"))
