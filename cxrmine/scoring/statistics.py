"""Intervals: over repeated runs by Student's t, over patients by the bootstrap; and p-values with their correction."""

import math
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from cxrmine import cores

BLOCK = 64  # bootstrap samples at a time
Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]

# Two-sided 95 % quantiles of Student's t for 1 to 30 degrees of freedom.
T_95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, and the ends of its 95 % t-interval; one value alone has no interval (NaN)."""
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return mean, math.nan, math.nan
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    half = T_95[min(n - 1, len(T_95)) - 1] * spread / math.sqrt(n)
    return mean, mean - half, mean + half


def draws(units: int, samples: int, seed: int) -> Iterator[Floats32]:
    """Bootstrap samples of `units` things (patients): blocks of b×units, how often each was drawn.

    Sample k is the same whatever the block, the number of samples and what is measured: two methods can be paired.
    """
    for start in range(0, samples, BLOCK):
        if cores.stopped.is_set():
            raise InterruptedError("stopped")
        block = np.empty((min(BLOCK, samples - start), units), np.float32)
        for k, row in enumerate(block, start=start):
            row[:] = np.bincount(np.random.default_rng([seed, k]).integers(0, units, units), minlength=units)
        yield block


def interval(samples: Floats32) -> tuple[Floats, Floats]:
    """The 2.5 and 97.5 percentiles of each column; a sample in which a figure cannot be had (NaN) is left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column of nothing but NaN stays NaN
        low, high = np.nanpercentile(samples, [2.5, 97.5], axis=0)
    return low, high


def p_values(differences: Floats32) -> Floats:
    """Two-sided, of each column of bootstrapped differences: twice the smaller share of samples on one side of 0.

    A sample at 0 is on both sides, and one is added to either count: with 1,000 samples no p is below 0.002.
    """
    counted = np.isfinite(differences).sum(axis=0)
    below, above = (differences <= 0).sum(axis=0), (differences >= 0).sum(axis=0)
    p = np.minimum(2 * (np.minimum(below, above) + 1) / (counted + 1), 1)
    return np.where(counted > 0, p, np.nan)


def holm(p: npt.ArrayLike) -> Floats:
    """Holm's step-down correction of a family of p-values; NaN stays NaN and does not count to the family."""
    values = np.asarray(p, dtype=np.float64)
    known = np.flatnonzero(np.isfinite(values))
    order = known[np.argsort(values[known], kind="stable")]
    result = np.full(values.shape, np.nan)
    result[order] = np.minimum(np.maximum.accumulate(values[order] * np.arange(len(order), 0, -1)), 1)
    return result
