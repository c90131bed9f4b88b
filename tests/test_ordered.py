"""`ordered`: tables of the same rows become equal, however the rows came together."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrmine.boxes.table import BOX_ORDER, SCHEMA, truth_table
from cxrmine.tables import NAME, build, ordered

PLAIN = pa.schema([("image_id", NAME), ("finding", NAME), ("rank", pa.int16()), ("score", pa.float32())])
names = st.one_of(st.none(), st.sampled_from(["b", "a", "é", "a.png", "B", ""]))
rows = st.lists(st.tuples(names, names, st.integers(1, 3), st.integers(0, 9)), max_size=12)


def words(values: Sequence[str | None], dictionary: Sequence[str]) -> pa.DictionaryArray:
    """These values by codes into this dictionary, in whatever order it is."""
    codes = [None if value is None else dictionary.index(value) for value in values]
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(dictionary, pa.string()))


def of(columns: Sequence[tuple]) -> pa.Table:
    values = list(zip(*columns, strict=True)) if columns else [[]] * 4
    arrays = [pa.array(v, f.type.value_type if f.type == NAME else f.type) for v, f in zip(values, PLAIN, strict=True)]
    return pa.table([a.cast(f.type) for a, f in zip(arrays, PLAIN, strict=True)], schema=PLAIN)


def test_a_sorted_table_stays_as_it_is():
    table = of([("a", "Mass", 1, 1), ("a", "Mass", 2, 0), ("a", "Nodule", 1, 1), ("b", "Mass", 1, 5)])
    again = ordered(ordered(table, BOX_ORDER), BOX_ORDER)
    assert again.equals(table)
    assert again["image_id"].chunk(0).dictionary.to_pylist() == ["a", "b"]


def test_rows_are_sorted_by_the_first_key_then_by_the_next():
    table = of([("b", "Mass", 1, 0), ("a", "Nodule", 1, 1), ("a", "Mass", 2, 2), ("a", "Mass", 1, 3)])
    assert ordered(table, BOX_ORDER)["score"].to_pylist() == [3, 2, 1, 0]
    assert ordered(table, ["rank"])["score"].to_pylist() == [0, 1, 3, 2]  # equal ones stay in their order
    assert ordered(table, ["rank", "image_id"])["score"].to_pylist() == [1, 3, 0, 2]


def test_one_row_out_of_place_is_enough():
    """In the last key, and only where the others are equal."""
    for last, at in ((1, 1), (3, 2)):
        table = of([("a", "Mass", 1, 0), ("a", "Mass", 2, 1), ("a", "Mass", last, 2)])
        assert ordered(table, BOX_ORDER)["rank"].to_pylist()[at] == last
    apart = of([("a", "Nodule", 3, 0), ("b", "Mass", 1, 1)])
    assert ordered(apart, BOX_ORDER).to_pylist() == apart.to_pylist()


def test_null_is_first_and_no_word():
    table = of([("a", None, 1, 0), (None, "Mass", 1, 1), ("", "Mass", 1, 2)])
    made = ordered(table, BOX_ORDER)
    assert made["image_id"].to_pylist() == [None, "", "a"]
    assert made["finding"].to_pylist() == ["Mass", "Mass", None]
    assert made["image_id"].chunk(0).dictionary.to_pylist() == ["", "a"]
    nothing = ordered(of([(None, None, 1, 0)] * 2), BOX_ORDER)
    assert nothing["finding"].null_count == 2
    assert nothing["finding"].chunk(0).dictionary.to_pylist() == []


def test_words_that_no_row_uses_are_gone_and_the_others_are_sorted():
    values = ["d", None, "b", "d"]
    table = pa.table([words(values, ["e", "d", "c", "b", "a"])], names=["image_id"])
    column = ordered(table, [])["image_id"]
    assert column.to_pylist() == values
    assert column.chunk(0).dictionary.to_pylist() == ["b", "d"]
    assert column.chunk(0).indices.to_pylist() == [1, None, 0, 1]
    assert ordered(table, ["image_id"])["image_id"].to_pylist() == [None, "b", "d", "d"]


def test_a_filtered_table_equals_one_that_was_made_of_its_rows():
    table = of([(f"{i:02}", "Mass", 1, i) for i in range(20)])
    some = table.filter(pa.array([i % 3 == 0 for i in range(20)]))
    assert len(some["image_id"].chunk(0).dictionary) == 20
    made = ordered(some, BOX_ORDER)
    assert made.equals(of([(f"{i:02}", "Mass", 1, i) for i in range(0, 20, 3)]))
    assert len(made["image_id"].chunk(0).dictionary) == 7


def test_chunks_with_dictionaries_of_their_own_become_one():
    column = pa.chunked_array([words(["b"], ["b"]), words(["a", "b"], ["x", "b", "a"])])
    made = ordered(pa.table([column], names=["image_id"]), ["image_id"])["image_id"]
    assert made.num_chunks == 1
    assert made.to_pylist() == ["a", "b", "b"]
    assert made.chunk(0).dictionary.to_pylist() == ["a", "b"]


@given(rows, st.randoms(use_true_random=False), st.integers(1, 4))
def test_the_same_rows_are_the_same_table(columns, chance, parts):
    """Whatever their order, their chunks and the order of their dictionaries; rows of equal keys stay in order."""
    expected = sorted(columns, key=lambda row: [(v is not None, (v or "").encode()) for v in row[:2]] + [row[2]])
    made = ordered(of(columns), BOX_ORDER)
    assert list(zip(*(made[name].to_pylist() for name in PLAIN.names), strict=True)) == expected
    dictionary = sorted({v for row in columns for v in row[:2] if v is not None} | {"unused"})
    chance.shuffle(dictionary)
    pieces = [columns[i * len(columns) // parts : (i + 1) * len(columns) // parts] for i in range(parts)]
    chunked = pa.concat_tables([of(piece) for piece in pieces])
    chunked = chunked.set_column(0, PLAIN.field(0), words([row[0] for row in columns], dictionary))
    assert ordered(chunked, BOX_ORDER).equals(made)
    for name in ("image_id", "finding"):
        used = made[name].chunk(0).dictionary.to_pylist() if len(made) else []
        assert used == sorted({v for v in made[name].to_pylist() if v is not None}, key=str.encode)


def test_truth_is_ranked_as_given_whatever_its_words():
    """The dictionary of the truth that comes in is neither sorted nor without unused words."""
    image = words(["b", "a", "b"], ["c", "b", "a"])
    place = {"x_min": [2, 1, 0], "y_min": [0] * 3, "x_max": [5] * 3, "y_max": [5] * 3}
    made = truth_table({"image_id": image, "finding": ["Mass"] * 3, **place})
    assert [made[name].to_pylist() for name in ("image_id", "rank", "x_min")] == [["a", "b", "b"], [1, 1, 2], [1, 2, 0]]


@pytest.mark.parametrize("count", [0, 1])
def test_hardly_a_row(count):
    table = build(SCHEMA, {"image_id": ["a"] * count, "finding": ["Mass"] * count, "rank": np.ones(count)})
    assert ordered(table, BOX_ORDER).equals(table)
    assert len(ordered(table, BOX_ORDER)) == count
