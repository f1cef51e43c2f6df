"Batches: no token of a stream is lost or repeated, no document goes astray, and a batch depends on its number only."
from collections import Counter

import numpy as np
import pytest
import torch
from corpora import says
from hypothesis import given, settings, strategies as st
from ulmfit.corpus.buckets import DocumentBatches
from ulmfit.corpus.store import Documents
from ulmfit.corpus.stream import IGNORE, LanguageModelStream, Windows

PAD = 1
quick = settings(deadline=None, max_examples=80)


def distinct(lengths: list[int], first: int = 10) -> Documents:
    "Documents of these lengths in which every token of the corpus is another: a token tells where it stands."
    ids = first + np.arange(sum(lengths), dtype=np.uint32)
    return Documents(ids, np.cumsum([0, *lengths]), labels=np.arange(len(lengths)) % 3)


def lists(docs: Documents) -> list[list[int]]: return [docs[i].tolist() for i in range(len(docs))]


def reversed_after_first(document: list[int]) -> list[int]: return document[:1] + document[1:][::-1]


def joined(documents: list[list[int]]) -> list[int]: return [token for d in documents for token in d]


# --- the language model's stream ---

@st.composite
def streams(draw, **fixed):
    "Any documents with two tokens or more together, any batch, window and order; and an epoch."
    lengths = draw(st.lists(st.integers(0, 12), min_size=1, max_size=8).filter(lambda ns: sum(ns) > 1))
    windows = Windows(draw(st.integers(1, 9)), draw(st.sampled_from(["fixed", "merity"])))
    how = dict(batch=draw(st.integers(1, 10)), windows=windows, shuffle=draw(st.booleans()),
               backwards=draw(st.booleans()), seed=draw(st.integers(0, 3))) | fixed
    stream = LanguageModelStream(distinct(lengths), **how)
    stream.stretch = draw(st.sampled_from([0, 5, stream.stretch]))
    return stream, distinct(lengths), draw(st.integers(0, 3))


def pairs(batches) -> list[tuple[int, int]]:
    "The (token, next token) pairs that are learnt from."
    return [(a, b) for x, y in batches for a, b in zip(x.flatten().tolist(), y.flatten().tolist()) if b != IGNORE]


@quick
@given(streams())
def test_every_pair_of_neighbours_once(made):
    "Followed from pair to pair, the stream is the documents one after another, in some order where they are shuffled."
    stream, docs, epoch = made
    expected = [d for d in map(reversed_after_first if stream.backwards else list, lists(docs)) if d]
    found = pairs(stream.batches(epoch))
    follows = dict(found)
    assert len(found) == len(follows) == sum(map(len, expected)) - 1
    at, order = (set(follows) - set(follows.values())).pop(), []
    while at is not None:
        order.append(at)
        at = follows.get(at)
    if stream.shuffle: expected.sort(key=lambda d: order.index(d[0]))
    assert order == joined(expected)


@quick
@given(streams(shuffle=False), st.integers(2, 4))
def test_the_pairs_of_a_text_with_repeated_tokens(made, words):
    "As a multiset, now that a token stands at many places; unshuffled, so that the order is known."
    stream, docs, epoch = made
    numbering = np.arange(200) % words + 10
    stream.docs = stream.docs.through(numbering)
    text = joined([reversed_after_first(d) if stream.backwards else d for d in lists(docs.through(numbering))])
    assert Counter(pairs(stream.batches(epoch))) == Counter(zip(text, text[1:]))


@quick
@given(streams())
def test_targets_are_the_inputs_shifted_and_columns_go_on(made):
    stream, _, epoch = made
    x, y = (torch.cat(parts) for parts in zip(*stream.batches(epoch)))
    assert x.shape == y.shape == (stream.steps, stream.batch)
    assert torch.equal(x[1:], y[:-1])


@quick
@given(streams())
def test_only_the_last_target_of_a_column_can_be_missing(made):
    stream, _, epoch = made
    y = torch.cat([y for _, y in stream.batches(epoch)])
    assert not (y[:-1] == IGNORE).any()


@quick
@given(streams())
def test_a_stream_goes_on_from_any_batch(made):
    stream, _, epoch = made
    whole = list(stream.batches(epoch))
    for start in range(len(whole) + 1):
        tail = list(stream.batches(epoch, start))
        assert len(tail) == len(whole) - start
        assert all(torch.equal(a, b) for got, batch in zip(tail, whole[start:]) for a, b in zip(got, batch))


