"""ULMFiT's text rules: what happens to a text before and after the tokenizer.

`clean` works on the string (markup of the corpora, repeated characters, white space), `mark` on the tokens
(repeated words, capitals). Case is marked after tokenizing, so a word is seen as one whatever stands around it:
`"Kiki's` keeps its xxmaj, and so does any script that has capitals. The special tokens are fastai's.
"""
import html, re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

UNK, PAD, BOS, EOS, FLD, REP, WREP, UP, MAJ = SPECIALS = (
    "xxunk", "xxpad", "xxbos", "xxeos", "xxfld", "xxrep", "xxwrep", "xxup", "xxmaj")


@dataclass(frozen=True)
class Rules:
    "Thresholds of the rules; the defaults are fastai's."
    char_repeat: int = 3  # this many equal characters become `xxrep n c`
    word_repeat: int = 3  # this many equal words become `xxwrep n w`
    caps_length: int = 2  # an all-capitals word of at least this length becomes `xxup w`
    title_case: bool = True  # a capitalised word becomes `xxmaj w`

    def __post_init__(self):
        if min(self.char_repeat, self.word_repeat) < 2: raise ValueError("a repetition is of two at least")


FASTAI = Rules()
SCRIPTS = Rules(char_repeat=4, word_repeat=4, caps_length=3, title_case=False)  # the authors' scripts, 2018
NAMED_RULES = dict(fastai=FASTAI, scripts=SCRIPTS)

# Left-overs of HTML and of the corpora's own escapes. An entity may have lost its ampersand (AG News) or not.
_entities = {"#39;": "'", "#146;": "'", "amp;": "&", "nbsp;": " ", "#36;": "$", "quot;": '"', "lt;": "<", "gt;": ">"}
# A bare one does not stand within a word: `fault;` ends in no `lt;`.
_entity = re.compile(r"(?:&|(?<!\w)|(?=#))(" + "|".join(map(re.escape, _entities)) + ")")
_breaks = ("<br />", "<br/>", "<br>", "\\n")
_joins = re.compile(" @([-.,])@ ")
_markup = {'\\"': '"', "<unk>": f" {UNK} ", "...": " … "}
_markup_re = re.compile("|".join(map(re.escape, _markup)))
_separators = re.compile(r"([/#\\])")
_spaces = re.compile(r"[^\S\n]{2,}")
_punctuation = re.compile(r"[^\w\s]{32}(?=[^\w\s])")  # of n unbroken marks spaCy's time goes by n squared


def clean_across(text: str) -> str:
    "The rules that see or make white space: entities, line breaks, WikiText's ` @-@ `."
    if ";" in text: text = _entity.sub(lambda m: _entities[m[1]], text)
    for markup in _breaks:
        if markup in text: text = text.replace(markup, "\n")
    return _joins.sub(r"\1", text) if " @" in text else text


@lru_cache
def _repeat_pattern(n: int) -> re.Pattern: return re.compile(r"(\S)\1{%d,}" % (n - 1))


def mark_repeated_characters(text: str, n: int) -> str:
    "`cooool` -> `c xxrep 4 o l`, for `n` or more equal characters."
    return _repeat_pattern(n).sub(lambda m: f" {REP} {len(m[0])} {m[1]} ", text)


def clean_within(text: str, rules: Rules = FASTAI) -> str:
    "The rules that act between white space: what they do to a text, they do to its parts."
    text = html.unescape(_markup_re.sub(lambda m: _markup[m[0]], text))
    text = mark_repeated_characters(text, rules.char_repeat)
    return _spaces.sub(" ", _separators.sub(r" \1 ", _punctuation.sub(r"\g<0> ", text)))


def clean(text: str, rules: Rules = FASTAI) -> str:
    "The rules that come before the tokenizer: left-overs of markup, repeated characters, white space."
    return clean_within(clean_across(text), rules)


def mark_case(word: str, rules: Rules) -> Iterator[str]:
    "Lower-case a word, with xxup or xxmaj before it where it was all capitals or capitalised."
    low = word.lower()
    if low != word and len(word) > 1:
        if word.isupper():
            if len(word) >= rules.caps_length: yield UP
        elif rules.title_case and word[0] != low[0] and word[1:] == word[1:].lower(): yield MAJ
    yield low


def mark(tokens: Iterable[str], rules: Rules = FASTAI) -> Iterator[str]:
    "The rules that come after the tokenizer: white space, repeated words, case."
    for token, run in groupby(tokens):
        n = sum(1 for _ in run)
        if token.isspace():
            # A paragraph's end is worth a token, blanks are not.
            if "\n" in token: yield "\n" * min(2, n * token.count("\n"))
        elif n >= rules.word_repeat and token[0].isalnum(): yield from (WREP, str(n), *mark_case(token, rules))
        else:
            for _ in range(n): yield from mark_case(token.replace(" ", "▁"), rules)
