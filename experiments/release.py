"""The English language model in the box, from Wikipedia to `data/models/en-small` and its card.

    python -m experiments.release        (make release-model)

Pretrains forwards and backwards by the preset `en-small` (hours; each goes on where it was), writes both in 8 bits a
weight, measures them and what they are worth (the table `transfer`, where it has been run), and writes the card. Every
figure on the card is measured here or read from a result.
"""
import math
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import numpy as np
import torch
from fastcore.script import CliError, call_parse

from ulmfit.corpus.prepare import prepared
from ulmfit.corpus.registry import open_source, read_card
from ulmfit.corpus.store import Corpus
from ulmfit.evaluate import language_model_figures, read_split
from ulmfit.export import main as export
from ulmfit.model import bundle
from ulmfit.model.bundle import MODELS, WEIGHTS, Bundle
from ulmfit.pretrain import main as pretrain
from ulmfit.text.rules import SPECIALS
from ulmfit.text.tokenizer import Tokenizer
from ulmfit.training.files import write_text
from ulmfit.training.records import read_record

from .findings import Results, claims_table, main_table
from .plan import read_toml
from .report import markdown
from .run import RESULTS, saved

NAME, CORPUS, YARDSTICK = "en-small", "enwiki", "wikitext-103"
DIRECTIONS = dict(forwards=False, backwards=True)


def raw(corpus: str, split: str) -> Iterator[str]:
    "The documents of a split as they are in its files."
    for s, text in open_source(corpus, "lm").read():
        if s == split: yield text[0] if isinstance(text, tuple) else text


def spelling(lexicon: list[str], frequency: np.ndarray) -> Callable[[str], float]:
    """A function that gives the bits that it takes to spell a token.

    By characters alone, as often as they occur in the words of `lexicon`, with a mark for a word's end.
    """
    seen, ends = Counter(), 0
    for word, n in zip(lexicon, frequency.tolist()):
        if word in SPECIALS: continue  # marks, which no text has
        ends += n
        for c in word: seen[c] += n
    total = seen.total() + ends + len(seen) + 2  # one more of each and of ends, one new
    end = math.log2(total / (ends + 1))
    return lambda token: end + sum(math.log2(total / (seen[c] + 1)) for c in token)


def spelling_bits(tokens: list[str], counts: np.ndarray, spelt: Callable[[str], float]) -> float:
    "Bits for `tokens`, each `counts` times."
    return float(sum(n * spelt(t) for t, n in zip(tokens, counts)))


def yardstick(model: Bundle, spelt: Callable[[str], float], split: str) -> dict:
    """Word-level figures on WikiText-103.

    Perplexity per word of its own tokens (line ends counted); bits per character, where words that the vocabulary lacks
    are spelt, so that it compares between vocabularies.
    """
    data = prepared(YARDSTICK, "lm", Tokenizer.from_dict(model.tokenizer), of_model=True)
    found = language_model_figures(model, data.words(model.vocab)[split], 32, torch.float32)
    texts = list(raw(YARDSTICK, split))
    words = sum(len(t.split()) + t.count("\n") for t in texts)
    characters = sum(map(len, texts))
    counts = data.splits[split].counts(len(data.lexicon))
    lost = np.flatnonzero((model.vocab.table(data.lexicon) == model.vocab.unk) & (counts > 0))
    spelt_bits = spelling_bits([data.lexicon[i] for i in lost], counts[lost], spelt)
    bits = found["loss"] * found["tokens"] / math.log(2)
    return dict(perplexity=found["perplexity"], unknown_percent=found["unknown_percent"],
                word_perplexity=2 ** (bits / words), bits_per_character=(bits + spelt_bits) / characters)


def measured(run: Path, folder: Path, source: Corpus, spelt: Callable[[str], float]) -> dict:
    "Figures of a direction: as it was trained, and as it is stored."
    record, rows = read_record(run), saved(run / "metrics.csv")
    small = bundle.load(folder)
    docs = read_split(source, small, "valid", record)
    trained, stored = (language_model_figures(m, docs, 32, torch.float32) for m in (bundle.load(run), small))
    return dict(record=record, tokens=int(rows[-1]["tokens"]), stored=stored, trained=trained,
                size=(folder / WEIGHTS).stat().st_size,
                **{split: yardstick(small, spelt, split) for split in ("valid", "test")})


