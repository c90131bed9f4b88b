"""How two predictions differ: by bootstrap over the same drawn patients, with Holm's correction over findings."""

import numpy as np

from cxrmine.scoring.figures import MEAN, POOLED, Figures, Key
from cxrmine.scoring.statistics import holm, interval, p_values

Differences = dict[Key, dict[str, float | None]]


def differences(first: Figures, other: Figures) -> Differences:
    """Other minus first, of every figure that both have: its interval, p, and p corrected over the findings."""
    keys = [key for key in first.values if key in other.values]
    if not keys or first.samples is None or other.samples is None:
        return {}
    ours, theirs = ({key: k for k, key in enumerate(of.values)} for of in (first, other))
    drawn = other.samples[:, [theirs[key] for key in keys]] - first.samples[:, [ours[key] for key in keys]]
    low, high = interval(drawn)
    p = p_values(drawn)
    corrected = _over_findings(keys, p)
    result: Differences = {}
    for k, key in enumerate(keys):
        by = other.values[key] - first.values[key]
        figures = {"difference": by, "low": low[k], "high": high[k], "p": p[k], "p_holm": corrected[k]}
        result[key] = {name: float(v) if np.isfinite(v) else None for name, v in figures.items()}
    return result


def _over_findings(keys: list[Key], p: np.ndarray) -> np.ndarray:
    """Holm over the findings of one figure; a mean over findings is no member of the family and stays as it is."""
    families: dict[Key, list[int]] = {}
    for k, key in enumerate(keys):
        if key.finding not in (MEAN, POOLED):
            families.setdefault(key._replace(finding=""), []).append(k)
    corrected = p.copy()
    for members in families.values():
        corrected[members] = holm(p[members])
    return corrected
