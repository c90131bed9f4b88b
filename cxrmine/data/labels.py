"""What the rows of a table say of findings, in words or in numbers, and what that makes of an image."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cxrmine.data.assemble import struct_of
from cxrmine.data.columns import Columns, codes, is_number, wrong_value
from cxrmine.data.drawn.sheet import Sheet
from cxrmine.data.index import UNMENTIONED
from cxrmine.data.words import is_normal, plain
from cxrmine.errors import CxrError

SEPARATORS = "|;,"  # of these, the first that the column has
AROUND = " []'\""  # a list as Python writes it
MOST_FINDINGS = 500
WEIGHT = np.array([UNMENTIONED, 0, -1, 1], dtype=np.int8)  # of what several rows say, the last counts

Labels = npt.NDArray[np.int8]
Ints = npt.NDArray[np.int64]


def findings_of_rows(sheet: Sheet, columns: Columns) -> tuple[tuple[str, ...], Labels, tuple[str, ...]]:
    """Findings, rows × findings (1, 0, -1, UNMENTIONED), and a note where No Finding stands beside a finding."""
    findings, values, torn = _in_words(sheet, columns.text) if columns.text else _in_numbers(sheet, columns.flags)
    note = f"rows that say there is no finding, beside a finding, which then counts: {torn:,}"
    return findings, values, (note,) * bool(torn)


def of_images(findings: Sequence[str], values: Labels, at: Ints, images: int) -> Mapping[str, pa.Array]:
    """Labels of images from those of their rows; `at`: the image of each row."""
    rank = np.zeros((images, len(findings)), dtype=np.int8)
    for column in range(len(findings)):
        places = (values[:, column, None] == WEIGHT).argmax(axis=1).astype(np.int8)
        np.maximum.at(rank[:, column], at, places)
    return struct_of(findings, WEIGHT[rank])


def _in_words(sheet: Sheet, name: str) -> tuple[tuple[str, ...], Labels, int]:
    encoded = sheet.text(name).dictionary_encode()
    texts = encoded.dictionary.to_pylist()
    separator = next((mark for mark in SEPARATORS if any(mark in text for text in texts)), SEPARATORS[0])
    said = [[word for part in text.split(separator) if (word := part.strip(AROUND))] for text in texts]
    for text, words in zip(texts, said, strict=True):
        if strange := next((word for word in words if is_number(word) or plain(word) in ("u", "uncertain")), ""):
            row = sheet.row[pc.index(sheet.text(name), text).as_py()]
            raise CxrError(
                f"{sheet.where}: {name} has {strange!r} in row {row}, which is no finding.",
                "Write the names of findings, or give each finding a column and name them: --columns findings=A,B.",
            )
    sets = [{word for word in words if not is_normal(word)} for words in said]
    findings = tuple(sorted(set().union(*sets)))
    if len(findings) > MOST_FINDINGS:
        raise CxrError(
            f"{sheet.where}: {name} has {len(findings):,} different findings, as free text has.",
            "Name the column of findings: --columns findings=THEIRS.",
        )
    table = np.array([[f in words for f in findings] for words in sets], dtype=np.int8).reshape(-1, len(findings))
    table[[not words for words in said]] = UNMENTIONED
    table = np.vstack([table, np.full((1, len(findings)), UNMENTIONED, np.int8)])  # an empty field: place -1
    row = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    torn = np.array([bool(one) and any(map(is_normal, words)) for one, words in zip(sets, said, strict=True)] + [False])
    return findings, table[row], int(torn[row].sum())


def _in_numbers(sheet: Sheet, names: Sequence[str]) -> tuple[tuple[str, ...], Labels, int]:
    normal = np.zeros(len(sheet.row), dtype=bool)
    columns: dict[str, Labels] = {}
    for name in names:
        values = _numbers(sheet, name)
        if is_normal(name):
            normal |= values == 1
        else:
            columns[name] = values
    if not columns:
        raise CxrError(f"{sheet.where}: no finding beside {', '.join(names)}.", "Name them: --columns findings=A,B.")
    table = np.column_stack(list(columns.values()))
    table[normal[:, None] & (table == UNMENTIONED)] = 0
    return tuple(columns), table, int((normal & (table == 1).any(axis=1)).sum())


def _numbers(sheet: Sheet, name: str) -> Labels:
    meaning, encoded = codes(sheet.text(name))
    for text, code in meaning.items():
        if code is None:
            raise wrong_value(sheet, name, text)
    known = np.array([*meaning.values(), UNMENTIONED], dtype=np.int8)
    return known[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]
