"Subwords: what they keep of a text, in any language, and that one model serves all stages."
import importlib.util
import json
import random
from collections import Counter

import numpy as np
import pytest
from corpora import says
from hypothesis import given, settings, strategies as st
from ulmfit.corpus.prepare import identity, prepare
from ulmfit.corpus.source import Source
from ulmfit.corpus.shards import merge
from ulmfit.text import subwords
from ulmfit.text.rules import BOS, FASTAI, MAJ, SPECIALS, UNK, UP, WREP
from ulmfit.text.subwords import sample, spaced, whole_words
from ulmfit.text.tokenizer import TextSettings, Tokenizer

pytestmark = [pytest.mark.usefixtures("library"),
              pytest.mark.skipif(not importlib.util.find_spec("sentencepiece"), reason="SentencePiece is an extra")]
quick = settings(deadline=None, max_examples=100)
rng = random.Random(0)
parts = "won der ful beau ti story film ter ri ble act ing rea son able un play ed mu sic the of was not".split()
invented = ["".join(rng.choices(parts, k=rng.randint(1, 3))) for _ in range(300)]
english = [" ".join(rng.choices(invented, k=12)).capitalize() + f", in {rng.randint(1, 9)} of NATO's \"wars\" (say)."
           for _ in range(200)]
japanese = ["私はその映画がとても好きです。", "東京は日本の首都です。", "彼女は毎日図書館で本を読みます。",
            "今日は天気がいいですね。"] * 20
untrained = Tokenizer("subwords", size=150)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer: return untrained.trained(english)


# --- marks before SentencePiece ---

@pytest.mark.parametrize("text, marked", [
    ("The film", f"{MAJ} the film"), ("NATO's", f" {UP} nato's"),
    ('"Kiki\'s (GREAT)', f'" {MAJ} kiki\'s ( {UP} great)'),
    ("no no no way", f"{WREP} 3 no way"), ("NO NO", f" {UP} no  {UP} no"), ("? ? ?", "? ? ?"), ("a\n\nb", "a b"),
    ("日本語", "日本語")])
def test_marks_stand_before_their_words(text, marked): assert spaced(text, FASTAI).strip() == marked.strip()


def test_marks_and_the_unknown_word_are_tokens(tokenizer):
    tokens = tokenizer("The NATO <unk> not not not")
    assert tokens[0] == BOS and {MAJ, UP, UNK, WREP} <= set(tokens)
    assert whole_words(tokens[1:]) == [MAJ, "the", UP, "nato", UNK, WREP, "3", "not"]


# --- pieces ---

@quick
@given(st.lists(st.sampled_from(" ".join(english[:3]).lower().split()), max_size=20))
def test_pieces_make_the_words_again(tokenizer, words):
    if any(a == b for a, b in zip(words, words[1:])): return  # a repeated word may be counted
    assert whole_words(tokenizer(" ".join(words))[1:]) == words


def test_a_word_that_was_never_seen_is_made_of_pieces(tokenizer):
    tokens = tokenizer("unfilmedly")[1:]
    assert len(tokens) > 1 and UNK not in tokens and whole_words(tokens) == ["unfilmedly"]


def test_japanese_needs_no_blanks():
    t = Tokenizer("subwords", "ja", size=120).trained(japanese)
    new = "東京は天気がいいです。"
    assert UNK not in t(new) and "".join(whole_words(t(new)[1:])) == new
    assert len(t(new)) > 4


def test_a_character_that_was_never_seen_is_unknown(tokenizer): assert UNK in tokenizer("日")


@quick
@given(st.text(max_size=60))
def test_no_text_makes_them_fail(tokenizer, text):
    tokens = tokenizer(text)
    assert tokens[0] == BOS and set(tokens) <= {BOS, *subwords.tokens(tokenizer.model)}


# --- training them ---

