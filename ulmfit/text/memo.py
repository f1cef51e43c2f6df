"""The tokenizer at the speed of memory: what stands between two blanks is tokenised once, then looked up.

A text is cut at its blanks into pieces; the rules and spaCy run over the new ones, a block's in one call. The tokens
are those of `Tokenizer` on the whole text, as rules act between white space and spaCy cuts there before anything else.
Where that does not hold the whole text goes to `Tokenizer` instead:
- white space other than blanks and line breaks, in the text or made by an entity;
- two pieces that a rule of spaCy's with a blank in it (`и др.`) or an emoticon (`: (`) might join (`Seams`);
- a word that stands `word_repeat` times in a row, or seems to.
"""
from array import array
from collections.abc import Iterable, Sequence
from functools import reduce
from itertools import chain, product
from operator import or_

import numpy as np
from fastcore.basics import store_attr

from .rules import BOS, MAJ, UP, Rules, clean_across, clean_within, mark
from .tokenizer import Tokenizer, spacy_tokenizer

EMPTY, BREAK, PARAGRAPH, START = range(4)  # pieces that are no text; START opens a document
KEYS = ("", "\n", "\n \n", "\0 ")  # what they are remembered as: no piece of a text has a blank in it
ODD = -1  # as a piece's number of tokens: its text goes to the tokenizer whole
MOST = 600_000  # pieces remembered, about 400 bytes each with what spaCy keeps; then the memory begins anew


class Numbers(dict):
    "What was asked for, by number, in order of first appearance; `order` lists it."
    def __init__(self): self.order = []

    def __missing__(self, key: str) -> int:
        self[key] = n = len(self)
        self.order.append(key)
        return n


class Seams:
    """Where spaCy might join tokens of neighbouring pieces.

    It matches its rules (special cases) against sequences of tokens, whatever blanks lie between. Each pair of
    neighbours in such a sequence has a bit; two pieces meet at a seam when the end of the first and the start of the
    second share one. A match across blanks changes something if the rule has a blank there itself (`FIRM` bits), or if
    it hides another match in either piece. Pairs may share a bit: that costs time and changes nothing.
    """
    FIRM, BITS = (1 << 31) - 1, 31

    def __init__(self, tokenizer):
        bare = type(tokenizer)(tokenizer.vocab, None, tokenizer.prefix_search, tokenizer.suffix_search,
                               tokenizer.infix_finditer, tokenizer.token_match, tokenizer.url_match)
        number = Numbers()
        self.starts, self.ends = {}, {}
        for rule in tokenizer.rules:
            tokens = list(bare(rule))
            for a, b in zip(tokens, tokens[1:]):
                bit = 1 << number[str(b)] % self.BITS + (0 if a.whitespace_ else self.BITS)
                self.ends[str(a)] = self.ends.get(str(a), 0) | bit
                self.starts[str(b)] = self.starts.get(str(b), 0) | bit
        self.made = np.array(sorted({t.orth for rule in tokenizer.rules for t in tokenizer(rule)}), dtype=np.uint64)
        self.start_words, self.end_words = (
            np.union1d(self.made, np.array([tokenizer.vocab.strings.add(t) for t in side], dtype=np.uint64))
            for side in (self.starts, self.ends))

    def start_bits(self, pieces: list[str], words: np.ndarray) -> list[int]:
        "Bits of the starts of pieces, whose first words are given; one made by a rule may hide several."
        lengths = sorted(set(map(len, self.starts)))
        return [reduce(or_, (self.starts.get(piece[:n], 0) for n in lengths), 0) if shown else 0
                for piece, shown in zip(pieces, np.isin(words, self.start_words))]

    def end_bits(self, pieces: list[str], words: np.ndarray) -> list[int]:
        "Bits of the ends of pieces, whose last words are given."
        lengths = sorted(set(map(len, self.ends)))
        return [reduce(or_, (self.ends.get(piece[-n:], 0) for n in lengths), 0) if shown else 0
                for piece, shown in zip(pieces, np.isin(words, self.end_words))]


def cuts_at_white_space(tokenizer) -> bool:
    "Whether a language's tokenizer is spaCy's common one, with a run of white space as one token."
    from spacy.tokenizer import Tokenizer as Common
    if type(tokenizer) is not Common: return False
    if any(len(doc) > 1 and any(map(str.isspace, map(str, doc))) for doc in map(tokenizer, tokenizer.rules)):
        return False
    some = ("".join(s) for n in range(1, 4) for s in product(" \n\t\x85", repeat=n))
    runs = [s for s in chain(some, filter(str.isspace, map(chr, range(0x3001)))) if s != " "]
    def cuts(text, *tokens): return [str(t) for t in tokenizer(text)] == [*filter(None, tokens)]
    return all(cuts(f"a{s}b", "a", s.removeprefix(" "), "b") and cuts(f"{s}b", s, "b")
               and cuts(f"a{s}", "a", s.removeprefix(" ")) for s in runs)


