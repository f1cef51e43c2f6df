"""Does training pay for bf16? WikiText-2, preset `small`, bf16 against fp32, the same seeds.

    python -m experiments.precision [--seeds 3]        (make precision)

Figures go to experiments/results/precision.csv.
"""
from pathlib import Path

from fastcore.script import call_parse

from ulmfit.pretrain import main as pretrain
from ulmfit.training.files import write_text
from ulmfit.training.records import csv_text, read_record

RESULT = Path(__file__).parent / "results" / "precision.csv"


@call_parse
def main(
    steps: int = 300,  # of 32 × 70 tokens, a cycle over so many (0: two passes)
    seeds: int = 3,  # how many
    out: Path = Path("runs/precision"),  # folder of the runs
):
    "Train in both precisions."
    rows = []
    for seed in range(seeds):
        for precision in ("fp32", "bf16"):
            run = out / f"{precision}-{steps}-{seed}"
            pretrain(corpus="wikitext-2", preset="small", precision=precision, seed=seed, max_steps=steps, out=run)
            record = read_record(run)
            result = record["result"]
            rows.append(dict(precision=precision, seed=seed, steps=steps, valid_perplexity=result["valid_perplexity"],
                             tokens_per_second=round(result["tokens_per_second"]), threads=record["threads"],
                             peak_memory_mib=result["peak_memory_bytes"] >> 20, commit=(record["commit"] or "")[:12]))
            write_text(RESULT, csv_text(rows))
    print(csv_text(rows))
