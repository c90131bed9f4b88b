"""Image-level figures: the area under the ROC curve, and the threshold that Youden's index chooses."""

import numpy as np


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """P(score of a positive > score of a negative), ties counted half; NaN where one of the two is missing."""
    positives = int((labels == 1).sum())
    negatives = int((labels == 0).sum())
    if not positives or not negatives:
        return float("nan")
    counted = (labels == 0) | (labels == 1)
    labels, scores = labels[counted], scores[counted]
    _, group, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(sizes)
    ranks = (last - (sizes - 1) / 2)[group]  # 1-based; equal scores share the mean of their ranks
    return float((ranks[labels == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def youden_threshold(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The highest cut that makes sensitivity + specificity of `probability >= cut` largest; 0.5 where none can be."""
    positive, negative = probabilities[labels == 1], probabilities[labels == 0]
    if not len(positive) or not len(negative):
        return 0.5
    cuts = np.unique(probabilities[(labels == 0) | (labels == 1)])[::-1]
    sensitivity = 1 - np.searchsorted(np.sort(positive), cuts, side="left") / len(positive)
    specificity = np.searchsorted(np.sort(negative), cuts, side="left") / len(negative)
    return float(cuts[np.argmax(sensitivity + specificity)])
