"""Class labels and probabilities for texts.

    python -m ulmfit.predict runs/reviews --input new.csv --output labelled.csv
    echo "I liked it." | python -m ulmfit.predict runs/reviews
    python -m ulmfit.predict runs/imdb runs/imdb-bwd --input new.txt       (mean of a forward and a backward classifier)

The output is a CSV: the label, then the probability of each class; rows in the order of the input. A text's prediction
does not depend on the texts beside it. An empty text is predicted as the empty document.
"""
import sys
from pathlib import Path
from typing import Annotated

from fastcore.script import CliError, call_parse

from .corpus.readers import read_texts
from .model import bundle
from .model.device import device_and_dtype
from .model.inference import documents, probabilities
from .training.files import write_text
from .training.records import as_read, csv_text, read_record


@call_parse
def main(
    runs: Annotated[str, "classifier's run or bundle; of several, the mean of their probabilities", dict(nargs="+")],
    input: str = "-",  # texts: a .csv, .tsv or .jsonl, a file with a text a line, or - for lines of standard input
    output: str = "-",  # CSV to write, or - for standard output
    text_column: str = None,  # of a table; several: title+body (default: the run's, else text)
    encoding: str = "utf-8",  # of the input
    device: str = "auto",  # cpu, cuda, cuda:1 …
    precision: str = "fp32",  # fp32 | bf16 | auto
):
    "Predict the class of texts."
    if output != "-" and Path(output).resolve() == Path(input).resolve():
        raise CliError(f"--output {output} is the input itself, whose texts would be lost: give another file")
    where, dtype = device_and_dtype(device, precision)
    paths = [Path(r) for r in ([runs] if isinstance(runs, (str, Path)) else runs)]
    bundles = [bundle.load(p, bundle.CLASSIFIER).to(where) for p in paths]
    own = as_read(read_record(paths[0]) or {}, text_column=text_column)
    texts = read_texts(input, encoding=encoding, **own)
    classes, p = bundles[0].classes, probabilities(bundles, [documents(b, texts) for b in bundles], dtype)
    columns = ["label (class)" if c == "label" else c for c in classes]  # the first column has that name
    rows = [dict(label=classes[row.argmax()]) | {c: f"{x:.6f}" for c, x in zip(columns, row)} for row in p]
    table = csv_text(rows, ["label", *columns])
    if output == "-": sys.stdout.write(table)
    else:
        write_text(Path(output), table)
        print(f"{len(texts):,} texts; labels and probabilities in {output}")
