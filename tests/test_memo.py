"The memo gives the tokenizer's tokens, for every text, in every language, however little it may remember."
import random
from itertools import chain

import numpy as np
import pytest
from fastcore.script import CliError
from hypothesis import given, settings, strategies as st
from ulmfit.text import memo as memory
from ulmfit.text.memo import Memo, cuts_at_white_space, equal_in_a_row
from ulmfit.text.rules import BOS, FASTAI, SCRIPTS
from ulmfit.text.tokenizer import Tokenizer, spacy_tokenizer

pytest.importorskip("spacy", reason="what needs no text needs no spaCy")
quick = settings(deadline=None, max_examples=150)
LANGUAGES = ["en", "de", "fr", "fi", "hu", "tr", "ru", "uk", "ar", "he", "hi", "zh", "xx"]
BLANKS = [" ", " ", " ", "  ", "\n", "\n\n", " \n", "\n ", "\t", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\xa0",
          "\u2003", "\u2028", "\u3000", "\u200b"]
# What the rules, spaCy and the memo might each see otherwise: alone, glued or with blanks between.
PARTS = [
    "&#10;", "&NewLine;", "&nbsp;", "&#x20;", "&amp;", "amp;", "lt;", "&lt;br />", "quot;", "#39;", "<br />",
    "<br", "/>", "\\n", "\\", '\\"', " @-@ ", "@-@", " @,@ ", "<unk>", "...", "..", "/", "#", ":", ")", "(",
    ": )", "8 )", ":-)", "(* _ *)", "(*_*)", "¯\\(ツ)/¯", "o.O", "<3", "don't", "do", "n't", "'s", "I'm",
    "gonna", "can", "not", "cannot", "e.g.", "U.S.", "5", "a.m.", "10km", "1,000", "well-known", "--",
    "http://a.b/c", "a@b.co", "$5", "👍🏽", "👨‍👩‍👧", "\u200d", "no", "No", "NO", "nO", "a", "aaa", "AAAA",
    "!!!", "?", "xxbos", "xxunk", "xxrep", "xxwrep", "XXBOS", "é", "e\u0301", "İ", "ß", "ǅ", "ŉ", "Σ", "Ⅷ",
    "\x00", "▁", "½", "日本", "한국어", "हिन्दी", "שלום", "مرحبا", "Мир", "и др.", "т.", "е.", "z.B.", "z. B.",
    "l'", "“", "»", "[", "…"]
pieces = st.lists(st.sampled_from(PARTS) | st.sampled_from(BLANKS) | st.text(max_size=3), max_size=14)
texts = st.lists(pieces.map("".join) | pieces.map(" ".join) | st.sampled_from(PARTS).map(lambda p: f"{p} " * 4)
                 | st.text(max_size=40), min_size=1, max_size=5)


class Reader:
    "A memo, its numbers read as the tokens that it tells of."
    def __init__(self, tokenizer: Tokenizer, **how): self.memo, self.tokens = Memo(tokenizer, **how), []

    def __call__(self, batch: list[str]) -> list[list[str]]:
        begun = self.memo.begun
        numbers, lengths = self.memo(batch)
        if self.memo.begun != begun: self.tokens = []
        self.tokens += self.memo.news()
        assert len(lengths) == len(batch) and lengths.sum() == len(numbers)
        return [[self.tokens[n] for n in doc] for doc in np.split(numbers, np.cumsum(lengths)[:-1])]


def readers(tokenizer: Tokenizer) -> list[Reader]:
    "One that remembers everything, and one that begins anew nearly every time."
    return [Reader(tokenizer), Reader(tokenizer, most=30)]


def of_language(lang: str) -> Tokenizer:
    try: spacy_tokenizer(lang)
    except CliError as e: pytest.skip(str(e))
    return Tokenizer(lang=lang)


english, scripts = Tokenizer(), Tokenizer(rules=SCRIPTS)
of_english, of_scripts = readers(english), readers(scripts)


@settings(quick, max_examples=400)
@given(texts)
def test_the_tokens_are_the_tokenizers(batch):
    for tokenizer, both in ((english, of_english), (scripts, of_scripts)):
        for read in both: assert read(batch) == [tokenizer(text) for text in batch]


@pytest.mark.parametrize("lang", LANGUAGES[1:])
def test_the_tokens_of_another_language_are_its_tokenizers(lang):
    tokenizer = of_language(lang)
    both = readers(tokenizer)

    @settings(quick, max_examples=40)
    @given(texts)
    def equal(batch):
        for read in both: assert read(batch) == [tokenizer(text) for text in batch]
    equal()


