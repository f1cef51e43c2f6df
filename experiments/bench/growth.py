"""What a step costs as the work grows: vocabulary, batch, length of a document, size of a corpus.

    python -m experiments.bench growth --save      a table, and a picture with --save

Each point is a process of its own, so that its peak of resident memory is that of the point alone; the paper's sizes,
in bf16 where the processor has it. A training step of the language model for vocabulary and batch; a prediction for
one document; preparation as `experiments.corpora` has measured it.
"""
import csv, json, sys, time
from pathlib import Path

from .rounds import Contender, answer, python_of, race

VOCABS, BATCHES = (10_000, 33_278, 60_000, 120_000, 267_735), (8, 16, 32, 64, 128, 256)
LENGTHS = (100, 1000, 10_000, 100_000)
USUAL = dict(vocab=33_278, batch=64, bptt=70, steps=1, device="cpu", precision="auto", kernel="fused")
CORPORA = Path(__file__).parents[1] / "results" / "corpora.csv"


def document(length: int):
    "A contender: the class of one document of so many tokens."
    import torch
    from ulmfit.model.classifier import Classifier
    from ulmfit.model.device import device_and_dtype
    from ulmfit.model.encoder import Encoder
    _, dtype = device_and_dtype(USUAL["device"], USUAL["precision"])
    model = Classifier(Encoder(USUAL["vocab"]), 2).eval()
    ids, lengths = torch.randint(2, USUAL["vocab"], (length, 1)), torch.tensor([length])

    @torch.no_grad()
    def work() -> dict:
        began = time.perf_counter()
        model(ids, lengths, dtype=dtype)
        return dict(seconds=time.perf_counter() - began, dtype=str(dtype))
    answer(work)


def point(axis: str, at: int, command: list[str], threads: int) -> dict:
    "A row: seconds and bytes."
    contender = Contender(f"{axis} {at:,}", [python_of("ulmfit"), "-m", *command], threads)
    race([contender], 2)
    return dict(axis=axis, at=at, dtype=contender.rounds[0]["dtype"],
                seconds=round(min(r["seconds"] for r in contender.rounds), 3),
                peak_memory_bytes=max(r["peak_memory_bytes"] for r in contender.rounds))


def compare(threads: int) -> list[dict]:
    "All rows."
    def step(**change): return ["experiments.bench.lm", "ulmfit", json.dumps(USUAL | change)]
    rows = [point("vocabulary", v, step(vocab=v), threads) for v in VOCABS]
    rows += [point("batch", b, step(batch=b), threads) for b in BATCHES]
    rows += [point("document's tokens", n, ["experiments.bench.growth", str(n)], threads) for n in LENGTHS]
    prepared = sorted(csv.DictReader(CORPORA.read_text().splitlines()), key=lambda r: int(r["tokens"]))
    return rows + [dict(axis="corpus's tokens", at=int(r["tokens"]), dtype="", seconds=float(r["seconds"]),
                        peak_memory_bytes=int(r["peak_memory_bytes"])) for r in prepared]


def draw(rows: list[dict], path: Path):
    "A panel for each axis: seconds and gigabytes, both scales logarithmic; a dashed line grows in proportion."
    from matplotlib.figure import Figure
    axes_of = list(dict.fromkeys(r["axis"] for r in rows))
    figure = Figure(figsize=(4 * len(axes_of), 3.6), dpi=120, layout="constrained")
    for name, panel in zip(axes_of, figure.subplots(1, len(axes_of))):
        own = [r for r in rows if r["axis"] == name]
        x, seconds = [r["at"] for r in own], [r["seconds"] for r in own]
        panel.loglog(x, seconds, "o-", color="#0072B2", label="seconds")
        panel.loglog(x, [r["peak_memory_bytes"] / 1e9 for r in own], "s-", color="#D55E00", label="peak memory, GB")
        panel.loglog(x, [seconds[-1] * a / x[-1] for a in x], "--", color="#888888", label="in proportion")
        panel.set_xlabel(name)
    figure.axes[0].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


if __name__ == "__main__": document(int(sys.argv[1]))
