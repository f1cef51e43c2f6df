"""A model to give away: a bundle of its own, in a quarter of the size.

    python -m ulmfit.export runs/reviews --out reviews-model

Matrices are kept in 8 bits with a scale for each row; every command takes the folder as it takes a run.
"""
from pathlib import Path

from fastcore.script import CliError, call_parse

from .model import bundle
from .model.bundle import WEIGHTS


@call_parse
def main(
    run: Path,  # run or bundle
    out: Path = Path("runs/export"),  # folder to write
):
    "Write a compact bundle."
    if out.resolve() == bundle.model_folder(run).resolve():
        raise CliError(f"--out {out} is the model itself, which would lose precision: give another folder")
    if any((folder / "run.json").exists() for folder in (out, out.parent)):
        raise CliError(f"--out {out} is a run's: give another folder")
    bundle.load(run).save(out, small=True)
    before, after = ((folder / WEIGHTS).stat().st_size for folder in (bundle.model_folder(run), out))
    print(f"{out}: {after / 1e6:.1f} MB ({before / 1e6:.1f} before)")