@pytest.mark.parametrize("lang", LANGUAGES)
def test_spacys_special_cases_are_seen_across_blanks(lang):
    "Each as it is, cut by a blank somewhere, glued to others or to punctuation, between two of its kind."
    tokenizer = of_language(lang)
    rules, rng = sorted(getattr(spacy_tokenizer(lang), "rules", {})), random.Random(0)
    rules = rng.sample(rules, min(len(rules), 400))
    def cut(rule):
        i = rng.randrange(len(rule) + 1)
        return rule[:i] + rng.choice([" ", "\n", "\xa0", "  "]) + rule[i:]
    batch = [text for rule, other in zip(rules, rules[1:] + rules[:1]) for text in (
        cut(rule), cut(f"{rule} {other}"), f"{rule}{other}", f"({cut(rule)}, {cut(other)}!", " ".join(rule),
        f"{rule[1:]} {rule} {other[:-1]} {other}", rule.replace(" ", ""))]
    for read in readers(tokenizer):
        for i in range(0, len(batch), 50):
            some = batch[i:i + 50]
            for text, tokens in zip(some, read(some)): assert tokens == tokenizer(text), repr(text)


@pytest.mark.parametrize("rules", [FASTAI, SCRIPTS], ids=["fastai", "scripts"])
@pytest.mark.parametrize("words", ["no {0}", "No {0}", "NO {0}", "no {0} yes", "{0}", "n. {0}", "xxbos {0}",
                                   "xxmaj {0}"])
@pytest.mark.parametrize("times", [2, 3, 4, 5, 9])
def test_words_in_a_row_are_counted(rules, words, times):
    "Also across lines and texts, and together with the marks of their capitals."
    tokenizer = Tokenizer(rules=rules)
    word = words.split()[0] if words != "{0}" else "It's"
    batch = [words.format(" ".join([word] * times)), " \n ".join([word] * times), word, f"{word} {word}", "xxbos"]
    for read in readers(tokenizer): assert read(batch) == [tokenizer(text) for text in batch]


@pytest.mark.parametrize("text", ["", " ", "\n", " \n \n\n ", "\t", "\xa0\x85", "\0", "\0 ", " \0 a"])
def test_texts_of_next_to_nothing(text):
    for read in of_english: assert read([text, "a", text]) == [english(text), english("a"), english(text)]


def test_no_texts_are_no_tokens():
    numbers, lengths = Memo(english)([])
    assert len(numbers) == len(lengths) == 0


def test_a_tokenizer_without_spacy_is_asked_for_each_text():
    words = Tokenizer("words")
    assert Reader(words)(["a <unk>\nB", ""]) == [words("a <unk>\nB"), words("")]


def test_what_was_seen_is_not_tokenised_again(monkeypatch):
    read = Reader(english)
    first = read(["The film wasn't bad (really).", "Nothing."])
    monkeypatch.setattr(memory, "cleaned", lambda texts, rules: pytest.fail(f"again: {texts}") if texts else [])
    assert read(["Nothing.", "The film wasn't bad (really)."]) == first[::-1]


def test_it_tells_of_each_token_once():
    read = Reader(english)
    told = [*read.memo.news()]
    for text in ("the film", "a film", "the film"):
        read.memo([text])
        told += read.memo.news()
    assert len(told) == len(set(told)) and BOS in told and read.memo.news() == []


def test_it_holds_no_more_than_it_may_and_a_block():
    read, block = Reader(english, most=100), [f"word{i} other{i}" for i in range(20)]
    for n in range(30):
        read([f"{text}x{n}" for text in block])
        assert max(len(read.memo.kinds), len(read.memo.numbers)) <= 100 + 4 * len(block)


def test_spacy_keeps_no_string_of_the_texts():
    "It would keep every word that it ever saw."
    read, strings = Reader(english), spacy_tokenizer("en").vocab.strings
    read(["the first"])
    before = len(strings)
    read([f"invented{i} words{i}" for i in range(500)])
    assert len(strings) <= before + 5


def test_a_tokenizer_that_does_not_cut_at_white_space_is_not_remembered():
    class Odd:
        "No tokenizer of spaCy's common kind."
        rules = {}
    assert not cuts_at_white_space(Odd()) and cuts_at_white_space(spacy_tokenizer("en"))


@quick
@given(st.lists(st.integers(0, 2), max_size=30), st.integers(2, 4), st.integers(1, 2))
def test_equal_numbers_in_a_row_are_found(numbers, n, stride):
    expected = [i for i in range(len(numbers) - stride * (n - 1)) if len(set(numbers[i:i + stride * n:stride])) == 1]
    assert equal_in_a_row(np.array(numbers, dtype=np.int64), n, stride).tolist() == expected


def test_documents_of_a_corpus_are_the_tokenizers_too():
    "Prose of this installation: docstrings of the standard library, in blocks."
    import pydoc, textwrap, unittest
    prose = [d for m in (pydoc, textwrap, unittest, random) for o in vars(m).values()
             if isinstance(d := getattr(o, "__doc__", None), str)]
    for read in of_english:
        found = chain.from_iterable(read(prose[i:i + 40]) for i in range(0, len(prose), 40))
        assert list(found) == [english(text) for text in prose]
