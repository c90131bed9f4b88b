"""Several readers: boxes in a row, each ten high, so that an IoU is a fraction of lengths."""

import numpy as np
import pyarrow as pa
import pytest

from cxrmine.boxes.geometry import iou_matrix
from cxrmine.boxes.table import SCHEMA, TRUTH_SCHEMA, truth_table
from cxrmine.data.drawn.read import read_drawn
from cxrmine.data.drawn.sheet import drawn_table, looked_at
from cxrmine.errors import CxrError, UsageError
from cxrmine.scoring.readers import by_reader, merged, reader_against_rest
from cxrmine.tables import COORDINATES


def drawn(*rows: tuple) -> pa.Table:
    """Rows of (image, finding, reader, from, to): a box from one x to the other, ten high."""
    columns = {name: [row[i] for row in rows] for i, name in enumerate(("image_id", "finding", "reader"))}
    corners = np.array([(row[3], 0, row[4], 10) for row in rows], dtype=np.float64).reshape(-1, 4)
    columns |= {name: pa.array(values) for name, values in zip(COORDINATES, corners.T, strict=True)}
    return drawn_table(columns | {"row": list(range(1, len(rows) + 1))})


def mass(*boxes: tuple) -> pa.Table:
    """Rows of (reader, from, to) of one pair."""
    return drawn(*(("a", "Mass", *box) for box in boxes))


def spans(table: pa.Table) -> list[tuple]:
    return list(zip(*(table[name].to_pylist() for name in ("x_min", "x_max", "readers")), strict=True))


def test_two_of_three_readers_agree():
    """0..10 and 2..12 share 8 of 12; 50..60 stands alone."""
    three = mass(("R1", 0, 10), ("R2", 50, 60), ("R3", 2, 12))
    assert spans(merged(three, "union")) == [(0, 12, 2), (50, 60, 1)]
    assert spans(merged(three, "fused")) == [(1, 11, 2), (50, 60, 1)]
    assert merged(three, "fused")["row"].to_pylist() == [1, 2]


def test_a_box_joins_only_above_the_overlap():
    """0..10 and 0..4: an IoU of exactly 0.4."""
    two = mass(("R1", 0, 10), ("R2", 0, 4))
    assert spans(merged(two, "fused")) == [(0, 10, 1), (0, 4, 1)]
    assert spans(merged(two, "fused", overlap=0.39)) == [(0, 7, 2)]
    assert spans(merged(mass(("R1", 0, 5), ("R2", 5, 9)), "union", overlap=0)) == [(0, 5, 1), (5, 9, 1)]


def test_a_chain_is_followed_by_its_mean():
    """0..10, 4..14 (6 of 14) become 2..12; 8..18 shares 4 of 16 with that, but 6 of 14 with 4..14 alone."""
    chain = mass(("R1", 0, 10), ("R2", 4, 14), ("R3", 8, 18))
    assert spans(merged(chain, "union")) == [(0, 14, 2), (8, 18, 1)]
    turned = mass(("R2", 4, 14), ("R1", 0, 10), ("R3", 8, 18))
    assert spans(merged(turned, "union")) == [(0, 14, 2), (8, 18, 1)]
    low = merged(chain, "union", overlap=0.2)
    assert spans(low) == [(0, 18, 3)]
    assert spans(merged(chain, "fused", overlap=0.2)) == [(4, 14, 3)]


def test_the_order_of_the_rows_decides():
    """8..18 joins 4..14 where it comes before 0..10 does: 6 of 14; then 0..10 shares 4 of 16 with 6..16."""
    assert spans(merged(mass(("R2", 4, 14), ("R3", 8, 18), ("R1", 0, 10)), "union")) == [(4, 18, 2), (0, 10, 1)]


def test_the_best_group_is_joined_and_of_equal_ones_the_first():
    """5..15 shares 9 of 11 with 6..16 and 5 of 15 with 0..10; then 5 of 15 with both 0..10 and 10..20."""
    best = mass(("R1", 0, 10), ("R2", 6, 16), ("R3", 5, 15))
    assert spans(merged(best, "union", overlap=0.3)) == [(0, 10, 1), (5, 16, 2)]
    tie = mass(("R1", 0, 10), ("R2", 10, 20), ("R3", 5, 15))
    assert spans(merged(tie, "union", overlap=0.3)) == [(0, 15, 2), (10, 20, 1)]
    tie = mass(("R2", 10, 20), ("R1", 0, 10), ("R3", 5, 15))
    assert spans(merged(tie, "union", overlap=0.3)) == [(5, 20, 2), (0, 10, 1)]


