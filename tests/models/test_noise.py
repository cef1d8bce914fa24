"""The numbers are those that were published for the generator, and belong to their places."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_sr.models.noise import philox, voxel_noise

#: Counter, key and result, from the tests of Random123 (kat_vectors, philox4x32 10).
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def numbers(words):
    return tuple(int(word, 16) for word in words.split())


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_the_generator_is_the_published_one(counter, key, words):
    found = philox(tuple(np.array([word], np.uint64) for word in numbers(counter)), numbers(key))
    assert tuple(int(word[0]) for word in found) == numbers(words)


@settings(max_examples=20, deadline=None)
@given(st.tuples(*[st.integers(-1000, 1000)] * 3), st.tuples(*[st.integers(1, 5)] * 3), st.integers(0, 2**64 - 1))
def test_a_part_holds_what_the_whole_holds_there(first, shape, seed):
    whole = voxel_noise(tuple(start - 2 for start in first), tuple(n + 3 for n in shape), seed, 1)
    part = whole[2 : 2 + shape[0], 2 : 2 + shape[1], 2 : 2 + shape[2]]
    assert torch.equal(voxel_noise(first, shape, seed, 1), part)


def test_the_numbers_are_normal_and_independent_of_each_other_and_of_other_sets():
    sets = [voxel_noise((-20, 0, 7), (40, 40, 40), seed, number) for seed, number in ((0, 0), (0, 1), (1, 0))]
    for noise in sets:
        moments = [float((noise**power).mean()) for power in (1, 2, 3, 4)]
        np.testing.assert_allclose(moments, [0, 1, 0, 3], atol=0.12)
        assert noise.abs().max() < 6.8
        neighbours = [float((noise * noise.roll(1, axis)).mean()) for axis in range(3)]
        np.testing.assert_allclose(neighbours, 0, atol=0.02)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert abs(float((sets[one] * sets[other]).mean())) < 0.02
