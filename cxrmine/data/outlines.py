"""The masks of an index's organs as they lie in the network's input, each read once."""

from collections.abc import Sequence

import numpy as np

from cxrmine.data.encoded import Unreadable
from cxrmine.data.images import Geometry
from cxrmine.data.index import Index
from cxrmine.data.organs import fitted_mask
from cxrmine.errors import CxrError


class Outlines:
    """Of an index whose findings are organs. What was read stays in memory, a bit a pixel: such datasets are small."""

    def __init__(self, index: Index, size: int) -> None:
        assert index.organs is not None
        self.root, self.findings, self.size = index.root, index.findings, size
        self.images = index.table["image_id"].to_pylist()
        named = index.organs.select(["image_id", "organ", "path"]).to_pylist()
        self.paths = {(row["image_id"], row["organ"]): row["path"] for row in named}
        self.read: dict[tuple[int, int], np.ndarray] = {}

    def of(self, rows: Sequence[int] | np.ndarray, geometries: Sequence[Geometry]) -> np.ndarray:
        """N×C×S×S uint8, 1 inside; 0 where there is no mask, which the label tells apart."""
        masks = np.zeros((len(rows), len(self.findings), self.size, self.size), np.uint8)
        for i, (row, geometry) in enumerate(zip(rows, geometries, strict=True)):
            for c in range(len(self.findings)):
                masks[i, c] = self._mask(int(row), c, geometry)
        return masks

    def _mask(self, row: int, organ: int, geometry: Geometry) -> np.ndarray:
        path = self.paths.get((self.images[row], self.findings[organ]))
        if path is None:
            return np.zeros((self.size, self.size), np.uint8)
        if (row, organ) not in self.read:
            try:
                mask = fitted_mask(self.root / path, geometry)
            except Unreadable as fault:
                raise CxrError(f"The mask {path} cannot be read: {fault.why}.", "Mend it, or remove it.") from None
            self.read[row, organ] = np.packbits(mask > 0.5)
        return np.unpackbits(self.read[row, organ], count=self.size**2).reshape(self.size, self.size)
