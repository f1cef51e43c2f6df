"""The tokenizer at the speed of memory: what stands between two blanks is tokenised once, then looked up.

A text is cut at its blanks and line breaks into pieces; the rules and spaCy run over the new ones, a block's in one
call. The tokens are those of `Tokenizer` on the whole text: rules act between white space, and spaCy cuts there before
anything else. Three things see farther:
- a rule of spaCy's may join tokens across a blank (`и др.`, `: )`): such neighbours are one piece (`Edge`);
- a word may stand `word_repeat` times in a row: the pieces there are tokenised as one (`Memo.windows`);
- an entity may make a line break within a piece: that text goes to `Tokenizer` whole.
"""
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import reduce
from itertools import chain, pairwise, product
from operator import or_

import numpy as np
from fastcore.basics import store_attr

from .rules import BOS, MAJ, UP, Rules, clean_across, clean_within, mark
from .tokenizer import Tokenizer, spacy_tokenizer

EMPTY, BREAK, PARAGRAPH, START = range(4)  # pieces that are no text; START opens a document
KEYS = ("", "\n", "\n \n", "\0 ")  # what they are remembered as: no piece of a text has a blank in it
ODD = -1  # as a piece's number of tokens: its text goes to the tokenizer whole
MOST = 1_000_000  # pieces, or tokens of theirs, remembered: some 300 MB with what spaCy keeps; then it begins anew


class Numbers(dict):
    "What was asked for, by number, in order of first appearance; `order` lists it."
    def __init__(self): self.order = []

    def __missing__(self, key: str) -> int:
        self[key] = n = len(self)
        self.order.append(key)
        return n


class Edge:
    "Which tokens at one end of a piece a rule of spaCy's might join with those of its neighbour."
    def __init__(self, bits: dict[str, int], made: set[int], last: bool, strings):
        self.bits, self.last, self.sizes = bits, last, {len(token) for token in bits}
        self.words = np.array([*made | {strings.add(token) for token in bits}], dtype=np.uint64)

    def __call__(self, pieces: Sequence[str], words: np.ndarray) -> list[int]:
        "The bits of pieces whose tokens at this end are given. One that a rule made may hide any that the piece shows."
        return [reduce(or_, (self.bits.get(piece[-n:] if self.last else piece[:n], 0) for n in self.sizes), 0)
                if special else 0 for piece, special in zip(pieces, np.isin(words, self.words))]


def edges(tokenizer) -> tuple[Edge, Edge]:
    """The starts and the ends of pieces.

    spaCy matches its rules (special cases) with tokens in a row, whatever blanks lie between; a match can also keep
    others from being made. So two tokens that are neighbours in any rule have a bit in common. Where the end of a piece
    and the start of the next have none, no match goes across. Pairs may share a bit: that costs time, changes nothing.
    """
    from spacy.attrs import ORTH
    bare = type(tokenizer)(tokenizer.vocab, None, tokenizer.prefix_search, tokenizer.suffix_search,
                           tokenizer.infix_finditer, tokenizer.token_match, tokenizer.url_match)
    number, starts, ends = Numbers(), defaultdict(int), defaultdict(int)
    for rule in tokenizer.rules:
        for a, b in pairwise(map(str, bare(rule))):
            bit = 1 << number[b] % 63
            ends[a] |= bit
            starts[b] |= bit
    strings = tokenizer.vocab.strings
    made = {strings.add(token[ORTH]) for tokens in tokenizer.rules.values() for token in tokens}
    return Edge(starts, made, False, strings), Edge(ends, made, True, strings)


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


