"Text to ids: what the rules do to a text, what no text can do to the rules, and what a vocabulary promises."
import json
import random
import re

import numpy as np
import pytest
from fastcore.script import CliError
from hypothesis import given, settings, strategies as st
from ulmfit.text import rules
from ulmfit.text.rules import BOS, EOS, FASTAI, MAJ, REP, SCRIPTS, SPECIALS, UNK, UP, WREP, clean, mark
from ulmfit.text.tokenizer import TextSettings, Tokenizer
from ulmfit.text.vocab import Vocab, coverage, sources

quick = settings(deadline=None, max_examples=150)
english, scripts, words = Tokenizer(), Tokenizer(rules=SCRIPTS), Tokenizer("words")
# Arbitrary text, and text of the pieces that the rules look for, in any order.
pieces = ["&amp;", "#39;", "<br />", "<unk>", " @-@ ", "\\n", "\n", " ", "\t", "\u00a0", "xxrep", "A", "a", "The",
          "THE", "é", "É", "ß",
          "İ", "Я", "я", "…", "...", "!", "/", "#", "\\", "😀", "\x00", "\u200f", "ש", "1", "'s", "(", ":-)",
          "http://a.b/c", "ǅ", "ŉ"]
texts = st.text(max_size=60) | st.lists(st.sampled_from(pieces), max_size=20).map("".join)


def tokens(text: str) -> list[str]:
    "Without the start marker."
    first, *rest = english(text)
    assert first == BOS
    return rest


# --- on the string ---

@pytest.mark.parametrize("markup, text", [
    ("it #39;s", "it 's"), ("it&#39;s", "it's"), ("you #146;re", "you 're"), ("#36;5", "$5"), ("R &amp; D", "R & D"),
    ("AT amp; T", "AT & T"),
    ("&quot;no&quot;", '"no"'), (" quot;no", ' "no'), ("&lt;b&gt;", "<b>"), (" lt;b gt;", " <b >"),
    ("a&nbsp;b", "a b"), ("caf&eacute;", "café"),
    ("&#x27;", "'"), ("a<br />b<br/>c<br>d", "a\nb\nc\nd"), ("a\\nb", "a\nb"), ('\\"no\\"', '"no"')])
def test_left_overs_of_html_are_undone(markup, text): assert clean(markup) == text


@pytest.mark.parametrize("text",
                         ["It was not his fault; he left.", "as a result; so", "by the lamp; then",
                          "a swamp; a camp;", "salt; built; felt;"])
def test_a_word_before_a_semicolon_is_no_entity(text):
    "`fault;` ends in `lt;`, which has lost no ampersand."
    assert clean(text) == text


@pytest.mark.parametrize("marked, text", [
    ("well @-@ known", "well-known"), ("3 @.@ 5", "3.5"), ("1 @,@ 250 @,@ 125", "1,250,125"),
    ("the <unk> of", f"the {UNK} of"),
    ("so ...", "so … ")])
def test_marks_of_wikitext_are_undone(marked, text): assert clean(marked) == text


def test_an_unknown_word_of_wikitext_is_the_unknown_token(): assert tokens("the <unk> of") == ["the", UNK, "of"]


@pytest.mark.parametrize("text, separated",
                         [("and/or", "and / or"), ("#1", " # 1"), ("a\\b", "a \\ b"), ("a / b", "a / b")])
def test_separators_stand_alone(text, separated): assert clean(text) == separated


def test_blanks_collapse_and_ends_of_lines_stay(): assert clean("a  b \t c\n\nd") == "a b c\n\nd"


@pytest.mark.parametrize("rules_, n", [(FASTAI, 3), (SCRIPTS, 4)], ids=["fastai", "scripts"])
def test_characters_are_repeated_from_the_threshold_on(rules_, n):
    assert clean("b" + "o" * n + "k", rules_) == f"b {REP} {n} o k"
    assert clean("b" + "o" * (n - 1) + "k", rules_) == "b" + "o" * (n - 1) + "k"


def test_repeated_characters_are_counted_as_far_as_they_go(): assert tokens("!" * 1234) == [REP, "1234", "!"]


def test_repeated_emoji_are_repeated_characters(): assert tokens("😀😀😀") == [REP, "3", "😀"]


@pytest.mark.parametrize("n", [1, 15, 16, 17, 32, 100])
def test_unbroken_punctuation_is_cut_into_pieces(n):
    "spaCy takes minutes for some kilobytes of it; no mark is lost."
    text = "a" + ".," * n + "b"
    assert max(map(len, clean(text).split())) <= 34 and clean(text).replace(" ", "") == text
    assert n > 16 or clean(text) == text


def test_blanks_are_no_repeated_characters(): assert REP not in clean("a" + " " * 9 + "b" + "\n" * 9)


# --- on the tokens ---