def card(found: dict[str, dict], results: Path) -> str:
    "The model card, in Markdown."
    first = next(iter(found.values()))
    settings, about = first["record"]["settings"], read_card(CORPUS)
    rows = []
    for name, f in found.items():
        worse = f["stored"]["perplexity"] / f["trained"]["perplexity"] - 1
        rows.append([name, f"{f['tokens']:,}", f"{f['record']['seconds'] / 3600:.1f}", f"{f['size'] / 1e6:.1f}",
                     f"{f['trained']['perplexity']:.2f}", f"{100 * worse:+.2f}%",
                     *(f"{f[s]['word_perplexity']:.1f}" for s in ("valid", "test")),
                     *(f"{f[s]['bits_per_character']:.3f}" for s in ("valid", "test")),
                     f"{f['valid']['unknown_percent']:.1f}%"])
    head = ["direction", "tokens learnt from", "hours", "MB", f"perplexity, held-out {CORPUS}", "for 8 bits",
            "per word, WikiText-103 valid", "test", "bits per character, valid", "test", "unknown"]
    worth = [Results(p) for p in sorted(results.glob("small.csv"))]
    lines = [
        f"# {NAME}", "An AWD-LSTM language model of English, "
        f"{settings['emb']}/{settings['hidden']}/{settings['layers']}, {settings['max_vocab']:,} words, for "
        "fine-tuning by ULMFiT on two CPU cores. `finetune_lm` and `classify` start from it where no other is named. "
        f"Made, as this card, by `make release-model` on {date.today()}.",
        "## Figures", markdown(head, rows),
        f"Perplexity is per token of this project's tokenizer (capitals are tokens of their own) on "
        f"{first['trained']['tokens']:,} tokens of articles that were not learnt from. Per word is per word of "
        "WikiText-103, unknown words as one; bits per character have them spelt, so that they compare between "
        "vocabularies. Hours are of one process, "
        f"CPU threads: {first['record']['threads']}.",
        "## Text", f"{about['title']}: {about.get('licence', '')}. {'; '.join(first['record']['notes'])}. "
        f"Seed {first['record']['seed']}; batches of {settings['batch']} × {settings['bptt']} tokens; schedule "
        f"{settings['schedule']}, rate {settings['lr']}, dropouts times {settings['drop_mult']}; "
        f"{settings['optimizer']}, weight decay {settings['weight_decay']}.",
        "## What it is not for", "Generating text that anyone should believe; languages other than English; knowledge "
        "of anything after its text was written. What the articles get wrong or leave out, it does as well, about "
        "people too: look at the errors of a classifier for the groups that it will judge.",
    ]
    for r in worth:
        if not r.of("transfer"): continue
        about = read_toml("tables", "transfer")
        lines += ["## What it is worth", f"Test error, mean of seeds ± standard deviation (scale `{r.scale}`).",
                  markdown(*main_table(r, "transfer", about, about["measure"])),
                  markdown(*claims_table(r, "transfer", about))]
    return "\n\n".join(lines) + "\n"


@call_parse
def main(
    root: Path = Path("runs"),  # folder of the two runs
    precision: str = "bf16",  # of training: fp32 on a processor without bf16
    directions: str = "forwards,backwards",  # which
    results: Path = RESULTS,  # the figures that the card quotes
):
    "Make the model in the box."
    made = {name: (root / f"{NAME}-{name}", MODELS / NAME / name) for name in map(str.strip, directions.split(","))}
    if unknown := set(made) - set(DIRECTIONS): raise CliError(f"--directions: {', '.join(unknown)} is none")
    for name, (run, folder) in made.items():
        pretrain(corpus=CORPUS, preset=NAME, backwards=DIRECTIONS[name], out=run, precision=precision)
        export(run=run, out=folder)
    if set(made) != set(DIRECTIONS): return print(f"{NAME}: the card is written where both directions are made")
    source = prepared(CORPUS, "lm", Tokenizer.from_dict(bundle.load(folder).tokenizer), of_model=True)
    spelt = spelling(source.lexicon, source.splits["train"].counts(len(source.lexicon)))
    found = {name: measured(run, folder, source, spelt) for name, (run, folder) in made.items()}
    write_text(MODELS / NAME / "README.md", card(found, results))
    print(f"{MODELS / NAME}: {', '.join(found)}")
