"""The dataset layouts that can be read. A new one is a new file here: SHAPE, recognise(root) and read(root)."""

from pathlib import Path

from cxrmine.data.index import Index
from cxrmine.data.layouts import chestxray14
from cxrmine.errors import CxrError

LAYOUTS = (chestxray14,)


def open_dataset(path: Path) -> Index:
    """The index of the dataset in folder `path`, whatever its layout."""
    if not path.exists():
        raise CxrError(f"There is no dataset folder {path}.", "Name it with --data, or make one with cxrmine phantom.")
    if not path.is_dir():
        raise CxrError(
            f"{path} is a file, not a dataset folder.", "Name the folder that the dataset was unpacked into."
        )
    for layout in LAYOUTS:
        if layout.recognise(path):
            return layout.read(path)
    known = "; ".join(layout.SHAPE for layout in LAYOUTS)
    raise CxrError(f"{path} is in no layout that is known here.", f"Known: {known}.")