@pytest.mark.parametrize("rules_, n", [(FASTAI, 3), (SCRIPTS, 4)], ids=["fastai", "scripts"])
def test_words_are_repeated_from_the_threshold_on(rules_, n):
    assert list(mark(["no"] * n, rules_)) == [WREP, str(n), "no"]
    assert list(mark(["no"] * (n - 1), rules_)) == ["no"] * (n - 1)


def test_a_repeated_word_keeps_its_case(): assert tokens("NO NO NO") == [WREP, "3", UP, "no"]


def test_repeated_punctuation_is_no_repeated_word(): assert tokens("? ? ?") == ["?"] * 3


def test_capitals_are_seen_after_punctuation():
    "fastai looks at the text, where `\"Kiki's` has no white space before it."
    assert tokens('"Kiki\'s (Great) AND-or') == ['"', MAJ, "kiki", "'s", "(", MAJ, "great", ")", UP, "and", "-", "or"]


@pytest.mark.parametrize("word, marked", [
    ("Élan", [MAJ, "élan"]), ("ÉLAN", [UP, "élan"]), ("Über", [MAJ, "über"]), ("ÜBER", [UP, "über"]),
    ("Мир", [MAJ, "мир"]), ("МИР", [UP, "мир"]),
    ("Ελλάδα", [MAJ, "ελλάδα"]), ("ΑΘΗΝΑ", [UP, "αθηνα"]), ("日本", ["日本"]), ("שלום", ["שלום"])])
def test_capitals_of_other_scripts_are_capitals(word, marked): assert tokens(word) == marked


@pytest.mark.parametrize("letter", "AIÉЯ")
def test_a_single_capital_has_no_mark(letter): assert tokens(letter) == [letter.lower()]


@pytest.mark.parametrize("word", ["iPhone", "McDonald", "eBay", "WordPress"])
def test_mixed_case_has_no_mark(word): assert tokens(word) == [word.lower()]


@pytest.mark.parametrize("word, marked", [("Good", ["good"]), ("TV", ["tv"]), ("USA", [UP, "usa"])])
def test_the_scripts_mark_capitals_from_three_letters_and_no_title_case(word, marked):
    assert scripts(word)[1:] == marked


def test_a_lower_case_text_is_left_as_it_is(): assert tokens("a plain text.") == ["a", "plain", "text", "."]


def test_a_paragraph_ends_with_a_token(): assert tokens("a\nb\n\n\n\nc") == ["a", "\n", "b", "\n\n", "c"]


# --- any text ---

@pytest.mark.parametrize("text", ["", " ", "     ", "\t", "\u00a0", "\u2003 \u3000"])
def test_a_text_of_nothing_is_the_start_marker(text): assert english(text) == [BOS]


@quick
@given(texts)
def test_no_text_makes_the_rules_fail(text):
    for r in (FASTAI, SCRIPTS): list(mark(clean(text, r).split(), r))


@quick
@given(texts)
def test_a_text_begins_with_its_marker(text): assert english(text)[0] == scripts(text)[0] == BOS


@quick
@given(texts)
def test_no_token_has_a_blank_or_is_empty(text):
    for token in english(text): assert token and (token in ("\n", "\n\n") or not re.search(r"\s", token)), repr(token)


@quick
@given(texts)
def test_no_token_has_an_ascii_capital(text): assert not re.search("[A-Z]", "".join(english(text)))


@quick
@given(st.lists(st.text(st.characters(categories=["Ll", "Lu"]), min_size=1, max_size=6)
                .filter(lambda word: word.lower() not in SPECIALS), max_size=12))
def test_marking_loses_no_word(found):
    "But for their case: what was marked, read back, is the same words."
    marks, back = iter(mark(found)), []
    for t in marks:
        n = int(next(marks)) if t == WREP else 1
        word = next(marks) if t == WREP else t
        if word in (UP, MAJ): word = next(marks)
        back += [word] * n
    assert back == [w.lower() for w in found]


def test_nul_and_right_to_left_text_are_tokens_like_others():
    assert tokens("a\x00b مرحبا \u200fשלום") == ["a\x00b", "مرحبا", "\u200fשלום"]


def test_an_emoji_is_a_token(): assert tokens("good 👍 film") == ["good", "👍", "film"]


