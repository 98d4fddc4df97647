"""Token codes: ±1 words of length 32 that are nearly orthogonal, from traces over GF(32)."""

from __future__ import annotations

from functools import cache

import numpy as np

LENGTH = 32
COHERENCE = 8  # largest |inner product| of two different words
CAPACITY = LENGTH * LENGTH


def _multiply(left: int, right: int) -> int:
    """Multiply in GF(32) = GF(2)[x] / (x^5 + x^2 + 1)."""
    product = 0
    for bit in range(5):
        if right >> bit & 1:
            product ^= left << bit
    for bit in range(8, 4, -1):
        if product >> bit & 1:
            product ^= 0b100101 << (bit - 5)
    return product


def _trace(value: int) -> int:
    total, power = 0, value
    for _ in range(5):
        total ^= power
        power = _multiply(power, power)
    return total & 1


@cache
def all_words() -> np.ndarray:
    """Return the 1024 words `(-1)^Tr(a x^3 + b x)`, `[1024, 32]`: inner products of different words are 0 or ±8.

    Example:
        >>> words = all_words()
        >>> overlaps = np.abs(words @ words.T - LENGTH * np.eye(CAPACITY))
        >>> words.shape, int(overlaps.max())
        ((1024, 32), 8)
    """
    rows = [
        [1 - 2 * _trace(_multiply(a, _multiply(x, _multiply(x, x))) ^ _multiply(b, x)) for x in range(LENGTH)]
        for a in range(LENGTH)
        for b in range(LENGTH)
    ]
    words = np.array(rows, dtype=np.float64)
    words.setflags(write=False)
    return words