def breaks_joined(kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    "(kinds, where each stood): line breaks in a row are one token."
    is_break = kinds == BREAK
    again = is_break[1:] & is_break[:-1]
    kinds[:-1][again] = PARAGRAPH
    left = np.flatnonzero(np.append(True, ~again))
    return kinds[left], left


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
        # spaCy keeps every string that it ever saw, but those of a zone.
        self.zone = spacy.vocab.memory_zone if getattr(spacy, "vocab", None) else nullcontext
        self.spacy = spacy if spacy and cuts_at_white_space(spacy) else None
        if self.spacy: self.edges, self.line_break = edges(spacy), spacy.vocab.strings.add("\n")
        self.begun = 0
        self.forget()

    def forget(self):
        "Begin anew."
        self.begun, self.told = self.begun + 1, 0
        self.numbers, self.kinds = Numbers(), Numbers()
        if self.spacy: self.of_word = Words(self.spacy.vocab.strings, self.numbers, self.rules)
        self.tokens, self.starts, self.lengths = array("q"), array("q"), array("q")  # of all pieces, end to end
        self.first, self.last = array("q"), array("q")
        for key in KEYS: self.kinds[key]
        self.remember([self.numbers[t] for t in ("\n", "\n\n", BOS)], [0, 1, 1, 1], [0] * 4, [0] * 4)

    def news(self) -> list[str]:
        "Tokens with a number since this was last asked; from 0 on when the memory has begun anew."
        new, self.told = self.numbers.order[self.told:], len(self.numbers)
        return new

    def remember(self, tokens: Iterable[int], lengths: Sequence[int], first: Sequence[int], last: Sequence[int]):
        "What the pieces that come next are made of: their tokens, end to end; bits of their starts and ends."
        shown = np.maximum(lengths, 0)
        self.starts.extend(len(self.tokens) + np.cumsum(shown) - shown)
        self.tokens.extend(tokens)
        for where, what in zip((self.lengths, self.first, self.last), (lengths, first, last)): where.extend(what)

    def __call__(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        "(numbers of all tokens, each text's number of tokens)."
        if max(map(len, (self.kinds, self.numbers, self.tokens))) > self.most: self.forget()
        with self.zone():
            if not self.spacy or not texts: return self.whole(texts)
            cut = chain.from_iterable(chain((KEYS[START],), pieces(text)) for text in texts)
            every = np.fromiter(map(self.kinds.__getitem__, cut), dtype=np.int64)
            self.learn()
            places = np.flatnonzero(self.shown("lengths", every))
            kinds, left = breaks_joined(every[places])
            kinds, starts = self.joined(kinds)
            return self.assemble(texts, every, places[left[starts]], kinds)

    def shown(self, what: str, kinds: np.ndarray) -> np.ndarray:
        "A property of pieces."
        return np.frombuffer(getattr(self, what), dtype=np.int64)[kinds]

    def joined(self, kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        "(kinds, where each begins): one piece is made of neighbours that spaCy might join, blanks included."
        apart = self.shown("last", kinds[:-1]) & self.shown("first", kinds[1:]) == 0
        starts = np.flatnonzero(np.append(True, apart))
        if apart.all(): return kinds, starts
        sizes = np.diff(starts, append=len(kinds))
        order, joined = self.kinds.order, kinds[starts]
        for i in np.flatnonzero(sizes > 1):
            joined[i] = self.kinds[" ".join(order[k] for k in kinds[starts[i]:starts[i] + sizes[i]])]
        self.learn()
        return joined, starts

    def learn(self):
        "Tokenise the pieces that are new, in one call."
        texts = cleaned(self.kinds.order[len(self.starts):], self.rules)
        known = [text for text in texts if text]
        words = self.spacy("\n".join(known)).to_array("ORTH")
        numbers = list(map(self.of_word.__getitem__, words.tolist()))
        lengths, first, last = np.zeros((3, len(texts)), dtype=np.int64)
        lengths[[text is None for text in texts]] = ODD
        if known:
            ends = np.append(np.flatnonzero(words == self.line_break), len(words))
            starts = np.append(0, ends[:-1] + 1)
            at = np.flatnonzero([bool(text) for text in texts])
            lengths[at] = np.add.reduceat(np.fromiter(map(len, numbers), dtype=np.int64), starts)
            first[at], last[at] = (edge(known, words[i]) for edge, i in zip(self.edges, (starts, ends - 1)))
        self.remember(chain.from_iterable(numbers), lengths, first, last)

    def assemble(self, texts: Sequence[str], every: np.ndarray, places: np.ndarray,
                 kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        "The tokens of a block from the kinds of its pieces, which begin at `places` of `every` piece."
        starts, lengths = self.shown("starts", kinds), self.shown("lengths", kinds)
        odd = lengths < 0
        lengths = np.maximum(lengths, 0)
        of_text = np.cumsum(kinds == START) - 1
        ends = np.cumsum(lengths)
        numbers = np.frombuffer(self.tokens, dtype=np.int64)[
            np.repeat(starts - ends + lengths, lengths) + np.arange(ends[-1])]
        sizes = np.bincount(of_text, lengths, minlength=len(texts)).astype(np.int64)
        to_do = {*of_text[odd].tolist()}
        places = np.append(places, len(every))
        changes = []  # (first piece, piece after the last, tokens in their place)
        for a, b in self.windows(numbers, ends, kinds):
            if of_text[a] not in to_do:
                text = " ".join(map(self.kinds.order.__getitem__, every[places[a]:places[b]]))
                changes.append((a, b, self.window(text)))
        for i in to_do:
            a, b = np.searchsorted(of_text, [i, i + 1])
            changes.append((a, b, self.whole([texts[i]])[0]))
        if not changes: return numbers, sizes
        parts, done, begins = [], 0, ends - lengths
        for a, b, tokens in sorted(changes, key=lambda change: change[0]):
            parts += [numbers[done:begins[a]], tokens]
            sizes[of_text[a]] += len(tokens) - (ends[b - 1] - begins[a])
            done = ends[b - 1]
        return np.concatenate([*parts, numbers[done:]]), sizes

    def windows(self, numbers: np.ndarray, ends: np.ndarray, kinds: np.ndarray) -> Iterator[tuple[int, int]]:
        """Pieces (first, after the last) among which a word may be repeated, with a word on either side.

        What stands beyond is another word, so the pieces of a window give the tokens that they give in the whole text.
        """
        begins = (ends - np.maximum(self.shown("lengths", kinds), 0))[kinds == START]
        within = numbers.copy()
        within[begins] = -1 - np.arange(len(begins))  # a text's own xxbos repeats nothing
        runs = self.repeated(within)
        first, last = (np.searchsorted(ends, at, side="right").tolist() for at in (runs[:, 0], runs[:, 1] - 1))
        no_word = np.isin(kinds, (BREAK, PARAGRAPH))
        window = None
        for a, b in zip(first, last):
            a, b = a - 1, b + 1
            while no_word[a]: a -= 1
            while b < len(kinds) and no_word[b]: b += 1
            a += kinds[a] == START
            b += b < len(kinds) and kinds[b] != START
            if window and a < window[1]: window = window[0], max(b, window[1])
            else:
                if window: yield window
                window = a, b
        if window: yield window

    def window(self, text: str) -> np.ndarray:
        "The tokens of some pieces of a text."
        spoken = mark((t.text for t in self.spacy(clean_within(text, self.rules))), self.rules)
        return np.array([self.numbers[t] for t in spoken], dtype=np.int64)

    def repeated(self, numbers: np.ndarray) -> np.ndarray:
        """Where a word may stand `word_repeat` times in a row, as (first token, token after the last), in order.

        Plain, or with a mark of its capitals before each.
        """
        n, order = self.rules.word_repeat, self.numbers.order
        plain = equal_in_a_row(numbers, n)
        plain = plain[[order[i][0].isalnum() for i in numbers[plain]]]
        every_other = equal_in_a_row(numbers, n, 2)
        marked = every_other[np.isin(every_other + 1, every_other)
                             & np.isin(numbers[every_other], [self.numbers[UP], self.numbers[MAJ]])]
        runs = np.concatenate([np.stack([at, at + size], axis=1) for at, size in ((plain, n), (marked, 2 * n))])
        return runs[np.argsort(runs[:, 0], kind="stable")]

    def whole(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        "The same without remembering pieces."
        docs = [[self.numbers[t] for t in self.tokenizer(text)] for text in texts]
        return (np.fromiter(chain.from_iterable(docs), dtype=np.int64),
                np.fromiter(map(len, docs), dtype=np.int64, count=len(docs)))
