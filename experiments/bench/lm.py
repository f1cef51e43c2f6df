"""A complete training step of the language model: dropouts, AR and TAR, backward pass, clipping, Adam.

    python -m experiments.bench lm --vocab 33278 --batch 64 --bptt 70 --peer fastai

Contenders: `ulmfit`, this project's step in its own precision, with `--kernel`; `torch`, the model as it is usually
written (nn.LSTM, all logits at once, float32); `fastai` 2.8.12, its model and its loop in float32, or `fastai-bf16`,
the same under autocast. Same sizes, same random words; the paper's dropouts. The first step of each is not timed.
"""
import json, os, sys, time
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .rounds import Contender, answer, beside_last, python_of, race, rates

SIZES = dict(emb=400, hidden=1150, layers=3)
DROPOUTS = dict(output=0.1, hidden=0.15, input=0.25, embedding=0.02, weight=0.2)
LSTM_ON_GPU = {torch.float32: ", LSTM in TF32", torch.bfloat16: ", LSTM in float16"}  # a peer's, as torch has it
ADAM, CLIP, ALPHA, BETA = dict(lr=1e-3, betas=(0.8, 0.99), eps=1e-8), 0.25, 2.0, 1.0


def windows(how: dict) -> list[tuple[Tensor, Tensor]]:
    "A round's inputs and targets (t, b)."
    t, b, n = how["bptt"], how["batch"], how["steps"]
    ids = torch.from_numpy(np.random.default_rng(0).integers(2, how["vocab"], (t * n + 1, b))).to(how["device"])
    return [(ids[i:i + t], ids[i + 1:i + 1 + t]) for i in range(0, t * n, t)]


def ulmfit(how: dict) -> tuple[Callable, str]:
    from ulmfit.model.device import device_and_dtype
    from ulmfit.model.dropout import Columns
    from ulmfit.model.encoder import Architecture, Encoder
    from ulmfit.model.language_model import LanguageModel, Share, layer_groups
    from ulmfit.training.captured import Captured, capturable
    from ulmfit.training.distributed import Ranks
    from ulmfit.training.optimizers import Optimization, build
    from ulmfit.training.schedules import Schedule
    from ulmfit.training.step import Eager
    device, dtype = device_and_dtype(how["device"], how["precision"])
    model = LanguageModel(Encoder(how["vocab"], Architecture(**SIZES), kernel=how["kernel"])).to(device).train()
    beta1, beta2 = ADAM["betas"]
    optimizer = build(layer_groups(model), Optimization("adam", ADAM["lr"], beta1, beta2, ADAM["eps"]))
    rng, columns = torch.Generator(device).manual_seed(0), Columns(slice(None), how["batch"])

    def loss(batch, state, rng):
        (x, y), targets = batch
        return model.loss(x, y, state, rng=rng, dtype=dtype, share=Share(columns, targets))
    task, alone = SimpleNamespace(model=model, loss=loss, unit="tokens"), Ranks()
    advance = (Captured(task, optimizer, CLIP, False, rng) if capturable(task, optimizer, Schedule(), alone) else
               Eager(task, optimizer, CLIP, False, rng, alone))

    def run(pairs: list):
        at = dict(carry=None, count=0, sum=0.0, seen=0, skipped=0)
        for pair in pairs: at |= advance((pair, pair[0].numel()), at, "benchmark")
        advance.settled(at)
    return run, str(dtype)


class Plain(nn.Module):
    "The model as it is usually written: dropout masks on whole matrices, nn.LSTM, all logits at once."
    def __init__(self, vocab: int, emb: int, hidden: int, layers: int):
        super().__init__()
        widths = [emb, *[hidden] * (layers - 1), emb]
        self.embedding = nn.Embedding(vocab, emb)
        self.lstms = nn.ModuleList(map(nn.LSTM, widths, widths[1:]))
        self.decoder = nn.Linear(emb, vocab)
        self.decoder.weight = self.embedding.weight

    def forward(self, x: Tensor, y: Tensor, states: list) -> tuple[Tensor, list]:
        p, weight = DROPOUTS, self.embedding.weight
        words = F.dropout(weight.new_ones(len(weight), 1), p["embedding"])
        out, last = self.locked(F.embedding(x, weight * words), p["input"]), []
        for i, (lstm, state) in enumerate(zip(self.lstms, states)):
            if i: out = self.locked(out, p["hidden"])
            dropped = dict(weight_hh_l0=F.dropout(lstm.weight_hh_l0, p["weight"]))
            out, state = torch.func.functional_call(lstm, dropped, (out, state))
            last.append(tuple(s.detach() for s in state))
        dropped = self.locked(out, p["output"])
        loss = F.cross_entropy(self.decoder(dropped).flatten(0, 1), y.flatten())
        return loss + ALPHA * dropped.square().mean() + BETA * (out[1:] - out[:-1]).square().mean(), last

    @staticmethod
    def locked(x: Tensor, p: float) -> Tensor: return x * F.dropout(x.new_ones(1, *x.shape[1:]), p)