@quick
@given(st.lists(st.text("ab", min_size=1, max_size=9), max_size=30), st.integers(1, 40), st.integers(1, 300))
def test_a_sample_is_of_the_lines_and_no_larger_than_it_may_be(lines, most, characters):
    kept = sample(lines, most, characters)
    assert not Counter(kept) - Counter(lines) and len(kept) <= most and sum(map(len, kept[:-1])) <= characters
    if len(lines) <= most and sum(map(len, lines)) <= characters: assert sorted(kept) == sorted(lines)


def test_every_line_is_as_likely_in_a_sample():
    "The last of a thousand as the first."
    kept = np.array(sample([f"{i:03}" for i in range(1000)], 300), dtype=int)
    assert len(set(kept)) == 300 and np.histogram(kept, 4, (0, 1000))[0].min() > 50



def test_the_same_texts_give_the_same_model(tokenizer): assert untrained.trained(english) == tokenizer


def test_the_size_counts_special_tokens(tokenizer):
    names = subwords.tokens(tokenizer.model)
    assert len(set(names)) == untrained.size and set(SPECIALS) <= set(names)


def test_a_size_that_the_text_cannot_have_is_an_error():
    with says("20 subwords"): Tokenizer("subwords", size=20).trained(english)


def test_without_the_library_what_to_install_is_said(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sentencepiece", None)
    with says("pip install"): untrained.trained(english)


# --- as a tokenizer of corpora and models ---

def test_the_model_goes_through_json(tokenizer):
    assert Tokenizer.from_dict(json.loads(json.dumps(tokenizer.to_dict()))) == tokenizer


def test_a_tokenizer_of_before_there_were_subwords_is_read():
    old = {k: v for k, v in Tokenizer().to_dict().items() if k not in ("size", "model")}
    assert Tokenizer.from_dict(old) == Tokenizer()


def test_the_model_is_not_printed(tokenizer): assert len(repr(tokenizer)) < 200


def test_settings_name_them(): assert Tokenizer.named(TextSettings("subwords", subwords=99)).size == 99


def source() -> Source: return Source("films", "lm", lambda: (("train", (t, None)) for t in english))


def test_a_corpus_keeps_the_model_and_all_its_tokens(tmp_path, tokenizer):
    "Those that no document has too: the next corpus may have them."
    corpus = prepare(source(), untrained, tmp_path / "c", 1)
    assert corpus.tokenizer == tokenizer
    assert set(corpus.vocab(["train"], 60_000, 3).tokens) == {*SPECIALS, *subwords.tokens(tokenizer.model)}


@pytest.mark.parametrize("held_out", ["valid", "test"])
def test_held_out_splits_teach_no_subwords(tmp_path, held_out):
    documents = [*(("train", (t, None)) for t in english), *((held_out, (t, None)) for t in japanese)]
    corpus = prepare(Source("films", "lm", lambda: iter(documents)), untrained, tmp_path / "c", 1)
    assert not any("東" in t for t in corpus.lexicon)


def test_shards_that_have_learnt_other_subwords_are_refused(tmp_path):
    for i in (1, 2): prepare(source(), untrained, tmp_path / f"s{i}", 1, (i, 2))
    path = tmp_path / "s2/manifest.json"
    manifest = json.loads(path.read_text())
    manifest["tokenizer"]["model"] = "b3RoZXI="
    path.write_text(json.dumps(manifest))
    with says("s2 has learnt other subwords"): merge([tmp_path / "s1", tmp_path / "s2"], tmp_path / "joined")


def test_shards_learn_the_same_subwords(tmp_path):
    one = prepare(source(), untrained, tmp_path / "one", 2)
    for i in (1, 2): prepare(source(), untrained, tmp_path / f"s{i}", 1, (i, 2))
    joined = merge([tmp_path / "s1", tmp_path / "s2"], tmp_path / "joined")
    assert joined.fingerprint == one.fingerprint and joined.tokenizer == one.tokenizer


def test_a_learnt_model_is_part_of_what_a_corpus_is(tokenizer):
    assert identity(source(), tokenizer) != identity(source(), untrained.trained(english[:60]))
