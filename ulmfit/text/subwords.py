"""Subwords: a vocabulary of word pieces learnt from a corpus (SentencePiece, unigram), as MultiFiT uses them.

They need no blanks between words, so Chinese and Japanese work, and every language has the same small vocabulary, which
no stage has to change. The model is a few hundred kilobytes that live in the corpus and the bundle. ULMFiT's rules run
before it; a mark of case stands before its word as a piece of its own. SentencePiece is an extra:
pip install -e ".[subwords]".
"""
import io, random, re
from bisect import bisect_right
from collections.abc import Iterable
from functools import lru_cache
from itertools import accumulate, groupby, islice

from fastcore.script import CliError

from .rules import SPECIALS, UNK, WREP, Rules, clean, mark_case

BLANK = "▁"  # SentencePiece's sign for a blank before a piece
LINES, CHARACTERS = 100_000, 30_000_000  # that the pieces are learnt from, drawn by chance: a minute, a gigabyte
THREADS = 4  # of the training; another number may give a slightly other model
COVERAGE = 0.9995  # share of the running characters that have a piece; the rest is unknown
_word = re.compile(r"\w+")


def sentencepiece():
    "The library, imported here because only subwords need it."
    try: import sentencepiece as library
    except ImportError as e:
        raise CliError('subwords need SentencePiece: pip install -e ".[subwords]"') from e
    return library


def spaced(text: str, rules: Rules) -> str:
    "A text after the rules, with their marks as words: `The NATO's` -> `xxmaj the xxup nato's`."
    def marked(word: re.Match) -> str:
        *marks, low = mark_case(word[0], rules)
        return f" {marks[0]} {low}" if marks else low
    out = []
    for chunk, run in groupby(clean(text, rules).split()):
        n, chunk_marked = len(list(run)), _word.sub(marked, chunk)
        repeated = n >= rules.word_repeat and chunk[0].isalnum()
        out += [WREP, str(n), chunk_marked] if repeated else [chunk_marked] * n
    return " ".join(out)


def sample(lines: Iterable[str], most: int = LINES, characters: int = CHARACTERS) -> list[str]:
    "As many of the lines as may be, each as likely as any other; the same ones every time."
    lines, rng = iter(lines), random.Random(0)
    kept = list(islice(lines, most))
    for seen, line in enumerate(lines, most + 1):
        if (at := rng.randrange(seen)) < most: kept[at] = line
    rng.shuffle(kept)
    return kept[:1 + bisect_right(list(accumulate(map(len, kept))), characters)]


def train(texts: Iterable[str], size: int, rules: Rules) -> bytes:
    "A model of `size` tokens (special ones included, fewer where the texts have no more) learnt from texts."
    lines = sample(line for text in texts for line in text.splitlines() if line and not line.isspace())
    model = io.BytesIO()
    library = sentencepiece()
    try:
        library.SentencePieceTrainer.train(
            sentence_iterator=(spaced(line, rules) for line in lines), model_writer=model, model_type="unigram",
            vocab_size=size + 1, hard_vocab_limit=False, character_coverage=COVERAGE,
            max_sentence_length=1 << 16, minloglevel=2, num_threads=THREADS, unk_id=0, bos_id=-1, eos_id=-1, pad_id=-1,
            user_defined_symbols=[BLANK + t for t in SPECIALS])
    except (RuntimeError, OSError) as e:
        raise CliError(f"no {size:,} subwords can be learnt from this text ({str(e).splitlines()[-1]})") from e
    return model.getvalue()


@lru_cache
def processor(model: bytes): return sentencepiece().SentencePieceProcessor(model_proto=model)


@lru_cache
def tokens(model: bytes) -> tuple[str, ...]:
    "What each of SentencePiece's numbers is as a token."
    special = {BLANK + t: t for t in SPECIALS}
    sp = processor(model)
    return UNK, *(special.get(piece, piece) for piece in map(sp.id_to_piece, range(1, sp.get_piece_size())))


def split(text: str, model: bytes, rules: Rules) -> list[str]:
    "A text's subwords."
    names = tokens(model)
    return [names[i] for i in processor(model).encode(spaced(text, rules))]


def whole_words(pieces: Iterable[str]) -> list[str]:
    "Subwords joined to words again; special tokens stay words of their own."
    words, open_ = [], False
    for piece in pieces:
        if piece in SPECIALS or piece.startswith(BLANK) or not open_: words.append(piece.removeprefix(BLANK))
        else: words[-1] += piece
        open_ = piece not in SPECIALS
    return [w for w in words if w]
