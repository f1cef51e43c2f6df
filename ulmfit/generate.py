"""Text from a language model.

    python -m ulmfit.generate runs/wt103 --prompt "The history of the village" --words 60 --top-p 0.9

The prompt is read once; after that each word is one step from the state, so the cost does not grow with the text. A
backwards model writes what comes before the prompt.
"""
import math, sys
from collections.abc import Iterable
from pathlib import Path

import torch
from fastcore.script import CliError, call_parse
from torch import Generator, Tensor

from .model import bundle
from .model.device import device_and_dtype
from .model.language_model import LanguageModel
from .text.rules import BOS, EOS, FLD, MAJ, REP, UP, WREP
from .text.subwords import whole_words
from .text.tokenizer import SUBWORDS, Tokenizer
from .training.settings import natural


def filtered(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    "The next word's probabilities (v), sharpened by `temperature`, cut to the `top_k` likeliest and a mass of `top_p`."
    logits = logits.double()  # before they are subtracted: close ones would become equal
    # the highest is 0, however low the temperature
    p = ((logits - logits.max()) / temperature).softmax(dim=-1)
    if top_k:
        best = p.topk(min(top_k, len(p)))
        p = torch.zeros_like(p).scatter(0, best.indices, best.values)
    if top_p < 1:
        ordered, order = p.sort(descending=True)
        # a word stays if those before it have not reached top_p yet; the likeliest always does
        before = ordered.cumsum(dim=0) - ordered
        p = torch.zeros_like(p).scatter(0, order, ordered.where(before < top_p * ordered.sum(), 0.0))
    return p / p.sum()


@torch.no_grad()
def generate(model: LanguageModel, prompt: list[int], words: int, rng: Generator, temperature: float = 1.0,
             top_k: int = 0, top_p: float = 1.0, banned: Iterable[int] = ()) -> list[int]:
    "Ids that follow `prompt` (ids), without those that are `banned`."
    device, banned = model.encoder.embedding.device, list(banned)
    logits, state = model(torch.tensor(prompt, device=device)[:, None])
    out = []
    for _ in range(words):
        scores = logits[-1, 0].clone()
        scores[banned] = -torch.inf
        out.append(int(torch.multinomial(filtered(scores, temperature, top_k, top_p), 1, generator=rng)))
        logits, state = model(torch.tensor([[out[-1]]], device=device), state)
    return out


def write_out(tokens: list[str]) -> str:
    "Tokens as text: case and repetitions undone, punctuation joined to its word."
    words, marks = [], iter(tokens)

    def spoken(t: str) -> str:
        "A word with the capitals that a mark before it gives."
        if t not in (UP, MAJ): return t
        word = next(marks, "")
        return word.upper() if t == UP else word[:1].upper() + word[1:]

    for t in marks:
        if t in (UP, MAJ): words.append(spoken(t))
        elif t in (REP, WREP):
            n, word = next(marks, ""), spoken(next(marks, ""))
            times = min(100, int(n)) if n.isdecimal() else 1
            words.append(word * times if t == REP else " ".join([word] * times))
        elif t not in (BOS, EOS, FLD): words.append(t)
    text = ""
    for word in words:
        glued = not text or text[-1] in "\n([" or word[:1] in ".,;:!?)]\n'’" or word == "n't"
        text += word if glued else " " + word
    return text


@call_parse
def main(
    run: Path,  # language model's run or bundle
    prompt: str = "",  # how the text begins (ends, for a backwards model)
    words: int = 50,  # tokens to write
    temperature: float = 1.0,  # below 1: more likely words
    top_k: int = 0,  # choose among the k likeliest words only (0: all)
    top_p: float = 1.0,  # choose among the likeliest that make up this probability
    unknown: bool = False,  # allow xxunk
    seed: natural = 0,  # of the draws
    device: str = "auto",  # cpu, cuda, cuda:1 …
):
    "Generate text."
    if not sys.float_info.min <= temperature < math.inf:  # below that it is taken for zero
        raise CliError(f"--temperature {temperature}: it must be above 0, and finite")
    if not 0 < top_p <= 1: raise CliError(f"--top-p {top_p}: it must be above 0 and at most 1")
    if top_k < 0 or words < 0: raise CliError("--top-k and --words must not be negative")
    where, _ = device_and_dtype(device, "fp32")
    lm = bundle.load(run, bundle.LANGUAGE_MODEL).to(where)
    given = lm.vocab.ids(Tokenizer.from_dict(lm.tokenizer)(prompt)) or [lm.vocab.bos]
    if given[-1] == lm.vocab.index[EOS]: given = given[:-1] or [lm.vocab.index[EOS]]
    read = [*given[:1], *given[:0:-1]] if lm.backwards else given
    banned = [lm.vocab.pad, *([] if unknown else [lm.vocab.unk])]
    new = generate(lm.model, read, words, Generator(where).manual_seed(seed), temperature, top_k, top_p, banned)
    ids = [*given[:1], *new[::-1], *given[1:]] if lm.backwards else [*given, *new]
    tokens = [lm.vocab.tokens[i] for i in ids]
    print(write_out(whole_words(tokens) if lm.tokenizer["kind"] == SUBWORDS else tokens))
