"""Words that mean the same in datasets of many origins."""

import re
from collections.abc import Sequence

from cxrmine.data.assemble import TRAIN_AND_VAL

NORMAL = frozenset({"nofinding", "nofindings", "normal", "none"})
SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
IN_A_PATH = re.compile(r"(?<![a-z])(train(?:ing)?|val(?:id(?:ation)?)?|test(?:ing)?)(?![a-z])")


def plain(text: str) -> str:
    """Without case, blanks and signs: Image Index, image_index and ImageIndex are one."""
    return re.sub(r"[\W_]", "", text.lower())


def is_normal(text: str) -> bool:
    """Whether that is what stands where there is no finding."""
    return plain(text) in NORMAL


def split_in(path: str) -> str | None:
    """The split that the folders and the name of a file speak of, where they speak of one."""
    words = {SPLIT_WORDS[word] for word in IN_A_PATH.findall(path.lower())}
    return words.pop() if len(words) == 1 else None


def with_validation(split: Sequence[str | None]) -> tuple[list[str | None], tuple[str, ...]]:
    """Where images are for training and none for validation, some of the patients of the first become the second."""
    there = {*split} - {None}
    if "train" not in there or "val" in there:
        return list(split), ()
    note = "split: the dataset's own; without validation images in it, by a fixed draw 10 % of the training patients"
    return [TRAIN_AND_VAL if word == "train" else word for word in split], (note,)
