"""Vectors of documents or tokens from a model's encoder, as features for another classifier or a search.

    python -m ulmfit.embed runs/wt103 --input texts.csv --output vectors.npy
    python -m ulmfit.embed runs/wt103 --input texts.txt --output tokens.npy --tokens --layer 0

A document's vector is the concat pooling `[h_T, maxpool, meanpool]` of a layer's outputs. With `--tokens` the .npy
holds a row per token, and `tokens.tokens.csv` beside it says which token of which document each row is.
"""
from pathlib import Path

import numpy as np
from fastcore.script import CliError, call_parse

from .corpus.readers import read_texts
from .model import bundle
from .model.classifier import Reading
from .model.device import device_and_dtype
from .model.inference import documents, vectors
from .training.files import write_text, write_whole
from .training.records import as_read, csv_text, read_record
from .training.settings import choose, flags


def write(path: Path, rows: np.ndarray):
    "Vectors (n, h) as .npy or .csv."
    def npy(part: Path):
        with open(part, "wb") as f: np.save(f, rows)
    if path.suffix == ".npy": write_whole(path, npy)
    else: write_whole(path, lambda part: np.savetxt(part, rows, delimiter=",", fmt="%.7g"))


@call_parse
@flags(Reading)
def main(
    run: Path,  # run or bundle of a language model or classifier
    input: str = "-",  # texts: a .csv, .tsv or .jsonl, a file with a text a line, or - for lines of standard input
    output: Path = Path("vectors.npy"),  # .npy or .csv
    layer: int = -1,  # 0: the first LSTM layer, -1: the last
    tokens: bool = False,  # a vector for each token instead of each document
    text_column: str = None,  # of a table; several: title+body (default: the run's, else text)
    encoding: str = "utf-8",  # of the input
    device: str = "auto",  # cpu, cuda, cuda:1 …
    precision: str = "fp32",  # fp32 | bf16 | auto
    **given,
):
    "Compute vectors of texts."
    if output.suffix not in (".npy", ".csv"): raise CliError(f"--output {output}: the name must end in .npy or .csv")
    where, dtype = device_and_dtype(device, precision)
    reading, = choose([Reading], {}, given)
    b = bundle.load(run).to(where)
    own = as_read(read_record(run) or {}, text_column=text_column)
    docs = documents(b, read_texts(input, encoding=encoding, **own))
    found = dict(vectors(b, docs, layer, reading, dtype, tokens))
    if not found: raise CliError(f"{input}: there is no text in it")
    ordered = [found[i] for i in range(len(docs))]
    rows = np.concatenate(ordered) if tokens else np.stack(ordered)
    write(output, rows)
    if tokens:
        names = []
        for i, v in enumerate(ordered):
            ids = docs[i][1:1 + len(v)] if b.backwards and len(v) < len(docs[i]) else docs[i][-len(v):]
            names += [dict(document=i, token=b.vocab.tokens[t]) for t in ids]
        write_text(output.with_suffix(".tokens.csv"), csv_text(names, ["document", "token"]))
    print(f"{len(docs):,} documents, {rows.shape[0]:,} vectors of {rows.shape[1]:,} numbers in {output}")