@quick
@given(streams())
def test_window_lengths_are_those_announced(made):
    stream, _, epoch = made
    assert [len(x) for x, _ in stream.batches(epoch)] == stream.lengths(epoch)


def test_fixed_windows_are_all_of_one_length_but_the_last():
    assert LanguageModelStream(distinct([30, 14]), 4, Windows(3)).lengths(0) == [3, 3, 3, 2]


def test_drawn_windows_are_merityss():
    "95% around bptt, 5% around its half, deviation 5."
    lengths = Windows(70, "merity").lengths(70 * 4000, np.random.default_rng(0))
    assert sum(lengths) == 70 * 4000
    short = [n for n in lengths[:-1] if n < 52.5]
    long = [n for n in lengths[:-1] if n > 52.5]
    assert 0.03 < len(short) / len(lengths) < 0.07
    assert np.mean(short) == pytest.approx(34.5, abs=2)  # int() rounds down
    assert np.mean(long) == pytest.approx(69.5, abs=0.5)
    assert np.std(long) == pytest.approx(5, abs=0.3)


def test_no_drawn_window_is_below_five_but_the_last():
    lengths = Windows(8, "merity").lengths(4001, np.random.default_rng(0))
    assert min(lengths[:-1]) == 5 and sum(lengths) == 4001


def inputs(docs: Documents, epoch: int = 0, **how) -> list[int]:
    return [t for x, _ in LanguageModelStream(docs, 3, Windows(5), **how).batches(epoch) for t in x.flatten().tolist()]


def test_the_same_seed_and_epoch_give_the_same_order():
    a, b = (inputs(distinct([4] * 20), 1, shuffle=True, seed=5) for _ in range(2))
    assert a == b


@pytest.mark.parametrize("epoch, seed", [(2, 5), (1, 6)], ids=["epoch", "seed"])
def test_another_epoch_or_seed_gives_another_order(epoch, seed):
    docs = distinct([4] * 20)
    assert inputs(docs, epoch, shuffle=True, seed=seed) != inputs(docs, 1, shuffle=True, seed=5)


def test_unshuffled_epochs_are_the_same():
    assert inputs(distinct([4] * 20), 0) == inputs(distinct([4] * 20), 1)


def test_backwards_keeps_the_first_token_first_and_reverses_the_rest():
    x, y = next(LanguageModelStream(distinct([4, 1, 3]), 1, Windows(99), backwards=True).batches())
    assert [*x.flatten().tolist(), y[-1].item()] == [10, 13, 12, 11, 14, 15, 17, 16]


def test_a_stream_of_one_token_is_refused():
    with says("two tokens"): LanguageModelStream(distinct([0, 1]), 4)


# --- batches of whole documents ---

@st.composite
def splits(draw):
    "A view of a split: some of its documents, in another order, empty ones among them."
    docs = distinct(draw(st.lists(st.integers(0, 15), min_size=1, max_size=25)))
    rows = draw(st.permutations(range(len(docs))))
    return docs.select(rows[draw(st.integers(0, min(2, len(docs) - 1))):])


in_training = dict(docs=splits(), batch=st.integers(2, 6), seed=st.integers(0, 3), epoch=st.integers(0, 3))


@quick
@given(**in_training, shuffle=st.booleans(), tokens=st.none() | st.integers(1, 60))
def test_every_document_is_in_one_batch(docs, batch, seed, epoch, shuffle, tokens):
    plan = DocumentBatches(docs, PAD, batch, tokens, shuffle, seed=seed).plan(epoch)
    assert sorted(np.concatenate(plan).tolist()) == list(range(len(docs)))


@quick
@given(n=st.integers(2, 330), batch=st.integers(2, 7), data=st.data())
def test_no_batch_of_training_has_a_single_document(n, batch, data):
    "Batch norm needs two."
    docs = distinct(data.draw(st.sampled_from([[3] * n, list(range(n))])))
    assert min(len(rows) for rows in DocumentBatches(docs, PAD, batch, shuffle=True).plan()) >= 2


@quick
@given(n=st.integers(1, 330), batch=st.integers(2, 7))
def test_batches_of_training_are_of_about_the_size_asked_for(n, batch):
    "At most one document more."
    sizes = [len(rows) for rows in DocumentBatches(distinct([3] * n), PAD, batch, shuffle=True).plan()]
    assert max(sizes) <= batch + 1 and min(sizes) >= max(sizes) // 2