def pieces(text: str) -> list[str]:
    "A text cut at its blanks, line breaks as pieces of their own."
    text = clean_across(text)
    return (text.replace("\n", " \n ") if "\n" in text else text).split(" ")


def cleaned(texts: list[str], rules: Rules) -> list[str | None]:
    "The pieces as the tokenizer gets them; None for one that an entity breaks into lines."
    together = clean_within("\n".join(texts), rules)
    if together.count("\n") != len(texts) - 1:
        return [None if "\n" in (one := clean_within(text, rules)) else one.strip() for text in texts]
    return list(map(str.strip, together.split("\n")))


def breaks_joined(kinds: np.ndarray) -> np.ndarray:
    "Line breaks in a row are one token."
    is_break = kinds == BREAK
    again = is_break[1:] & is_break[:-1]
    kinds[:-1][again] = PARAGRAPH
    return kinds[np.concatenate([[True], ~again])]


def equal_in_a_row(numbers: np.ndarray, n: int, stride: int = 1) -> np.ndarray:
    "Where `n` equal numbers begin, each `stride` after the other."
    same = numbers[stride:] == numbers[:-stride]
    size = len(same) - stride * (n - 2)
    if size <= 0: return np.zeros(0, dtype=np.int64)
    return np.flatnonzero(np.logical_and.reduce([same[k * stride:k * stride + size] for k in range(n - 1)]))


class Words(dict):
    "The numbers of a spaCy word's tokens: a mark of its capitals and itself; white space has none."
    def __init__(self, strings, numbers: Numbers, rules: Rules): store_attr()

    def __missing__(self, word: int) -> list[int]:
        text = self.strings[word]
        self[word] = found = [] if text.isspace() else [self.numbers[t] for t in mark((text,), self.rules)]
        return found


