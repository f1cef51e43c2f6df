"Statistics of a corpus: exact figures of small ones, duplicates against a Counter, text within its width, a picture."
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from fastcore.script import CliError
from hypothesis import given, settings, strategies as st
from ulmfit.corpus.picture import draw
from ulmfit.corpus.prepare import prepare
from ulmfit.corpus.source import Source
from ulmfit.corpus.statistics import (WIDTH, class_balance, duplicates, examples, fingerprints, first_equal, lengths,
                                      loose, report, shown, table, vocabulary)
from ulmfit.corpus.store import Corpus, Documents
from ulmfit.corpus.writer import CorpusWriter
from ulmfit.text.tokenizer import Tokenizer

quick = settings(deadline=None, max_examples=100)


def corpus_of(folder: Path, classes: list[str] | None = None, **splits: list[tuple[str, int | None]]) -> Corpus:
    "Splits of (tokens between blanks, class or None)."
    with CorpusWriter(folder) as writer:
        for c in classes or (): writer.classes[c]
        for split, documents in splits.items():
            docs, labels = [text.split(" ") if text else [] for text, _ in documents], [c for _, c in documents]
            ids = np.array([writer.lexicon[t] for d in docs for t in d])
            writer.add(split, ids, list(map(len, docs)), labels if None not in labels else None)
        writer.finish(classes or [], name="small", kind="classification" if classes else "lm",
                      tokenizer=Tokenizer("words").to_dict())
    return Corpus(folder)


@pytest.fixture
def small(tmp_path) -> Corpus:
    return corpus_of(tmp_path / "small", ["good", "bad"],
                     train=[("a b c", 0), ("a b c", 1), ("a b", 0), ("a b c", 0), ("xxmaj a , b c !", 1)],
                     test=[("a b c", 1), ("c d e e", 0), ("A B \n .", 0)],
                     unsup=[("a b", None), ("xxbos \n", None), ("", None)])


def of_lists(docs: list[list[int]], labels: list[int] | None = None) -> Documents:
    ids, offsets = np.array([i for d in docs for i in d], dtype=np.uint16), np.cumsum([0, *map(len, docs)])
    return Documents(ids, offsets, None if labels is None else np.array(labels, dtype=np.int32))


# --- figures ---

def test_lengths_and_empty_documents(small):
    assert lengths(small.splits["train"], small.lexicon) == {
        "documents": 5, "tokens": 17, "min": 2, "5%": 2, "25%": 3, "50%": 3, "75%": 3, "95%": 5, "max": 6,
        "mean": 3.4, "empty": 0}
    assert lengths(small.splits["unsup"], small.lexicon)["empty"] == 2


def test_a_text_of_nothing_is_empty_though_it_has_its_mark(tmp_path):
    texts = ["", "  ", "\n\n", "?", "a"]
    for kind, empty in (("spacy", 3), ("words", 3)):
        corpus = prepare(Source("s", "lm", lambda: (("train", (t, None)) for t in texts)), Tokenizer(kind),
                         tmp_path / kind, 1)
        assert lengths(corpus.splits["train"], corpus.lexicon)["empty"] == empty


def test_a_split_without_documents_has_figures():
    assert lengths(of_lists([]), ["a"]) | dict(mean=0) == {
        "documents": 0, "tokens": 0, "min": 0, "5%": 0, "25%": 0, "50%": 0, "75%": 0, "95%": 0, "max": 0,
        "mean": 0, "empty": 0}
    assert duplicates(dict(train=of_lists([]), test=of_lists([[1]])))["test in train"]["repeated"] == 0


def test_balance_of_classes_where_there_are_labels(small):
    balance = class_balance(small)
    assert list(balance) == ["good", "bad"]
    assert balance["good"] == pytest.approx({"train": 3, "train %": 60, "test": 2, "test %": 200 / 3})
    assert balance["bad"] == pytest.approx({"train": 2, "train %": 40, "test": 1, "test %": 100 / 3})


def test_a_language_models_corpus_has_no_classes(tmp_path):
    assert class_balance(corpus_of(tmp_path / "c", train=[("a", None)])) == {}


def test_the_vocabulary_of_train_and_what_it_lacks(small):
    found = vocabulary(small, small.vocab(["train"], 11, 2))  # a and b beside the nine special tokens
    assert found["train"] == pytest.approx({"distinct": 6, "kept": 3, "once": 3, "once %": 50, "tokens": 17,
                                            "unknown": 6, "unknown %": 600 / 17})
    assert found["test"] == pytest.approx({"distinct": 9, "kept": 2, "once": 7, "once %": 700 / 9, "tokens": 11,
                                           "unknown": 9, "unknown %": 900 / 11})
    assert found["unsup"]["unknown"] == 1  # the line's end


def test_a_token_that_is_unknown_in_the_text_is_unknown(tmp_path):
    corpus = corpus_of(tmp_path / "c", train=[("a xxunk a xxunk", None)])
    assert vocabulary(corpus, corpus.vocab(["train"], 100, 1))["train"]["unknown"] == 2


# --- duplicates ---

def test_identical_documents(small):
    found = duplicates(small.splits)
    assert found == {
        "within train": {"documents": 5, "repeated": 2, "percent": 40.0, "other class": 1},
        "within test": {"documents": 3, "repeated": 0, "percent": 0.0, "other class": 0},
        "within unsup": {"documents": 3, "repeated": 0, "percent": 0.0},
        "test in train": {"documents": 3, "repeated": 1, "percent": pytest.approx(100 / 3), "other class": 1},
        "unsup in train": {"documents": 3, "repeated": 1, "percent": pytest.approx(100 / 3)}}


