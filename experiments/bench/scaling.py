"""A training step of the language model by several processes beside one, a thread each, gradients summed by gloo.

    python -m experiments.bench scaling --vocab 33278 --batch 64 --bptt 70

Contenders: one process; several with the same batch together (the run is the same one, sooner); several with that batch
each (more work, bigger steps). `efficiency` is their tokens per second over those of as many single processes.
"""
import json, os, socket, sys, time

import torch

from .lm import ADAM, ALPHA, BETA, CLIP, SIZES, windows
from .rounds import Contender, answer, python_of, race, rates


def steps(how: dict):
    "This process's part of a round: built, and warm after a step, when the first turn comes."
    from ulmfit.model.device import device_and_dtype
    from ulmfit.model.dropout import Columns
    from ulmfit.model.encoder import Architecture, Encoder
    from ulmfit.model.language_model import LanguageModel, Regularization, Share, layer_groups
    from ulmfit.training.distributed import join
    from ulmfit.training.optimizers import Optimization, build
    from ulmfit.training.step import step
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device, dtype = device_and_dtype("cpu", how["precision"])
    ranks, device = join(device)
    model = LanguageModel(Encoder(how["vocab"], Architecture(**SIZES))).train()
    optimizer = build(layer_groups(model), Optimization("adam", ADAM["lr"], *ADAM["betas"], ADAM["eps"]))
    rng, here = torch.Generator(device).manual_seed(0), ranks.part(how["batch"])
    pairs = [(x[:, here].contiguous(), y[:, here].contiguous(), Share(Columns(here, how["batch"]), x.numel()))
             for x, y in windows(how)]

    def run(pairs: list):
        state = None
        for x, y, share in pairs:
            loss = model.loss(x, y, state, Regularization(ALPHA, BETA), rng, dtype, share)
            step(loss, optimizer, CLIP, "", ranks=ranks)
            state = loss.state
    run(pairs[:1])

    def work() -> dict:
        began = time.perf_counter()
        run(pairs)
        return dict(seconds=time.perf_counter() - began, tokens=sum(share.targets for *_, share in pairs),
                    dtype=str(dtype))
    return ranks, work


def contend(size: int, how: dict):
    "The first process answers; the others, forks of it, wait for its word to begin a round."
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        os.environ |= dict(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(s.getsockname()[1]), WORLD_SIZE=str(size),
                           TORCHELASTIC_RUN_ID="scaling")
    rank = next((r for r in range(1, size) if os.fork() == 0), 0)
    os.environ |= dict(RANK=str(rank), LOCAL_RANK=str(rank))
    ranks, work = steps(how)
    if ranks.leads:
        answer(lambda: ranks.highest(1) and work())
        ranks.highest(0)
    else:
        while ranks.highest(0)[0]: work()
    ranks.leave()


def compare(rounds: int, processes: int, **how) -> list[dict]:
    "A row of figures for each contender; `how`: vocab, batch, bptt, steps, precision."
    work = {"one process": (1, how["batch"]), "the same batch": (processes, how["batch"]),
            "that batch each": (processes, how["batch"] * processes)}
    contenders = [Contender(name, [python_of(name), "-m", "experiments.bench.scaling", str(size),
                                   json.dumps(how | dict(batch=batch))], size) for name, (size, batch) in work.items()]
    race(contenders, rounds)
    rows = [dict(contender=c.name, processes=size, dtype=c.rounds[0]["dtype"], vocab=how["vocab"], batch=batch,
                 bptt=how["bptt"]) | SIZES | dict(rounds=rounds) | rates(c, "tokens")
            | dict(peak_memory_bytes=max(r["peak_memory_bytes"] for r in c.rounds))
            for c, (size, batch) in zip(contenders, work.values())]
    for row in rows:
        alone = row["processes"] * rows[0]["tokens_per_second"]
        row["efficiency"] = round(row["tokens_per_second"] / alone, 3)
    return rows


if __name__ == "__main__": contend(int(sys.argv[1]), json.loads(sys.argv[2]))
