"""Benchmarks by name.

    python -m experiments.bench tokenize --input imdb [--documents 25000] [--peer fastai] [--json]
    python -m experiments.bench lm --vocab 33278 --batch 64 --bptt 70 [--device cpu|cuda] [--peer fastai|torch] [--json]
    python -m experiments.bench classify --documents 256 [--peer fastai] [--json]
    python -m experiments.bench predict --documents 512 [--peer fastai] [--json]
    python -m experiments.bench growth [--json]
    python -m experiments.bench scaling [--processes 2] [--json]

One JSON object a contender with `--json`, else a table. `--peer fastai` needs `make bench-peers`.
"""
import os
from json import dumps
from pathlib import Path

import torch
from fastcore.script import CliError, call_parse

from ulmfit.model.device import device_and_dtype
from ulmfit.training.files import write_text

from . import classify, growth, lm, scaling, tokenize
from .rounds import machine

RESULTS = Path(__file__).parents[1] / "results" / "bench"
NAMES = {torch.bfloat16: "bf16", torch.float32: "fp32"}


def table(rows: list[dict]) -> str:
    "Rows under the columns of the first, aligned."
    cells = [list(rows[0]), *([f"{v:,}" if isinstance(v, (int, float)) and not isinstance(v, bool) else str(v)
                               for v in (r.get(k, "") for k in rows[0])] for r in rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    return "\n".join("  ".join(c.rjust(w) for c, w in zip(line, widths)) for line in cells)


@call_parse(pos=["what"])
def main(
    what: str,  # tokenize | lm | classify | predict | growth | scaling
    input: str = "imdb",  # tokenize: a dataset by name, or a file
    documents: int = None,  # tokenize: so many of its documents (25,000; 0: all); classify: 256, predict: 512
    vocab: int = 33_278,  # lm, scaling: words
    batch: int = 64,  # lm, scaling: columns
    bptt: int = 70,  # lm, scaling: tokens a window
    steps: int = None,  # lm, scaling: of each round (2; on a GPU 50)
    processes: int = 2,  # scaling: beside one
    device: str = "cpu",  # lm: cpu | cuda
    precision: str = "auto",  # lm, scaling: of this project, auto | fp32 | bf16
    kernel: str = "fused",  # lm: of this project, fused | unrecorded (GPU) | wavefront (GPU) | reference
    peer: str = None,  # fastai; lm: torch | fastai | fastai-bf16
    rounds: int = 3,  # of each contender
    json: bool = False,  # print JSON, an object a contender
    save: bool = False,  # keep the figures in experiments/results/bench/
):
    "Measure, beside a peer if there is one."
    peers = dict(tokenize=["fastai"], lm=["torch", "fastai", "fastai-bf16"], classify=["fastai"], predict=["fastai"],
                 growth=[], scaling=[])
    usual = dict(tokenize=25_000, classify=256, predict=512)
    if what not in peers: raise CliError(f"no benchmark is called {what!r}; there are: {', '.join(peers)}")
    if peer not in (None, *peers[what]):
        raise CliError(f"no peer is called {peer!r}; there is: {', '.join(peers[what]) or 'none'}")
    if what != "lm" and device != "cpu": raise CliError(f"{what} is measured on the CPU alone, --device is for lm")
    if steps is None: steps = 2 if device == "cpu" else 50
    if documents is None: documents = usual.get(what)
    precision = NAMES[device_and_dtype(device, precision)[1]]
    if what == "tokenize": rows = tokenize.compare(input, documents, peer, rounds)
    elif what in ("classify", "predict"): rows = classify.compare(what, documents, peer, rounds)
    elif what == "growth": rows = growth.compare(len(os.sched_getaffinity(0)))
    elif what == "scaling":
        rows = scaling.compare(rounds, processes, vocab=vocab, batch=batch, bptt=bptt, steps=steps, device="cpu",
                               precision=precision)
    else:
        rows = lm.compare(peer, rounds, vocab=vocab, batch=batch, bptt=bptt, steps=steps, device=device,
                          precision=precision, kernel=kernel)
    print("\n".join(map(dumps, rows)) if json else table(rows))
    if not save: return
    gpu = {} if device == "cpu" else dict(gpu=torch.cuda.get_device_name(device))
    name = what
    if what == "lm":
        window = [] if (batch, bptt) == (64, 70) else [f"{batch}x{bptt}"]
        name = "-".join(["lm", str(vocab), precision, *window, *{kernel} - {"fused"},
                         *gpu.get("gpu", "").lower().split()])
    write_text(RESULTS / f"{name}.json", dumps(dict(machine=machine() | gpu, contenders=rows), indent=1) + "\n")
    if what == "growth": growth.draw(rows, RESULTS / "growth.png")
