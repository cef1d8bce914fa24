"""Random numbers that belong to voxels: the same for a voxel whatever else is drawn, in whatever order."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: Multipliers and key increments of Philox4x32, and its rounds (Salmon et al. 2011, table 2).
MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
INCREMENTS = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
_WORD, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)

Words = tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]


def philox(counter: Words, key: tuple[int, int]) -> Words:
    """Four random words of 32 bits for each counter of four: Philox4x32-10 (Salmon et al. 2011).

    Parameters
    ----------
    counter : tuple of ndarray of uint64, (4,)
        Words of 32 bits in arrays that can be broadcast to one shape.
    key : tuple of int, (2,)
        Words of 32 bits.
    """
    first, second, third, fourth = counter
    keys = [(key[0] + turn * INCREMENTS[0], key[1] + turn * INCREMENTS[1]) for turn in range(ROUNDS)]
    for one, other in keys:
        left, right = MULTIPLIERS[0] * first, MULTIPLIERS[1] * third
        first, second = (right >> _WORD) ^ second ^ np.uint64(one & 0xFFFFFFFF), right & _LOW
        third, fourth = (left >> _WORD) ^ fourth ^ np.uint64(other & 0xFFFFFFFF), left & _LOW
    return first, second, third, fourth


def voxel_noise(first: tuple[int, int, int], shape: tuple[int, int, int], seed: int, number: int) -> Tensor:
    """Independent standard normal numbers on a part of a grid without end.

    Parameters
    ----------
    first : tuple of int, (3,)
        The first voxel of the part; may be negative.
    shape : tuple of int, (3,)
        Its size (h, w, d).
    seed, number : int
        Of the numbers, and which of their independent sets, not negative.

    Returns
    -------
    noise : Tensor, (h, w, d), float32
        By the transform of Box and Muller (1958); 6.8 at most.
    """
    noise = np.empty(shape, np.float32)
    _, second, third = (_words(start + np.arange(n)) for start, n in zip(first, shape, strict=True))
    key = (seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF)
    # Plane by plane, because words take several times the memory of the result.
    for index in range(shape[0]):
        plane = _words(np.array([first[0] + index, number]))
        words = philox((plane[0], second[:, None], third[None], plane[1]), key)
        radius, turn = ((word.astype(np.float64) + 0.5) / 2**32 for word in words[:2])
        noise[index] = np.sqrt(-2 * np.log(radius)) * np.cos(2 * np.pi * turn)
    return torch.from_numpy(noise)


def _words(numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Whole numbers as words of 32 bits."""
    return (numbers & 0xFFFFFFFF).astype(np.uint64)
