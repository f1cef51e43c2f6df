"The model in the box: how it is measured for its card."
import math

import numpy as np
import pytest
from experiments.release import spelling, spelling_bits


def test_unknown_words_are_spelt_by_how_often_their_characters_occur():
    "aab ×2, b ×1: a 4, b 3, ends 3; with one more of each and one for what was never seen, of 14."
    lexicon, frequency = ["aab", "xxmaj", "b"], np.array([2, 9, 1])  # a mark is no word
    total = 4 + 3 + 3 + 3 + 1
    bits = dict(a=math.log2(total / 5), b=math.log2(total / 4), z=math.log2(total), end=math.log2(total / 4))
    found = spelling_bits(["ab", "z"], np.array([3, 1]), spelling(lexicon, frequency))
    assert found == pytest.approx(3 * (bits["a"] + bits["b"] + bits["end"]) + bits["z"] + bits["end"])


def test_characters_ends_and_the_unseen_share_one_certainty():
    spelt = spelling(["abc", "ca"], np.array([5, 2]))
    assert sum(2 ** -(spelt(c) - spelt("")) for c in "abcz") + 2 ** -spelt("") == pytest.approx(1)


def test_nothing_unknown_costs_nothing(): assert spelling_bits([], np.zeros(0), spelling(["a"], np.array([1]))) == 0