def test_documents_alike_but_for_case_white_space_and_punctuation(small):
    numbers = loose(small.lexicon)
    found = duplicates({s: d.through(numbers) for s, d in small.splits.items()})
    assert found["within train"] == {"documents": 5, "repeated": 3, "percent": 60.0, "other class": 2}
    assert found["test in train"]["repeated"] == 2 and found["test in train"]["other class"] == 1
    assert found["within unsup"]["repeated"] == 0  # a start marker is no white space


def test_what_is_left_out_of_a_loose_comparison():
    tokens = ["xxmaj", "xxup", "\n\n", ",", "...", "“", "«", "Word", "word", "xxrep", "$", "3", "n't", "☺"]
    assert loose(tokens).tolist() == [-1] * 7 + [0, 0, 1, 2, 3, 4, 5]


documents = st.lists(st.lists(st.integers(0, 2), max_size=3), max_size=30)


@quick
@given(documents, documents)
def test_duplicates_are_those_that_a_counter_finds(train, test):
    found = duplicates(dict(train=of_lists(train), test=of_lists(test)))
    counts = Counter(map(tuple, train))
    assert found["within train"]["repeated"] == sum(n - 1 for n in counts.values())
    assert found["test in train"]["repeated"] == sum(tuple(d) in counts for d in test)


@quick
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=30))
def test_another_class_is_that_of_the_first_such_document(pairs):
    first = {}
    expected = sum(first.setdefault(text, label) != label for text, label in pairs)
    docs = of_lists([[text] for text, _ in pairs], [label for _, label in pairs])
    assert duplicates(dict(train=docs))["within train"]["other class"] == expected


@quick
@given(st.lists(st.integers(0, 9)), st.lists(st.integers(0, 9)))
def test_the_first_equal_row(prints, among):
    found = first_equal(np.array(prints, dtype=np.uint64), np.array(among, dtype=np.uint64)).tolist()
    assert found == [among.index(p) if p in among else -1 for p in prints]


def test_a_fingerprint_knows_where_a_document_ends():
    assert len(set(fingerprints(of_lists([[1, 2], [1], [2], [2, 1], [], [1, 2, 0]])).tolist())) == 6


# --- text ---

def test_a_table_is_aligned_and_has_thousands_separators():
    assert table("t", {"a": {"n": 1234567, "%": 1.005}, "long": {"%": 99.0}}).splitlines() == [
        "t             n      %", "a     1,234,567   1.00", "long             99.00"]


def test_a_long_name_is_cut_to_the_width():
    lines = table("t", {"x" * 200: {"n": 1}}).splitlines()
    assert all(len(line) == WIDTH for line in lines) and lines[1].endswith("x  1")


@pytest.mark.parametrize("token, text", [("a", "a"), ("\n\n", r"\n\n"), ("\x1b", r"\x1b"), ("é", "é")])
def test_a_token_can_be_printed(token, text): assert (shown(token), shown(token, True)) == (text, f"«{text}»")


def test_examples_are_drawn_by_seed_and_mark_the_unknown(small):
    vocab = small.vocab(["train"], 11, 2)
    drawn = examples(small, vocab, 9, 0)
    assert len(drawn) == 5 and "document 2, good, 2 tokens\n  a b" in drawn
    assert "document 4, bad, 6 tokens\n  xxmaj a «,» b «c» «!»" in drawn
    assert examples(small, vocab, 2, 1) == examples(small, vocab, 2, 1)
    assert len({tuple(examples(small, vocab, 2, seed)) for seed in range(9)}) > 1


def test_the_report_fits_its_width(tmp_path):
    classes = [f"class {i} of a name that is long " * 5 for i in range(60)]
    docs = [(" ".join(["word\n", "w" * 300, *"abc"] * 99), i) for i in range(60)]
    corpus = corpus_of(tmp_path / "c", classes, train=docs * 2, test=docs, valid=docs, unsup=[("a", None)])
    text = report(corpus, corpus.vocab(["train"], 11, 2), documents=3)
    assert max(map(len, text.splitlines())) <= WIDTH and text == text.rstrip()
    assert "… and 20 more classes" in text and " …" in text
    for figure in ("59,400", "120", "test in train"): assert figure in text


def test_the_report_without_documents_or_classes(tmp_path):
    corpus = corpus_of(tmp_path / "c", train=[("a b", None)])
    text = report(corpus, corpus.vocab(["train"], 100, 1), documents=0)
    assert "classes" not in text and "documents of train" not in text and "11 tokens" in text


# --- the picture ---

def test_a_picture_is_written(small, tmp_path):
    pytest.importorskip("matplotlib")
    small.name, small.classes = "a $name$ with \\signs$", ["$x^", "b" * 99]
    draw(small, small.vocab(["train"], 11, 2), tmp_path / "new/p.png")
    assert (tmp_path / "new/p.png").read_bytes()[:4] == b"\x89PNG"
    assert "matplotlib.pyplot" not in sys.modules


def test_a_picture_of_a_corpus_without_classes(tmp_path):
    pytest.importorskip("matplotlib")
    corpus = corpus_of(tmp_path / "c", train=[("a b", None)])
    draw(corpus, corpus.vocab(["train"], 100, 1), tmp_path / "p.svg")
    assert "<svg" in (tmp_path / "p.svg").read_text()


def test_a_picture_of_an_unknown_form_is_refused(small, tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(CliError, match="p.abc"): draw(small, small.vocab(["train"], 11, 2), tmp_path / "p.abc")


def test_a_picture_without_matplotlib_says_what_to_install(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(CliError, match="pip install matplotlib"): draw(small, small.vocab(["train"], 11, 2), Path("p"))
