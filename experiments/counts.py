"""What Table 1 says of a dataset: how many classes, how many examples to learn from.

    python -m experiments.counts --dataset trec --of train
"""
import json

from fastcore.script import CliError, call_parse

from ulmfit.corpus.prepare import prepared
from ulmfit.text.tokenizer import Tokenizer

COUNTS = dict(classes=lambda data: len(data.classes), train=lambda data: len(data.splits["train"]))


@call_parse
def main(
    dataset: str = "pydocs",  # name or path
    of: str = "train",  # classes | train
):
    "Count."
    if of not in COUNTS: raise CliError(f"--of {of!r} is not one of: {', '.join(COUNTS)}")
    data = prepared(dataset, "classification", Tokenizer())
    print(json.dumps(dict(value=COUNTS[of](data), data=data.fingerprint)))