def test_a_line_of_five_megabytes_is_a_text():
    n = 260_000
    assert len(english("incomprehensibilities " * n)) == 1 + 3  # xxwrep n w
    assert len(words("incomprehensibilities " * n)) == n + 1
    assert len(english("incomprehensibilities unconstitutionally " * (n // 2))) == n + 1


# --- tokenizers ---

def test_words_ends_each_line_with_its_marker(): assert words("a B\n\nc\n") == ["a", "B", EOS, EOS, "c", EOS]


def test_words_does_not_need_a_last_end_of_line(): assert words("a\nb") == words("a\nb\n")


def test_words_takes_words_as_they_are():
    assert words("The <unk> @-@ ... &amp; aaaa") == ["The", UNK, "@-@", "...", "&amp;", "aaaa", EOS]


def test_another_language_has_its_own_tokenizer():
    "An abbreviation of German is one token."
    german = Tokenizer(lang="de")
    assert german("Das ist z.B. schön.") == [BOS, MAJ, "das", "ist", "z.b.", "schön", "."]


def test_a_language_that_spacy_lacks_is_named():
    with pytest.raises(CliError, match="'qq'"): Tokenizer(lang="qq")("text")


@pytest.mark.parametrize("tokenizer", [english, scripts, words, Tokenizer(lang="de")],
                         ids=["english", "scripts", "words", "german"])
def test_a_tokenizer_goes_through_json(tokenizer):
    assert Tokenizer.from_dict(json.loads(json.dumps(tokenizer.to_dict()))) == tokenizer


def test_settings_name_a_tokenizer():
    assert Tokenizer.named(TextSettings("spacy", "de", "scripts")) == Tokenizer("spacy", "de", SCRIPTS)


# --- vocabulary ---

counted = {"the": 9, "of": 7, "b": 4, "a": 4, "rare": 1, BOS: 50}


def vocab(size: int = 100, least: int = 1) -> Vocab:
    return Vocab.from_counts(list(counted), list(counted.values()), size, least)


def test_special_tokens_come_first_then_the_frequent():
    assert vocab().tokens == [*SPECIALS, "the", "of", "a", "b", "rare"]


def test_the_unknown_token_is_0_and_padding_is_1():
    assert (vocab().unk, vocab().pad, vocab().tokens[:2]) == (0, 1, ["xxunk", "xxpad"])


def test_the_size_counts_special_tokens_too(): assert vocab(size=len(SPECIALS) + 2).tokens == [*SPECIALS, "the", "of"]


@pytest.mark.parametrize("size", [0, 5, 8, 9])
def test_the_smallest_vocabulary_is_the_special_tokens(size): assert vocab(size).tokens == list(SPECIALS)


def test_rarer_tokens_than_the_minimum_are_unknown(): assert vocab(least=5).ids(["the", "b"]) == [9, 0]


@quick
@given(st.dictionaries(st.text(max_size=3), st.integers(1, 4), max_size=20), st.integers(9, 20),
       st.randoms(use_true_random=False))
def test_ties_do_not_depend_on_the_order_of_counting(counts, size, rng: random.Random):
    shuffled = rng.sample(list(counts), len(counts))
    a = Vocab.from_counts(list(counts), list(counts.values()), size, 1)
    assert a == Vocab.from_counts(shuffled, [counts[t] for t in shuffled], size, 1)


@quick
@given(st.lists(st.text(max_size=4), unique=True, max_size=10))
def test_a_vocabulary_goes_through_its_file(tmp_path_factory, found):
    v, path = Vocab([*SPECIALS, *(t for t in found if t not in SPECIALS)]), tmp_path_factory.mktemp(
        "vocab") / "vocab.json"
    v.save(path)
    assert Vocab.load(path) == v and Vocab.load(path).fingerprint == v.fingerprint


def test_the_fingerprint_depends_on_the_order():
    assert Vocab([*SPECIALS, "a", "b"]).fingerprint != Vocab([*SPECIALS, "b", "a"]).fingerprint


@pytest.mark.parametrize("bad", [["a"], [*SPECIALS[::-1]], [*SPECIALS, "a", "a"]],
                         ids=["no specials", "wrong order", "twice"])
def test_a_list_that_is_no_vocabulary_is_refused(bad):
    with pytest.raises(ValueError): Vocab(bad)


def test_the_table_turns_ids_of_a_list_into_ids_of_the_vocabulary():
    assert vocab().table(["of", "new", "the", BOS]).tolist() == [10, 0, 9, 2]


@pytest.mark.parametrize("size, expected", [(99, "of new the a b rare"), (13, "of new the a"), (5, "of new")])
def test_a_vocabulary_is_filled_up_with_the_most_frequent_of_another(size, expected):
    new = Vocab([*SPECIALS, "of", "new"])
    assert new.filled_up(vocab(), size).tokens == [*SPECIALS, *expected.split()]


def test_sources_are_the_old_rows():
    assert sources(Vocab([*SPECIALS, "new", "of", "the"]), vocab()).tolist() == [*range(len(SPECIALS)), -1, 10, 9]


def test_coverage_counts_types_and_running_text_and_names_what_is_missing():
    new = Vocab([*SPECIALS, "the", "film", "\n"])
    line = coverage(new, vocab(), np.array([0, 0, 1, 0, 0, 0, 0, 0, 0, 5, 3, 1]))
    assert line == ("vocabulary: 10 of 12 tokens were known, 60.0% of the running text; "
                    "most frequent new ones: film \\n")


def test_coverage_of_the_same_vocabulary_is_complete():
    line = coverage(vocab(), vocab(), np.ones(len(vocab())))
    assert line == "vocabulary: 14 of 14 tokens were known, 100.0% of the running text"


def test_the_named_rules_are_those_of_the_settings(): assert set(rules.NAMED_RULES) == {"fastai", "scripts"}