class Memo:
    "Tokenises blocks of texts to numbers of tokens: its own, `news` says which is which, `begun` how often it began."
    def __init__(self, tokenizer: Tokenizer, most: int = MOST):
        self.tokenizer, self.rules, self.most = tokenizer, tokenizer.rules, most
        spacy = spacy_tokenizer(tokenizer.lang) if tokenizer.kind == "spacy" else None
        self.spacy = spacy if spacy and cuts_at_white_space(spacy) else None
        if self.spacy: self.seams = Seams(self.spacy)
        self.begun = 0
        self.forget()

    def forget(self):
        "Begin anew."
        self.begun, self.told = self.begun + 1, 0
        self.numbers, self.kinds = Numbers(), Numbers()
        if self.spacy: self.of_word = Words(self.spacy.vocab.strings, self.numbers, self.rules)
        self.tokens, self.starts, self.lengths = array("q"), array("q"), array("q")  # of all pieces, end to end
        self.first, self.last, self.made = array("q"), array("q"), array("q")
        for key in KEYS: self.kinds[key]
        self.remember([self.numbers[t] for t in ("\n", "\n\n", BOS)], [0, 1, 1, 1], *np.zeros((3, 4), dtype=np.int64))

    def news(self) -> list[str]:
        "Tokens with a number since this was last asked; from 0 on when the memory has begun anew."
        new, self.told = self.numbers.order[self.told:], len(self.numbers)
        return new

    def remember(self, tokens: Iterable[int], *properties: Sequence[int]):
        "What the pieces that come next are made of: their tokens; lengths, bits of the starts and ends, made by rules."
        lengths = np.maximum(properties[0], 0)
        self.starts.frombytes((len(self.tokens) + np.cumsum(lengths) - lengths).tobytes())
        self.tokens.extend(tokens)
        for where, what in zip((self.lengths, self.first, self.last, self.made), properties): where.extend(what)

    def __call__(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        "(numbers of all tokens, each text's number of tokens)."
        if max(len(self.kinds), len(self.numbers)) > self.most: self.forget()
        if not self.spacy: return self.whole(texts)
        with self.spacy.vocab.memory_zone():  # or spaCy keeps every string that it ever saw
            cut = chain.from_iterable(chain((KEYS[START],), pieces(text)) for text in texts)
            kinds = np.fromiter(map(self.kinds.__getitem__, cut), dtype=np.int64)
            self.learn()
            kinds = breaks_joined(kinds[self.shown("lengths", kinds) != 0])
            while len(at := self.seams_of(kinds)): kinds = self.join(kinds, at)
            return self.assemble(texts, kinds)

    def shown(self, what: str, kinds: np.ndarray) -> np.ndarray:
        "A property of pieces."
        return np.frombuffer(getattr(self, what), dtype=np.int64)[kinds]

    def seams_of(self, kinds: np.ndarray) -> np.ndarray:
        "Which pieces of a row might be joined with the next."
        first, last, made = (self.shown(what, kinds) for what in ("first", "last", "made"))
        shared = last[:-1] & first[1:]
        return np.flatnonzero((shared & Seams.FIRM != 0) | (shared != 0) & (made[:-1] | made[1:] != 0))

    def join(self, kinds: np.ndarray, at: np.ndarray) -> np.ndarray:
        "Make one piece of each piece in `at` and the next, blank included."
        opens = np.ones(len(kinds), dtype=bool)
        opens[at + 1] = False
        order, size = self.kinds.order, np.diff(np.flatnonzero(np.append(opens, True)))
        firsts, joined = np.flatnonzero(opens), kinds[opens]
        for i in np.flatnonzero(size > 1):
            joined[i] = self.kinds[" ".join(order[k] for k in kinds[firsts[i]:firsts[i] + size[i]])]
        self.learn()
        return joined

    def learn(self):
        "Tokenise the pieces that are new, in one call."
        texts = cleaned(self.kinds.order[len(self.starts):], self.rules)
        known = [text for text in texts if text]
        words = self.spacy("\n".join(known)).to_array("ORTH")
        numbers = list(map(self.of_word.__getitem__, words.tolist()))
        lengths = np.zeros(len(texts), dtype=np.int64)
        lengths[[text is None for text in texts]] = ODD
        first, last, made = np.zeros((3, len(texts)), dtype=np.int64)
        if known:
            ends = np.append(np.flatnonzero(words == self.spacy.vocab.strings["\n"]), len(words))
            starts = np.append(0, ends[:-1] + 1)
            at = np.flatnonzero([bool(text) for text in texts])
            lengths[at] = np.add.reduceat(np.fromiter(map(len, numbers), dtype=np.int64), starts)
            made[at] = np.logical_or.reduceat(np.isin(words, self.seams.made), starts)
            first[at] = self.seams.start_bits(known, words[starts])
            last[at] = self.seams.end_bits(known, words[ends - 1])
        self.remember(chain.from_iterable(numbers), lengths, first, last, made)

    def assemble(self, texts: Sequence[str], kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        "The tokens of a block from the kinds of its pieces."
        starts, lengths = self.shown("starts", kinds), self.shown("lengths", kinds)
        odd = lengths < 0
        lengths = np.maximum(lengths, 0)
        of_text = np.cumsum(kinds == START) - 1
        ends = np.cumsum(lengths)
        numbers = np.frombuffer(self.tokens, dtype=np.int64)[
            np.repeat(starts - ends + lengths, lengths) + np.arange(ends[-1])]
        sizes = np.bincount(of_text, lengths, minlength=len(texts)).astype(np.int64)
        text_ends = np.cumsum(sizes)
        to_do = np.unique(np.concatenate([
            of_text[odd],
            np.searchsorted(text_ends, self.repeated(numbers), side="right")]))
        if not len(to_do): return numbers, sizes
        parts = np.split(numbers, text_ends[:-1])
        for i in to_do:
            parts[i], size = self.whole([texts[i]])
            sizes[i] = size[0]
        return np.concatenate(parts), sizes

    def repeated(self, numbers: np.ndarray) -> np.ndarray:
        "Where a word may stand `word_repeat` times in a row: plain, or with a mark of its capitals before each."
        n, order = self.rules.word_repeat, self.numbers.order
        plain = equal_in_a_row(numbers, n)
        plain = plain[[order[i][0].isalnum() and order[i] != BOS for i in numbers[plain]]]
        every_other = equal_in_a_row(numbers, n, 2)
        marked = every_other[np.isin(every_other + 1, every_other)
                             & np.isin(numbers[every_other], [self.numbers[UP], self.numbers[MAJ]])]
        return np.concatenate([plain, marked])

    def whole(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        "The same without remembering pieces."
        docs = [[self.numbers[t] for t in self.tokenizer(text)] for text in texts]
        return (np.fromiter(chain.from_iterable(docs), dtype=np.int64),
                np.fromiter(map(len, docs), dtype=np.int64, count=len(docs)))
