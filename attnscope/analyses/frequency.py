"""Frequency chunks from their agreement: which dominate, how much is low frequency, what two tasks share."""

from __future__ import annotations

import numpy as np


def dominant_chunks(agreement: np.ndarray, n: int | None = None) -> np.ndarray:
    """Return every head's chunks in order of agreement, largest first, of equals the lowest index (2602.03152).

    Args:
        agreement: `[..., C]` contextual agreement; NaN where it was not measured.
        n: how many; None means all.

    Returns:
        numpy.ndarray: `[..., n]` integers; -1 throughout where a head was not measured.

    Example:
        >>> dominant_chunks(np.array([[0.1, 0.6, 0.3], [np.nan] * 3]), 2).tolist()
        [[1, 2], [-1, -1]]
    """
    order = np.argsort(-agreement, axis=-1, kind="stable")[..., :n]
    return np.where(np.isnan(agreement).any(-1, keepdims=True), -1, order)


def dominant_share(agreement: np.ndarray, threshold: float) -> float:
    """Return the share of all measured chunks whose agreement exceeds the threshold, strict; NaN without any.

    Example:
        >>> dominant_share(np.array([0.1, 0.2, 0.15, np.nan]), 0.15)
        0.3333333333333333
    """
    measured = agreement[~np.isnan(agreement)]
    return float((measured > threshold).mean()) if measured.size else float("nan")


def low_frequency_share(agreement: np.ndarray, chance: np.ndarray, wavelengths: np.ndarray, context: int) -> np.ndarray:
    """Return how much of each head's agreement above chance lies in chunks that turn less than once in the prompt.

    Such a chunk's partial logit says little about where a key stands, so what it picks is content; a chunk that turns
    many times tells positions apart. This is about which chunks find the keys; it is not the score
    `positional_share`, which is about how far distance alone explains attention.

    Args:
        agreement: `[L, H, C]` contextual agreement, 0..1.
        chance: `[L]` agreement of random keys, 0..1.
        wavelengths: `[L, C]` tokens of a full turn; infinite for dimensions that never turn, NaN where unknown.
        context: tokens of a prompt.

    Returns:
        numpy.ndarray: `[L, H]` 0..1; NaN where no chunk is above chance, or something is unknown.

    Example:
        >>> low_frequency_share(np.array([[[0.4, 0.7]]]), np.array([0.1]), np.array([[6.0, 9999.0]]), 512)
        array([[0.66666667]])
    """
    above = np.clip(agreement - chance[:, None, None], 0, None)
    slow = np.where(np.isnan(wavelengths), np.nan, wavelengths > context)[:, None]
    total = above.sum(-1)
    return np.divide((above * slow).sum(-1), total, out=np.full_like(total, np.nan), where=total > 0)


def overlap(chosen: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return |A ∩ B| / N of two sets of N chunks; NaN where either was not measured.

    Args:
        chosen: `[..., N]` chunks, -1 where a head was not measured.
        other: likewise.

    Example:
        >>> overlap(np.array([[1, 2], [3, 4]]), np.array([[2, 5], [-1, -1]]))
        array([0.5, nan])
    """
    common = (chosen[..., :, None] == other[..., None, :]).any(-1).mean(-1)
    return np.where((chosen < 0).any(-1) | (other < 0).any(-1), np.nan, common)


def overlap_by_chance(n: int, chunks: int) -> float:
    """Return the overlap of two random sets: their common chunks are hypergeometric with mean N² / C.

    Example:
        >>> overlap_by_chance(8, 32)
        0.25
    """
    return n / chunks


def kv_head_agreement(agreement: np.ndarray, group_size: int) -> np.ndarray:
    """Return `[L, G, C]`: the mean agreement of the query heads that share a KV head, from `[L, H, C]`.

    A decoder that loads one set of chunks for a KV head ranks by this; the paper ranks by query head.

    Example:
        >>> kv_head_agreement(np.array([[[0.2], [0.4]]]), 2).tolist()
        [[[0.30000000000000004]]]
    """
    layers, heads, chunks = agreement.shape
    means: np.ndarray = agreement.reshape(layers, heads // group_size, group_size, chunks).mean(2)
    return means
