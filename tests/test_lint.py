"""One planted fault of every kind, and tables without any."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cxrmine.boxes.lint import KINDS, Fault, lint, rename, report, summary, without_faults
from cxrmine.boxes.table import truth_table
from cxrmine.data.drawn.read import read_drawn
from cxrmine.data.drawn.sheet import drawn_table
from cxrmine.errors import UsageError
from cxrmine.settings import assignments
from cxrmine.tables import COORDINATES

DATA = Path(__file__).parents[2] / "shared" / "data"
KNOWN = ("Mass", "Nodule", "Edema")
WHOLE = (10, 20, 30, 40)


def table(*rows: tuple, size: tuple | None = (100, 50), row: list[int] | None = None, **more: list) -> pa.Table:
    """Rows of (image, finding, box), on images of one size."""
    columns = {name: [r[i] for r in rows] for i, name in enumerate(("image_id", "finding"))}
    columns |= {
        name: pa.array([None if r[2][i] is None else float(r[2][i]) for r in rows], pa.float64())
        for i, name in enumerate(COORDINATES)
    }
    if size:
        columns |= {"image_width": [size[0]] * len(rows), "image_height": [size[1]] * len(rows)}
    return drawn_table(columns | {"row": row or list(range(1, len(rows) + 1))} | more)


def of(*boxes: tuple, **more: object) -> pa.Table:
    """These boxes, each on an image of its own."""
    return table(*((f"{i}.png", "Mass", box) for i, box in enumerate(boxes)), **more)


def found(faults: list[Fault]) -> list[tuple]:
    return [(fault.kind, fault.row, fault.what) for fault in faults]


def test_nothing_to_find():
    clean = table(("a", "Mass", WHOLE), ("a", "Nodule", WHOLE), ("b", "Mass", (0, 0, 100, 50)))
    assert lint(clean, findings=KNOWN, images={"a", "b"}) == []
    assert lint(table(), findings=KNOWN, images=set()) == []
    assert report([], "truth.csv", 3) == "truth.csv has no fault in 3 rows."
    assert without_faults(clean, []).equals(clean)


def test_the_edge_of_the_image_may_be_passed_by_rounding():
    assert lint(of((-0.009, 0, 100.009, 50))) == []
    assert [fault.kind for fault in lint(of((-0.011, 0, 100.011, 50)))] == ["negative", "outside the image"]


def test_unknown_findings():
    faults = lint(table(("a", "edema", WHOLE), ("a", "Mass", WHOLE), ("a", "zzz", WHOLE)), findings=KNOWN)
    assert found(faults) == [("unknown finding", 1, "'edema' (did you mean 'Edema'?)"), ("unknown finding", 3, "'zzz'")]
    assert lint(table(("a", "zzz", WHOLE))) == []


def test_names_that_are_not_there():
    faults = lint(
        table(("a", None, WHOLE), ("a", " ", WHOLE), (None, "Mass", WHOLE), ("", "Mass", WHOLE)), findings=KNOWN
    )
    assert found(faults) == [
        ("no finding name", 1, ""), ("no finding name", 2, ""), ("no image name", 3, ""), ("no image name", 4, ""),
    ]  # fmt: skip


def test_unknown_images():
    faults = lint(table(("a", "Mass", WHOLE), ("b", "Mass", WHOLE)), images={"a"})
    assert found(faults) == [("unknown image", 2, "'b'")]


def test_what_is_no_number():
    faults = lint(of((1, None, 3, 4), (1, 2, 3, 4), (float("nan"), 2, float("inf"), 4)))
    assert found(faults) == [("not a number", 1, "y_min"), ("not a number", 3, "x_min, x_max")]


def test_boxes_without_area():
    rest = [WHOLE] * 19
    faults = lint(of(*rest, (30, 20, 30, 40), (10, 40, 30, 20)))
    assert found(faults) == [
        ("without area", 20, "x_max is not above x_min"), ("without area", 21, "y_max is not above y_min"),
    ]  # fmt: skip


def test_boxes_outside_their_image():
    faults = lint(of((-5, -5, 10, 10), (90, 40, 101, 51), (0, 0, 10, 60)))
    assert found(faults) == [
        ("negative", 1, "x_min, y_min"),
        ("outside the image", 2, "x_max is beyond image_width, y_max is beyond image_height"),
        ("outside the image", 3, "y_max is beyond image_height"),
    ]
    assert [fault.kind for fault in lint(of((90, 40, 101, 51), size=None))] == []


def test_xywh_read_as_corners():
    """Of 20 boxes two are inverted, 10 %: read as x, y, w, h they lie in the image; a third one does not."""
    inverted = [(60, 20, 30, 30), (60, 30, 40, 20)]
    faults = lint(of(*[WHOLE] * 18, *inverted))
    assert [fault[:2] for fault in found(faults)] == [("xywh read as corners", 19), ("xywh read as corners", 20)]
    assert "a width and a height: name their columns so" in faults[0].what
    faults = lint(of(*[WHOLE] * 17, *inverted, (80, 20, 30, 30)))
    assert [fault[:2] for fault in found(faults)] == [
        ("without area", 20), ("xywh read as corners", 18), ("xywh read as corners", 19),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("boxes", "size", "kind"),
    [
        ([(60, 20, 30, 30)], (100, 50), "xywh read as corners"),  # the only row
        ([(60, 20, 30, 30)], None, "xywh read as corners"),
        ([(60, 20, 30, 30), WHOLE], (100, 50), "without area"),  # one is not enough
        ([(60, 20, 30, 30), (60, 20, 30, 29), *[WHOLE] * 19], (100, 50), "without area"),  # 2 of 21 are not either
        ([(60, 20, 60, 0), (60, 20, 30, 0)], (100, 50), "without area"),  # a height of 0 is none
        ([(60, 20, 50, 30)], (100, 50), "without area"),  # 60 + 50 is beyond
    ],
)
def test_when_inverted_boxes_are_xywh(boxes, size, kind):
    assert {fault.kind for fault in lint(of(*boxes, size=size))} - {"duplicated"} == {kind}
    assert {fault.kind for fault in lint(of(*boxes, size=size), units="xywh")} == {"without area"}


def test_corners_read_as_xywh():
    """(40, 10, 70, 45) are corners in an image of 100×50; as x, y, w, h they end at 110, 55."""
    beyond = of((40, 10, 110, 55), (50, 20, 130, 50), *[WHOLE] * 18)
    faults = lint(beyond, units="xywh")
    assert [fault[:2] for fault in found(faults)] == [("corners read as xywh", 1), ("corners read as xywh", 2)]
    assert "name their columns x_max and y_max" in faults[0].what
    assert {fault.kind for fault in lint(beyond)} == {"outside the image"}


@pytest.mark.parametrize(
    "boxes",
    [
        [(40, 10, 110, 55), WHOLE],  # one is not enough
        [(40, 10, 110, 55), (50, 20, 130, 50), *[WHOLE] * 19],  # 2 of 21
        [(40, 10, 110, 55), (80, 20, 130, 50)],  # the second is not inside as corners: its x_max is 50
    ],
)
def test_when_boxes_beyond_are_just_outside(boxes):
    assert {fault.kind for fault in lint(of(*boxes), units="xywh")} == {"outside the image"}


def test_duplicates():
    rows = [("a", "Mass", WHOLE)] * 3 + [("a", "Nodule", WHOLE), ("b", "Mass", WHOLE), ("a", "Mass", (10, 20, 30, 41))]
    faults = lint(table(*rows, reader=["R1", "R2", "R1", "R1", "R1", "R1"], row=[2, 4, 6, 8, 10, 12]))
    assert found(faults) == [("duplicated", 6, "")]
    faults = lint(table(*rows))
    assert found(faults) == [("duplicated", 2, ""), ("duplicated", 3, "")]
    kept = without_faults(table(*rows), faults)
    assert kept["row"].to_pylist() == [1, 4, 5, 6]
    empty = ("a", "Mass", (None, 1, 2, 3))
    assert {fault.kind for fault in lint(table(empty, empty))} == {"not a number"}


def test_an_image_without_a_box_is_no_row():
    drawn = of(WHOLE)
    faults = lint(drawn, without_box=("x.jpg", "y.jpg"))
    assert found(faults) == [("image without a box", 0, "x.jpg"), ("image without a box", 0, "y.jpg")]
    assert without_faults(drawn, faults).equals(drawn)
    assert report(faults, "t", 1) == "t has 0 faulty of 1 rows: 2 image without a box: x.jpg, y.jpg."


def test_a_row_with_several_faults():
    faults = lint(table((None, "edema", (-1, None, 3, 4)), ("a", "Mass", (-1, 2, 3, 4))), findings=KNOWN)
    assert [fault[:2] for fault in found(faults)] == [
        ("unknown finding", 1), ("no image name", 1), ("not a number", 1), ("negative", 2),
    ]  # fmt: skip
    assert report(faults, "truth.csv", 9).startswith("truth.csv has 2 faulty of 9 rows: 1 unknown finding 'edema' (did")


def test_the_summary_shows_the_first_rows():
    faults = [Fault("unknown finding", row, "'edema'") for row in (3, 17, 20, 31, 58, 60, 61)]
    faults += [Fault("duplicated", 9, "")]
    assert summary(faults) == ["7 unknown finding 'edema': rows 3, 17, 20, 31, 58 and 2 more", "1 duplicated: row 9"]
    many = [Fault("unknown finding", i, f"'{i}'") for i in range(1, 1001)]
    assert len(summary(many)) == 21
    assert summary(many)[-1] == "and 980 more such lines"


def test_a_boxes_table_can_be_linted_too():
    columns = {name: [value, value] for name, value in zip(COORDINATES, WHOLE, strict=True)}
    drawn = truth_table({"image_id": ["a", "b"], "finding": ["Mass", "edema"], **columns})
    faults = lint(drawn, findings=KNOWN)
    assert [(fault.kind, fault.row) for fault in faults] == [("unknown finding", 2)]
    assert without_faults(drawn, faults)["image_id"].to_pylist() == ["a"]
    renamed = rename(drawn, {"edema": "Edema"}, KNOWN)
    assert renamed["finding"].to_pylist() == ["Mass", "Edema"]
    assert renamed.schema.equals(drawn.schema)


def test_a_table_that_is_all_wrong_is_linted_whole():
    """As many words as rows: a wrong column was named."""
    number = 20_000
    boxes = {name: np.arange(number) % 90 + (9.0 if name.endswith("max") else 0.0) for name in COORDINATES}
    columns = {"image_id": ["a"] * number, "finding": [f"word {i}" for i in range(number)], **boxes}
    faults = lint(pa.table(columns), findings=KNOWN)
    assert len(faults) == number
    assert {fault.kind for fault in faults} == {"unknown finding"}


def test_every_kind_has_its_test():
    planted = table(
        ("a", "edema", WHOLE), ("a", None, WHOLE), (None, "Mass", WHOLE), ("z", "Mass", WHOLE),
        ("a", "Mass", (None, 1, 2, 3)), ("b", "Mass", (30, 60, 30, 60)), ("c", "Mass", (-9, 1, 2, 3)),
        ("d", "Mass", (1, 1, 200, 3)), ("e", "Mass", (60, 20, 30, 30)), ("f", "Mass", (60, 20, 30, 30)),
        ("g", "Mass", WHOLE), ("g", "Mass", WHOLE),
    )  # fmt: skip
    kinds = {fault.kind for fault in lint(planted, findings=KNOWN, images=set("abcdefg"), without_box=("h",))}
    kinds |= {fault.kind for fault in lint(of((40, 10, 110, 55)), units="xywh")}
    assert kinds == set(KINDS)


def test_rename():
    drawn = table(("a", "edema", WHOLE), ("b", None, WHOLE), ("c", "Mass", WHOLE))
    assert rename(drawn, {"edema": "Edema"}, KNOWN)["finding"].to_pylist() == ["Edema", None, "Mass"]
    swapped = rename(drawn, {"edema": "Mass", "Mass": "edema"})
    assert swapped["finding"].to_pylist() == ["Mass", None, "edema"]
    assert rename(drawn, {}).equals(drawn)
    with pytest.raises(UsageError, match=r"No box is of 'edma', to be renamed\. Did you mean edema\? The boxes are of"):
        rename(drawn, {"edma": "Edema"})
    with pytest.raises(UsageError, match=r"'edema' cannot become 'Edeme', which is unknown\. Did you mean Edema\?"):
        rename(drawn, {"edema": "Edeme"}, KNOWN)
    with pytest.raises(UsageError, match="The boxes are of nothing"):
        rename(table(), {"edema": "Edema"})


def test_assignments():
    assert assignments("edema=Edema, a = b=c", "") == {"edema": "Edema", "a": "b=c"}
    with pytest.raises(UsageError, match=r"'edema' is not of the form name=value\. Write it like mass=Mass"):
        assignments("edema", "mass=Mass")
    with pytest.raises(UsageError, match="edema is given twice"):
        assignments("edema=Edema,edema=Mass", "")


def test_the_real_nih_boxes_have_no_fault():
    for name in ("BBox_List_2017.csv", "BBox_List_2017.variant.csv"):
        path = DATA / "nih" / name
        if not path.exists():
            pytest.skip("the NIH box list is not beside this checkout")
        drawn = read_drawn(path)
        assert lint(drawn.table, findings=drawn.vocabulary, units=drawn.units) == []
        assert len(drawn.table) == 984


def test_the_real_chexpert_boxes_have_69_misspelt_and_one_empty_image():
    path = DATA / "chexpert" / "BBoxes.json.gz"
    if not path.exists():
        pytest.skip("HAM's boxes of CheXpert are not beside this checkout")
    drawn = read_drawn(path)
    faults = lint(drawn.table, findings=drawn.vocabulary, without_box=drawn.without_box, units=drawn.units)
    assert {what: [fault.what for fault in faults].count(what) for what in {fault.what for fault in faults}} == {
        "'edema' (did you mean 'Edema'?)": 44,
        "'Enlarg_Cardiomediastinum' (did you mean 'Enlarged_Cardiomediastinum'?)": 25,
        "train/patient01086/study3/view1_frontal.jpg": 1,
    }
    assert len(without_faults(drawn.table, faults)) == 6101 - 69
    told = {"edema": "Edema", "Enlarg_Cardiomediastinum": "Enlarged_Cardiomediastinum"}
    mended = rename(drawn.table, told, drawn.vocabulary)
    assert lint(mended, findings=drawn.vocabulary, units=drawn.units) == []
    words = mended["finding"].to_pylist()
    assert words.count("Edema") == 1054 + 44
    assert words.count("Enlarged_Cardiomediastinum") == 361 + 25