def test_two_boxes_of_one_reader_count_him_once():
    """His second box also weighs in the mean: (0 + 0 + 3) / 3."""
    twice = mass(("R1", 0, 10), ("R1", 0, 10), ("R2", 3, 13))
    assert spans(merged(twice, "fused")) == [(1, 11, 2)]
    apart = mass(("R1", 0, 10), ("R1", 30, 40), ("R2", 30, 40))
    assert spans(merged(apart, "union")) == [(0, 10, 1), (30, 40, 2)]


def test_pairs_are_kept_apart():
    rows = [("a", "Mass", "R1", 0, 10), ("a", "Nodule", "R2", 0, 10), ("b", "Mass", "R2", 0, 10)]
    one = merged(drawn(*rows, ("a", "Mass", "R3", 0, 10)), "fused")
    assert one["image_id"].to_pylist() == ["a", "a", "b"]
    assert one["finding"].to_pylist() == ["Mass", "Nodule", "Mass"]
    assert one["readers"].to_pylist() == [2, 1, 1]
    assert one["reader"].null_count == 3


def test_nothing_to_merge():
    assert merged(drawn(), "union").column_names == [*drawn().column_names, "readers"]
    assert len(merged(drawn(), "fused")) == 0
    alone = drawn(("a", "Mass", None, 0, 10), ("b", "Mass", None, 0, 10))
    assert spans(merged(alone, "union")) == spans(merged(alone, "fused")) == [(0, 10, 1), (0, 10, 1)]


def test_a_truth_table_can_be_merged():
    table = truth_table({name: values for name, values in
                         zip(drawn().column_names, mass(("R1", 0, 10), ("R2", 2, 12)).columns, strict=True)
                         if name != "row"})  # fmt: skip
    one = merged(table, "union")
    assert spans(one) == [(0, 12, 2)]
    assert one.drop_columns("readers").schema.equals(TRUTH_SCHEMA)


def test_what_cannot_be_merged():
    with pytest.raises(UsageError, match=r"merged as 'fuse'\. Did you mean fused\? Choose union or fused"):
        merged(drawn(), "fuse")
    with pytest.raises(UsageError, match="An overlap of 1 is no share"):
        merged(drawn(), "union", overlap=1)