def plain(how: dict) -> tuple[Callable, str]:
    model = Plain(how["vocab"], **SIZES).to(how["device"])
    optimizer = torch.optim.Adam(model.parameters(), **ADAM)

    def run(pairs: list):
        states = [None] * SIZES["layers"]
        for x, y in pairs:
            loss, states = model(x, y, states)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            optimizer.zero_grad()
    return run, f"torch.float32{LSTM_ON_GPU[torch.float32] if how['device'] == 'cuda' else ''}"


def fastai(how: dict, autocast: bool = False) -> tuple[Callable, str]:
    from fastai.callback.core import Callback, CancelEpochException
    from fastai.callback.training import GradientClip
    from fastai.data.core import DataLoaders
    from fastai.losses import CrossEntropyLossFlat
    from fastai.optimizer import Adam
    from fastai.text.learner import LMLearner
    from fastai.torch_core import default_device

    from experiments.peer_fastai import build_model

    class TrainOnly(Callback):
        "No validation; under autocast, the model and the loss."
        def before_batch(self):
            self.context = torch.autocast(how["device"], torch.bfloat16, enabled=autocast)
            self.context.__enter__()

        def after_loss(self): self.context.__exit__(None, None, None)
        def after_train(self): raise CancelEpochException

    beta1, beta2 = ADAM["betas"]
    default_device(how["device"] == "cuda")  # else it takes a GPU where there is one

    def run(pairs: list):
        learner.dls = DataLoaders(pairs, pairs, device=how["device"])
        with learner.no_bar(), learner.no_logging(): learner.fit(1)
    model = build_model(how["vocab"], **SIZES, bias=True, dropouts=DROPOUTS).to(how["device"])
    learner = LMLearner(DataLoaders([], []), model, loss_func=CrossEntropyLossFlat(), lr=ADAM["lr"],
                        opt_func=lambda ps, lr: Adam(ps, lr, beta1, beta2, ADAM["eps"], wd=0.0), alpha=ALPHA, beta=BETA,
                        cbs=[GradientClip(CLIP), TrainOnly()])
    dtype = torch.bfloat16 if autocast else torch.float32
    return run, str(dtype) + ", autocast" * autocast + (LSTM_ON_GPU[dtype] if how["device"] == "cuda" else "")


CONTENDERS = {"ulmfit": ulmfit, "torch": plain, "fastai": fastai, "fastai-bf16": lambda how: fastai(how, autocast=True)}


def contend(name: str, how: dict):
    "Built, and warm after its first steps, when its first turn comes: while others measure, it waits."
    torch.manual_seed(0)
    pairs = windows(how)
    if name.startswith("fastai"): pairs = [(x.T.contiguous(), y.T.contiguous()) for x, y in pairs]  # batch first

    @cache
    def warm() -> tuple[Callable, str]:
        run, dtype = CONTENDERS[name](how)
        on_gpu = how["device"] == "cuda"
        for _ in range(3 if on_gpu else 1): run(pairs[:1])  # on a GPU: as it is, recorded, replayed
        if on_gpu: torch.cuda.synchronize()
        return run, dtype

    def work() -> dict:
        run, dtype = warm()
        began = time.perf_counter()
        run(pairs)
        memory = {}
        if how["device"] == "cuda":
            torch.cuda.synchronize()
            memory = dict(peak_memory_bytes=torch.cuda.max_memory_reserved())
        return dict(seconds=time.perf_counter() - began, tokens=len(pairs) * pairs[0][0].numel(), dtype=dtype) | memory
    answer(work)


def compare(peer: str | None, rounds: int, **how) -> list[dict]:
    "A row of figures for each contender; `how`: vocab, batch, bptt, steps, device, precision, kernel."
    names = ["ulmfit", "torch", *([peer] if peer not in (None, "torch") else [])]
    threads = len(os.sched_getaffinity(0))
    contenders = [Contender(n, [python_of(n), "-m", "experiments.bench.lm", n, json.dumps(how)], threads)
                  for n in names]
    race(contenders, rounds)
    sizes = {k: how[k] for k in ("vocab", "batch", "bptt", "device")} | SIZES
    rows = [dict(contender=c.name, dtype=c.rounds[0]["dtype"], **sizes, threads=threads, rounds=rounds)
            | rates(c, "tokens") | dict(peak_memory_bytes=max(r["peak_memory_bytes"] for r in c.rounds))
            for c in contenders]
    return beside_last(rows, "tokens")


if __name__ == "__main__": contend(sys.argv[1], json.loads(sys.argv[2]))
