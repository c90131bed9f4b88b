"""Erasure masks on disk: what is read is what was found, whoever found it, and nothing else is taken for masks."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxrmine.boxes.masks import Masks, gather, read_masks, write_masks
from cxrmine.errors import CxrError

PAIRS = [("b.png", "Mass"), ("a.png", "Nodule"), ("a.png", "Mass")]


def packed(pairs: list[tuple[str, str]], masks: list[np.ndarray], shape: tuple[int, int]) -> Masks:
    return gather(pairs, [np.packbits(mask) for mask in masks], shape)


def found(shape: tuple[int, int]) -> list[np.ndarray]:
    """A mask a pair; no two are alike."""
    return [np.random.default_rng(i).random(shape) < 0.5 for i in range(len(PAIRS))]


def test_a_bit_a_cell_by_hand() -> None:
    """3×3: the cells in row order, eight a byte, the first the highest bit; the ninth opens a second byte."""
    mask = np.array([[1, 1, 0], [0, 1, 1], [1, 1, 1]], bool)
    masks = packed([("a.png", "Mass")], [mask], (3, 3))
    assert masks.kept.tolist() == [[0b11001111, 0b10000000]]
    assert np.array_equal(masks.unpack([0]), mask[None])


@pytest.mark.parametrize("shape", [(4, 4), (5, 5), (1, 7), (3, 8), (1, 1)])
def test_read_is_what_was_written(tmp_path: Path, shape: tuple[int, int]) -> None:
    path, kept = tmp_path / "rounds" / "1.masks.parquet", found(shape)
    write_masks(path, packed(PAIRS, kept, shape))
    masks = read_masks(path)
    assert masks.shape == shape
    assert masks.pairs == sorted(PAIRS)
    assert np.array_equal(masks.unpack([0, 1, 2]), np.stack([kept[2], kept[1], kept[0]]))
    assert np.array_equal(masks.unpack([2, 0]), np.stack([kept[0], kept[2]]))
    assert masks.unpack([]).shape == (0, *shape)


def test_the_order_in_which_masks_were_found_changes_nothing(tmp_path: Path) -> None:
    kept = found((5, 5))
    write_masks(tmp_path / "one.parquet", packed(PAIRS, kept, (5, 5)))
    write_masks(tmp_path / "other.parquet", packed(PAIRS[::-1], kept[::-1], (5, 5)))
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "other.parquet").read_bytes()


def test_no_pairs_are_a_table_too(tmp_path: Path) -> None:
    write_masks(tmp_path / "m.parquet", packed([], [], (5, 5)))
    masks = read_masks(tmp_path / "m.parquet")
    assert masks.pairs == []
    assert masks.unpack([]).shape == (0, 5, 5)


def foreign(kept: pa.Array, **metadata: str) -> pa.Table:
    table = pa.table({"image_id": ["a.png"], "finding": ["Mass"], "kept": kept})
    return table.replace_schema_metadata(metadata)


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"image_id": ["a.png"], "finding": ["Mass"]}),
        foreign(pa.array([b"1234"], pa.binary(4))),  # of what size?
        foreign(pa.array([b"1234"], pa.binary(4)), cells="5"),
        foreign(pa.array([b"1234"], pa.binary(4)), cells="five 5"),
        foreign(pa.array([b"123"], pa.binary(3)), cells="5 5"),  # 25 cells are 4 bytes
        foreign(pa.array([b"1234"], pa.binary()), cells="5 5"),  # of any length
        foreign(pa.array(["1234"]), cells="5 5"),
    ],
)
def test_a_table_of_something_else_is_refused(tmp_path: Path, table: pa.Table) -> None:
    path = tmp_path / "1.masks.parquet"
    pq.write_table(table, path)
    with pytest.raises(CxrError, match=r"1\.masks\.parquet does not hold erasure masks\. Remove it: it is made again"):
        read_masks(path)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "1.masks.parquet"
    write_masks(path, packed(PAIRS, found((5, 5)), (5, 5)))
    whole = path.read_bytes()
    for content in (whole[:100], b"", b"junk"):
        path.write_bytes(content)
        with pytest.raises(CxrError, match=r"does not hold erasure masks\. Remove it"):
            read_masks(path)
    path.write_bytes(whole)
    assert len(read_masks(path).pairs) == 3