def test_groups_are_those_of_the_plain_definition():
    """Against the definition written out with arrays: the group with the highest IoU of its mean box, if above."""
    noise = np.random.default_rng(0)
    number = 2000
    low = noise.integers(0, 40, (number, 2))
    corners = np.concatenate([low, low + noise.integers(5, 40, (number, 2))], axis=1).astype(float)
    pair = noise.integers(0, 100, number)
    columns = {"image_id": [str(p // 3) for p in pair], "finding": [str(p % 3) for p in pair]}
    columns |= {name: pa.array(values) for name, values in zip(COORDINATES, corners.T, strict=True)}
    table = drawn_table(columns | {"row": list(range(number))})
    groups: dict[int, list[list[int]]] = {}
    for row in range(number):
        mine = groups.setdefault(int(pair[row]), [])
        means = [corners[group].mean(axis=0) for group in mine]
        shares = iou_matrix(means, corners[[row]])[:, 0] if mine else np.zeros(0)
        best = int(np.argmax(shares)) if len(shares) else 0
        if len(shares) and shares[best] > 0.4:
            mine[best].append(row)
        else:
            mine.append([row])
    expected = sorted((group for of_pair in groups.values() for group in of_pair), key=lambda group: group[0])
    fused, union = merged(table, "fused"), merged(table, "union")
    assert fused["row"].to_pylist() == [group[0] for group in expected]
    means = np.array([corners[group].mean(axis=0) for group in expected])
    around = np.array([[*corners[g, :2].min(axis=0), *corners[g, 2:].max(axis=0)] for g in expected])
    for name, mean, side in zip(COORDINATES, means.T, around.T, strict=True):
        assert np.allclose(fused[name].to_numpy(), mean, rtol=0, atol=1e-9)
        assert np.array_equal(union[name].to_numpy(), side)
    assert 1 < number / len(expected) < 6


def test_by_reader():
    table = drawn(("a", "Mass", "R2", 0, 1), ("a", "Mass", "R1", 0, 2), ("b", "Mass", "R2", 0, 3))
    apart = by_reader(table)
    assert {name: rows["x_max"].to_pylist() for name, rows in apart.items()} == {"R1": [2], "R2": [1, 3]}
    assert list(apart) == ["R1", "R2"]
    assert by_reader(drawn()) == {}
    with pytest.raises(CxrError, match="1 of 2 boxes do not say who drew them"):
        by_reader(drawn(("a", "Mass", "R2", 0, 1), ("a", "Mass", None, 0, 2)))


# `a` was read by R1, R2 and R3, `b` by R1 and R2 (R1 found nothing), `c` by R3 alone, `d` by R1 and R3 without a box
BOXES = (
    ("a", "Mass", "R1", 0, 10),
    ("a", "Mass", "R1", 30, 40),
    ("a", "Mass", "R2", 2, 12),
    ("a", "Nodule", "R3", 50, 60),
    ("b", "Mass", "R2", 0, 10),
    ("c", "Mass", "R3", 0, 10),
)
LOOKED = [("a", "R1"), ("a", "R2"), ("a", "R3"), ("b", "R1"), ("b", "R2"), ("c", "R3"), ("d", "R1"), ("d", "R3")]


def test_each_reader_against_the_others():
    seen = looked_at({"image_id": [i for i, _ in LOOKED], "reader": [r for _, r in LOOKED]})
    one, two, three = reader_against_rest(drawn(*BOXES), seen)
    assert (one.reader, two.reader, three.reader) == ("R1", "R2", "R3")
    assert [a.images.to_pylist() for a in (one, two, three)] == [["a", "b", "d"], ["a", "b"], ["a", "d"]]
    assert one.predictions.schema.equals(SCHEMA)
    assert one.truth.schema.equals(TRUTH_SCHEMA)
    assert one.predictions["x_max"].to_pylist() == [10, 40]
    assert one.predictions["rank"].to_pylist() == [1, 2]
    assert set(one.predictions["source"].to_pylist()) == {"R1"}
    assert one.truth["reader"].to_pylist() == ["R2", "R3", "R2"]
    assert one.truth["image_id"].to_pylist() == ["a", "a", "b"]
    assert three.predictions["finding"].to_pylist() == ["Nodule"]  # not the box on `c`, which nobody else read
    assert three.truth["x_min"].to_pylist() == [0, 30, 2]


def test_the_others_can_be_merged():
    three = reader_against_rest(drawn(*BOXES), None, how="fused")[-1]
    assert three.reader == "R3"
    assert three.truth["x_min"].to_pylist() == [1, 30]
    assert three.truth["rank"].to_pylist() == [1, 2]
    assert three.truth["reader"].null_count == 2


def test_without_a_list_a_reader_looked_where_he_drew():
    against = {a.reader: a.images.to_pylist() for a in reader_against_rest(drawn(*BOXES), None)}
    assert against == {"R1": ["a"], "R2": ["a"], "R3": ["a"]}


def test_a_reader_who_drew_nothing_is_judged_too():
    seen = looked_at({"image_id": ["a", "a"], "reader": ["R1", "R9"]})
    (one, nine) = reader_against_rest(drawn(("a", "Mass", "R1", 0, 10)), seen)
    assert (nine.reader, len(nine.predictions), len(nine.truth)) == ("R9", 0, 1)
    assert (len(one.predictions), len(one.truth), one.images.to_pylist()) == (1, 0, ["a"])


def test_a_reader_alone_has_no_others():
    assert reader_against_rest(drawn(("a", "Mass", "R1", 0, 10), ("b", "Mass", "R2", 0, 10)), None) == []
    assert reader_against_rest(drawn(), None) == []


def test_from_a_file_to_a_reader(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text(
        "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\n"
        "a,ILD,5,R8,0,0,10,10\na,ILD,5,R9,0,0,10,10\na,Nodule/Mass,8,R9,0,0,10,10\n"
        + "".join(f"b,No finding,14,{reader},,,,\n" for reader in ("R8", "R9", "R10"))
    )
    read = read_drawn(path)
    assert spans(merged(read.table, "fused")) == [(0, 10, 2), (0, 10, 1)]
    against = {a.reader: a for a in reader_against_rest(read.table, read.looked_at)}
    assert list(against) == ["R10", "R8", "R9"]
    assert against["R8"].images.to_pylist() == ["a", "b"]
    assert against["R10"].images.to_pylist() == ["b"]
    assert against["R8"].truth["finding"].to_pylist() == ["ILD", "Nodule/Mass"]
