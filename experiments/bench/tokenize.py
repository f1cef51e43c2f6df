"""Tokenisation: texts to tokens on one core, from an empty memory.

    python -m experiments.bench tokenize --input imdb --peer fastai

Contenders: `ulmfit`, the memo that preparation uses; `reference`, the same rules around spaCy on each whole text, whose
tokens the memo must equal (their hash is compared); `fastai` 2.8.12, its rules and its SpacyTokenizer. Rates are
compared in documents, as fastai's tokens are not quite ours. Loading and constructing are not timed.
"""
import hashlib, json, sys, time
from itertools import islice
from pathlib import Path

from .rounds import Contender, answer, python_of, race, rates


def ulmfit(texts: list[str]):
    from ulmfit.corpus.prepare import BLOCK
    from ulmfit.text.memo import Memo
    from ulmfit.text.tokenizer import Tokenizer
    memo = Memo(Tokenizer())

    def run():
        docs, names = [], []
        for i in range(0, len(texts), BLOCK):
            numbers, lengths = memo(texts[i:i + BLOCK])
            names += memo.news()
            docs.append((numbers, lengths))
        return docs, names
    return run, lambda out: (out[1][n] for numbers, _ in out[0] for n in numbers)


def reference(texts: list[str]):
    from ulmfit.text.tokenizer import Tokenizer
    tokenizer = Tokenizer()
    tokenizer("")
    return lambda: [tokenizer(t) for t in texts], lambda docs: (t for d in docs for t in d)


def fastai(texts: list[str]):
    from fastai.text.core import SpacyTokenizer, TokenizeWithRules, defaults
    tokenizer = TokenizeWithRules(SpacyTokenizer("en"), defaults.text_proc_rules, defaults.text_postproc_rules)
    return lambda: list(tokenizer(texts)), lambda docs: (t for d in docs for t in d)


CONTENDERS = dict(ulmfit=ulmfit, reference=reference, fastai=fastai)


def contend(name: str, texts: list[str]):
    "A round begins with a tokenizer that has seen nothing."
    def work() -> dict:
        run, tokens_of = CONTENDERS[name](texts)
        began = time.perf_counter()
        out = run()
        seconds = time.perf_counter() - began
        digest, n = hashlib.sha256(), 0
        for n, token in enumerate(tokens_of(out), 1): digest.update(f"{token}\0".encode())
        return dict(seconds=seconds, documents=len(texts), tokens=n, sha256=digest.hexdigest())
    answer(work)


def compare(input: str, documents: int, peer: str | None, rounds: int) -> list[dict]:
    "A row of figures for each contender."
    from ulmfit.corpus.registry import open_source
    from ulmfit.training.files import write_text
    texts = [text for _, (text, _) in islice(open_source(input).read(), documents or None)]
    work = Path("runs/bench/texts.json")
    write_text(work, json.dumps(texts))
    names = ["ulmfit", "reference", *([peer] if peer else [])]
    contenders = [Contender(n, [python_of(n), "-m", "experiments.bench.tokenize", n, str(work)]) for n in names]
    race(contenders, rounds)
    rows = [dict(contender=c.name, input=input, documents=len(texts), tokens=c.rounds[0]["tokens"], rounds=rounds)
            | rates(c, "tokens") | dict(documents_per_second=rates(c, "documents")["documents_per_second"],
                                        peak_memory_bytes=max(r["peak_memory_bytes"] for r in c.rounds))
            for c in contenders]
    rows[0]["equal_to_reference"] = contenders[0].rounds[0]["sha256"] == contenders[1].rounds[0]["sha256"]
    last = rows[-1]["documents_per_second"]
    for row in rows: row[f"ratio_to_{names[-1]}"] = round(row["documents_per_second"] / last, 2)
    return rows


if __name__ == "__main__": contend(sys.argv[1], json.loads(Path(sys.argv[2]).read_text()))