@quick
@given(docs=splits(), batch=st.integers(1, 8), tokens=st.integers(1, 60))
def test_training_keeps_within_its_tokens_with_two_documents_at_least(docs, batch, tokens):
    "More by a document at most."
    for rows in (plan := DocumentBatches(docs, PAD, batch, tokens, shuffle=True).plan()):
        assert len(rows) <= 3 or (len(rows) - 1) * docs.lengths[rows].max() <= tokens
    assert len(docs) < 2 or min(map(len, plan)) >= 2


def test_only_what_is_kept_of_a_long_document_counts():
    docs = distinct([1000, 900, 30, 20])
    assert [len(rows) for rows in DocumentBatches(docs, PAD, 4, 80, longest=20).plan()] == [4]
    assert [len(rows) for rows in DocumentBatches(docs, PAD, 4, 80).plan()] == [1, 1, 2]


@quick
@given(docs=splits(), batch=st.integers(1, 8), tokens=st.integers(1, 60))
def test_evaluation_keeps_within_its_tokens(docs, batch, tokens):
    "Padding counted; but for a document that is alone."
    for b in DocumentBatches(docs, PAD, batch, tokens).batches():
        assert b.ids.shape[1] <= batch and (b.ids.numel() <= tokens or b.ids.shape[1] == 1)


@quick
@given(docs=splits(), batch=st.integers(1, 8), tokens=st.none() | st.integers(1, 60))
def test_evaluation_begins_with_the_longest(docs, batch, tokens):
    longest = [b.lengths.max().item() for b in DocumentBatches(docs, PAD, batch, tokens).batches()]
    assert longest == sorted(longest, reverse=True)


@quick
@given(**in_training, shuffle=st.booleans(), backwards=st.booleans())
def test_ids_lengths_and_targets_are_those_of_their_document(docs, batch, seed, epoch, shuffle, backwards):
    "Padded at the end; an empty document is one pad."
    expected = [(reversed_after_first(d) if backwards else d) or [PAD] for d in lists(docs)]
    for b in DocumentBatches(docs, PAD, batch, None, shuffle, backwards, seed).batches(epoch):
        assert b.lengths.tolist() == [len(expected[i]) for i in b.rows]
        assert b.targets.tolist() == [docs.labels[docs.rows[i]] for i in b.rows]
        for j, i in enumerate(b.rows):
            assert b.ids[:, j].tolist() == expected[i] + [PAD] * (len(b.ids) - len(expected[i]))


def test_documents_without_labels_have_no_targets():
    docs = distinct([2, 3])
    docs.labels = None
    assert all(b.targets is None for b in DocumentBatches(docs, PAD).batches())


@quick
@given(**in_training)
def test_document_batches_go_on_from_any_batch(docs, batch, seed, epoch):
    made = DocumentBatches(docs, PAD, batch, shuffle=True, seed=seed)
    whole = [b.rows.tolist() for b in made.batches(epoch)]
    for start in range(len(whole) + 1): assert [b.rows.tolist() for b in made.batches(epoch, start)] == whole[start:]


def plan(epoch: int, seed: int) -> list[list[int]]:
    docs = distinct([3] * 40)
    return [rows.tolist() for rows in DocumentBatches(docs, PAD, 4, shuffle=True, seed=seed).plan(epoch)]


def test_the_same_seed_and_epoch_give_the_same_batches(): assert plan(1, 5) == plan(1, 5)


@pytest.mark.parametrize("epoch, seed", [(2, 5), (1, 6)], ids=["epoch", "seed"])
def test_another_epoch_or_seed_gives_other_batches(epoch, seed): assert plan(epoch, seed) != plan(1, 5)


def test_documents_of_like_length_go_together():
    "Within a pool of 50 batches: no length of one batch lies strictly inside the range of another."
    docs = distinct(np.random.default_rng(0).integers(1, 100, 200).tolist())
    batches = DocumentBatches(docs, PAD, 4, shuffle=True).plan()
    ranges = sorted((docs.lengths[rows].min(), docs.lengths[rows].max()) for rows in batches)
    assert all(a_high <= b_low for (_, a_high), (b_low, _) in zip(ranges, ranges[1:]))
