"What is held out and what is labelled, by seed."
import numpy as np
import pytest
from corpora import says
from hypothesis import given, settings, strategies as st
from ulmfit.corpus.store import Documents, hold_out, sample_labelled, with_held_out

quick = settings(deadline=None, max_examples=50)


def labelled(labels: list[int]) -> Documents:
    return Documents(np.arange(len(labels)), np.arange(len(labels) + 1), np.asarray(labels, dtype=np.int32))


label_lists = st.lists(st.integers(0, 4), min_size=2, max_size=80)


@quick
@given(label_lists, st.floats(0, 0.9), st.integers(0, 5))
def test_a_document_is_kept_or_held_out(labels, fraction, seed):
    kept, held = hold_out(labelled(labels), fraction, seed)
    assert sorted([*kept, *held]) == list(range(len(labels)))
    assert len(held) or len(set(labels)) == len(labels)


@quick
@given(label_lists, st.integers(0, 5))
def test_the_one_that_is_held_out_at_least_is_no_classs_only_one(labels, seed):
    kept, _ = hold_out(labelled(labels), 0, seed)
    assert {labels[i] for i in kept} == set(labels)


@quick
@given(label_lists, st.floats(0, 1), st.integers(0, 5))
def test_of_each_class_the_same_share_is_held_out(labels, fraction, seed):
    _, held = hold_out(labelled(labels), fraction, seed)
    if sum(shares := [round(labels.count(c) * fraction) for c in range(5)]):
        assert [sum(labels[i] == c for i in held) for c in range(5)] == shares


def test_the_same_seed_holds_out_the_same_documents():
    (a, b), (c, d), (_, e) = (hold_out(labelled([0, 1] * 50), 0.2, seed) for seed in (3, 3, 4))
    assert np.array_equal(a, c) and np.array_equal(b, d) and not np.array_equal(b, e)


def test_what_is_held_out_is_said(capsys):
    splits = with_held_out(dict(train=labelled([0, 1] * 10)), "valid", 0.2, 7)
    assert (len(splits["train"]), len(splits["valid"])) == (16, 4)
    assert "".join(capsys.readouterr()) == "no valid split: 4 of 20 training documents are held out (seed 7)\n"


def test_a_split_that_is_there_stays(capsys):
    there = dict(train=labelled([0, 1]), valid=labelled([1]))
    assert with_held_out(there, "valid", 0.2, 7) is there and not capsys.readouterr().out


@quick
@given(label_lists, st.data())
def test_a_labelled_sample_has_the_size_asked_for_and_every_class(labels, data):
    n = data.draw(st.integers(len(set(labels)), len(labels)))
    rows = sample_labelled(labelled(labels), n, 0)
    assert len(set(rows)) == len(rows) == n and {labels[i] for i in rows} == set(labels)


def test_a_labelled_sample_has_the_classes_in_proportion():
    rows = sample_labelled(labelled([0] * 60 + [1] * 30 + [2] * 10), 20, 0)
    assert np.bincount(np.repeat([0, 1, 2], [60, 30, 10])[rows]).tolist() == [12, 6, 2]


def test_many_small_classes_take_from_all_large_ones():
    "The two large classes keep their proportion to each other."
    sizes = [400, 200, *[2] * 48]
    rows = sample_labelled(labelled(np.repeat(np.arange(50), sizes).tolist()), 68, 0)
    assert np.bincount(np.repeat(np.arange(50), sizes)[rows]).tolist() == [13, 7, *[1] * 48]


def test_the_same_seed_gives_the_same_sample():
    a, b, c = (sample_labelled(labelled([0, 1] * 50), 20, seed).tolist() for seed in (3, 3, 4))
    assert a == b != c


@pytest.mark.parametrize("n, wrong", [(1, "at least 2"), (5, "4 are there")])
def test_a_sample_that_cannot_be_is_an_error(n, wrong):
    with says(wrong): sample_labelled(labelled([0, 1, 0, 1]), n, 0)
