"""Truth in every form that is known: small files written by hand, and the real ones where they are at hand."""

import csv
import gzip
import io
import json
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxrmine.boxes.lint import lint
from cxrmine.boxes.table import truth_table, write_boxes
from cxrmine.data import gzipped
from cxrmine.data.drawn import vindr
from cxrmine.data.drawn.read import parse_columns, read_drawn
from cxrmine.data.drawn.sheet import LOOKED_AT, SCHEMA, Drawn
from cxrmine.errors import CxrError, UsageError
from cxrmine.tables import COORDINATES

DATA = Path(__file__).parents[2] / "shared" / "data"
NIH = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
VINDR = "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\n"
RSNA = "patientId,x,y,width,height,Target\n"
OWN = "image_id,finding,x_min,y_min,x_max,y_max"


def real(name: str) -> Path:
    if not (DATA / name).exists():
        pytest.skip(f"{name} is not beside this checkout")
    return DATA / name


@pytest.fixture
def write(tmp_path):
    def written(content: str | bytes, name: str = "truth.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return written


def boxes(drawn: Drawn) -> list[tuple]:
    """(image, finding, x_min, y_min, x_max, y_max) of every row."""
    return list(zip(*(drawn.table[name].to_pylist() for name in ("image_id", "finding", *COORDINATES)), strict=True))


def rows(drawn: Drawn) -> list[int]:
    return drawn.table["row"].to_pylist()


def seen(drawn: Drawn) -> list[tuple]:
    assert drawn.looked_at is not None
    assert drawn.looked_at.schema.equals(LOOKED_AT)
    return list(zip(*(drawn.looked_at[name].to_pylist() for name in ("image_id", "reader")), strict=True))


# --- NIH


def test_nih_by_hand(write):
    drawn = read_drawn(write(NIH + "00000013_002.png,Infiltrate,10.5,20,30,40\n00013118_008.png,Mass,1,2,3,4\n"))
    assert drawn.table.schema.equals(SCHEMA)
    assert boxes(drawn) == [
        ("00000013_002.png", "Infiltration", 10.5, 20, 40.5, 60),
        ("00013118_008.png", "Mass", 1, 2, 4, 6),
    ]
    assert drawn.table["patient_id"].to_pylist() == ["13", "13118"]
    assert drawn.table["image_width"].to_pylist() == drawn.table["image_height"].to_pylist() == [1024, 1024]
    assert rows(drawn) == [1, 2]
    assert (drawn.kind, drawn.units, drawn.looked_at) == ("NIH BBox_List", "xywh", None)


@pytest.mark.parametrize(
    "header",
    [NIH, "Image Index,Finding Label,Bbox [x,y,w,h]\n", '"Image Index","Finding Label","Bbox [x,y,w,h]"\n',
     "\ufeff" + NIH, NIH.replace("\n", "\r\n")],
)  # fmt: skip
def test_nih_headers(write, header):
    drawn = read_drawn(write(header + "00000013_002.png,Mass,10,20,30,40,,,\r\n\r\n00000014_000.png,Mass,1,2,3\r\n"))
    assert boxes(drawn) == [("00000013_002.png", "Mass", 10, 20, 40, 60), ("00000014_000.png", "Mass", 1, 2, 4, None)]
    assert rows(drawn) == [1, 3]


def test_nih_boxes_saved_in_other_columns_are_not_taken_for_nih(write):
    with pytest.raises(CxrError, match="in no form that is known"):
        read_drawn(write("Image Index,Finding Label,x_min,y_min,x_max,y_max\n00000013_002.png,Mass,10,20,30,40\n"))
    assert boxes(read_drawn(write("Image Index,Finding Label,x,y,w,h\na,Mass,1,2,3,4\n"))) == [
        ("a", "Mass", 1, 2, 4, 6)
    ]


def test_both_real_nih_lists_are_one():
    published, again = (read_drawn(real(f"nih/BBox_List_2017{end}")) for end in (".csv", ".variant.csv"))
    for name in SCHEMA.names:
        if name in COORDINATES:
            assert np.abs(published.table[name].to_numpy() - again.table[name].to_numpy()).max() < 1.1e-7  # of sums
        else:
            assert published.table[name].equals(again.table[name])
    assert Counter(published.table["finding"].to_pylist()) == {
        "Atelectasis": 180, "Cardiomegaly": 146, "Effusion": 153, "Infiltration": 123, "Mass": 85, "Nodule": 79,
        "Pneumonia": 120, "Pneumothorax": 98,
    }  # fmt: skip
    assert len(set(published.table["image_id"].to_pylist())) == 880
    assert len(set(published.table["patient_id"].to_pylist())) == 726


def test_the_patients_of_real_nih_boxes_are_those_of_data_entry():
    with gzip.open(real("nih/Data_Entry_2017_v2020.csv.gz"), "rt") as file:
        patient = {row["Image Index"]: row["Patient ID"] for row in csv.DictReader(file)}
    table = read_drawn(real("nih/BBox_List_2017.csv")).table
    assert table["patient_id"].to_pylist() == [patient[image] for image in table["image_id"].to_pylist()]


# --- HAM's boxes of CheXpert

HAM = {
    "train/patient40093/study4/view1_frontal.jpg": {
        "Cardiomegaly": [[1, 2, 3, 4]],
        "edema": [[5, 6, 7, 8], [0, 0, 9, 9]],
    },
    "valid/patient00007/study1/view1_lateral.jpg": {"Edema": []},
    "valid/patient64541/study1/view1_frontal.jpg": {"Fracture": [[10, 10, 20.5, 20]]},
    "train/patient01086/study3/view1_frontal.jpg": {},
}


def test_ham_by_hand(write):
    drawn = read_drawn(write(json.dumps(HAM)))
    first, lateral, last, empty = HAM
    assert boxes(drawn) == [
        (first, "Cardiomegaly", 1, 2, 3, 4),
        (first, "edema", 5, 6, 7, 8),
        (first, "edema", 0, 0, 9, 9),
        (last, "Fracture", 10, 10, 20.5, 20),
    ]
    assert rows(drawn) == [1, 2, 3, 4]
    assert drawn.table["patient_id"].to_pylist() == ["patient40093"] * 3 + ["patient64541"]
    assert drawn.table["split"].to_pylist() == ["train"] * 3 + ["val"]
    assert drawn.table["image_width"].null_count == 4
    assert drawn.without_box == (lateral, empty)
    assert (drawn.looked_at, drawn.units, len(drawn.vocabulary)) == (None, "corners", 9)


def test_ham_boxes_that_are_none_are_null(write):
    wrong = [
        [1, 2, 3],
        [1, 2, 3, 1e99],
        "1234",
        None,
        [1, 2, 3, "4"],
        [1, 2, 3, True],
        [1, 2, 3, 10**400],
        [1, 2, 3, {}],
    ]
    text = json.dumps({next(iter(HAM)): {"Edema": wrong}}).replace("{}", "NaN")
    drawn = read_drawn(write(text))
    assert drawn.table["y_max"].null_count == len(wrong)
    assert drawn.table["x_min"].to_pylist() == [None, 1, None, None, 1, 1, 1, 1]
    assert {fault.kind for fault in lint(drawn.table)} == {"not a number"}


def test_the_real_ham_file():
    drawn = read_drawn(real("chexpert/BBoxes.json.gz"))
    assert len(drawn.table) == 6101
    images = set(drawn.table["image_id"].to_pylist())
    assert len(images) + len(drawn.without_box) == 2348
    assert drawn.without_box == ("train/patient01086/study3/view1_frontal.jpg",)
    assert len(set(drawn.table["patient_id"].to_pylist()) | {"patient01086"}) == 2202
    assert {name: sum(image.startswith(name) for image in images) for name in ("train", "valid")} == {
        "train": 2199, "valid": 148,
    }  # fmt: skip
    assert max(drawn.table["x_max"].to_pylist()) == 4240
    assert drawn.table["split"].null_count == drawn.table["patient_id"].null_count == 0


# --- VinDr


def test_vindr_by_hand(write):
    text = VINDR + (
        "a,Nodule/Mass,8,R8,691.0,1375.0,1653.0,1831.0\n"
        "a,Lung Opacity,7,R8,691.0,1375.0,1653.0,1831.0\n"
        "b,No finding,14,R1,,,,\n"
        "b,No finding,14,R2,,,,\n"
        "a,Nodule/Mass,8,R9,0.0,0.0,5.0,6.0\n"
    )
    drawn = read_drawn(write(text))
    assert boxes(drawn) == [
        ("a", "Nodule/Mass", 691, 1375, 1653, 1831),
        ("a", "Lung Opacity", 691, 1375, 1653, 1831),
        ("a", "Nodule/Mass", 0, 0, 5, 6),
    ]
    assert rows(drawn) == [1, 2, 5]
    assert drawn.table["reader"].to_pylist() == ["R8", "R8", "R9"]
    assert seen(drawn) == [("a", "R8"), ("b", "R1"), ("b", "R2"), ("a", "R9")]
    assert drawn.kind == "VinDr"
    assert len(vindr.FINDINGS) == 22
    assert lint(drawn.table, findings=drawn.vocabulary) == []


def test_vindr_as_physionet_has_it(write):
    train = "image_id,rad_id,class_name,x_min,y_min,x_max,y_max,note\na,R1,ILD,1,2,3,4,x\nb,R1,No finding,,,,,\n"
    drawn = read_drawn(write(train))
    assert boxes(drawn) == [("a", "ILD", 1, 2, 3, 4)]
    assert seen(drawn) == [("a", "R1"), ("b", "R1")]
    test = "image_id,class_name,x_min,y_min,x_max,y_max\na,ILD,1,2,3,4\na,ILD,5,5,9,9\nb,No finding,,,,\n"
    drawn = read_drawn(write(test))
    assert seen(drawn) == [("a", None), ("b", None)]
    assert drawn.table["reader"].null_count == 2


def test_vindr_without_a_box_at_all(write):
    drawn = read_drawn(write(VINDR + "a,No finding,14,R1,,,,\nb,No Finding,14,R1,,,,\n"))
    assert len(drawn.table) == 0
    assert seen(drawn) == [("a", "R1"), ("b", "R1")]
    assert lint(drawn.table, findings=drawn.vocabulary) == []


def test_vindr_rows_that_say_two_things_are_left_to_the_linter(write):
    drawn = read_drawn(write(VINDR + "a,No finding,14,R1,0,0,1,1\n,No finding,14,R1,,,,\nb,ILD,5,R1,,,,\n"))
    faults = lint(drawn.table, findings=drawn.vocabulary)
    assert {(fault.kind, fault.row) for fault in faults} == {
        ("unknown finding", 1), ("unknown finding", 2), ("no image name", 2), ("not a number", 2), ("not a number", 3),
    }  # fmt: skip
    assert seen(drawn) == [("a", "R1"), ("b", "R1")]


# --- RSNA


def test_rsna_by_hand(write):
    drawn = read_drawn(write(RSNA + "p,264.0,152.0,213.0,379.0,1\np,562.0,152.0,256.0,453.0,1\nq,,,,,0\n"))
    assert boxes(drawn) == [("p", "Lung Opacity", 264, 152, 477, 531), ("p", "Lung Opacity", 562, 152, 818, 605)]
    assert drawn.table["patient_id"].to_pylist() == ["p", "p"]
    assert drawn.table["image_height"].to_pylist() == [1024, 1024]
    assert seen(drawn) == [("p", None), ("q", None)]
    assert drawn.looked_at["patient_id"].to_pylist() == ["p", "q"]
    assert drawn.looked_at["image_width"].to_pylist() == [1024, 1024]
    assert (drawn.kind, drawn.units) == ("RSNA", "xywh")
    assert lint(drawn.table, findings=drawn.vocabulary, units=drawn.units) == []


def test_rsna_rows_that_contradict_themselves_are_left_to_the_linter(write):
    drawn = read_drawn(write(RSNA + "p,,,,,1\nq,1,2,3,4,0\nr,1,2,3,4,\ns,1,2,3,4,1\nt,,,,,0\n"))
    faults = lint(drawn.table, findings=drawn.vocabulary, units=drawn.units)
    assert [(fault.kind, fault.row) for fault in faults] == [
        ("no finding name", 2), ("no finding name", 3), ("not a number", 1),
    ]  # fmt: skip


# --- COCO


def coco(**changes: object) -> dict:
    return {
        "images": [
            {"id": 7, "file_name": "b/one.png", "width": 100, "height": 50},
            {"id": 3, "file_name": "two.png"},
            {"id": 9, "file_name": "none.png", "width": 10, "height": 20},
        ],
        "categories": [{"id": 2, "name": "Mass"}, {"id": 1, "name": "Nodule"}],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 1, "bbox": [1, 2, 3, 4]},
            {"id": 2, "image_id": 7, "category_id": 2, "bbox": [10.5, 0, 20, 30], "iscrowd": 0},
        ],
    } | changes


def test_coco_by_hand(write):
    drawn = read_drawn(write(json.dumps(coco())))
    assert boxes(drawn) == [("two.png", "Nodule", 1, 2, 4, 6), ("b/one.png", "Mass", 10.5, 0, 30.5, 30)]
    assert drawn.table["image_width"].to_pylist() == [None, 100]
    assert drawn.table["image_height"].to_pylist() == [None, 50]
    assert seen(drawn) == [("b/one.png", None), ("two.png", None), ("none.png", None)]
    assert drawn.looked_at["image_height"].to_pylist() == [50, None, 20]
    assert (drawn.kind, drawn.vocabulary, drawn.units) == ("COCO", ("Mass", "Nodule"), "xywh")
    assert rows(drawn) == [1, 2]


def test_coco_with_nothing_in_it(write):
    drawn = read_drawn(write(json.dumps({"images": [], "annotations": [], "categories": []})))
    assert len(drawn.table) == len(drawn.looked_at) == 0
    assert drawn.vocabulary == ()


def test_coco_annotations_of_nothing_are_left_to_the_linter(write):
    annotations = [
        {"image_id": 4, "category_id": 1, "bbox": [1, 2, 3, 4]},
        {"image_id": 3, "category_id": [1], "bbox": [1, 2, 3, 4]},
        {"image_id": 3, "category_id": 1, "bbox": [1, 2, 3]},
        {"image_id": 3, "category_id": 1},
    ]
    drawn = read_drawn(write(json.dumps(coco(annotations=annotations))))
    assert [(fault.kind, fault.row) for fault in lint(drawn.table, units=drawn.units)] == [
        ("no finding name", 2), ("no image name", 1), ("not a number", 3), ("not a number", 4),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"annotations": [{"image_id": 3, "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": 1}]}, "1 crowds"),
        ({"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}]}, "1 have one that another has: id"),
        ({"images": [{"id": 1, "file_name": "a"}, {"id": 2, "file_name": "a"}]}, "another has: file_name"),
        ({"images": [{"id": 1}]}, "1 have none: file_name"),
        ({"images": [{"id": 1, "file_name": "a", "width": 0, "height": 5}]}, "width of images is not a whole number"),
        ({"images": [{"id": 1, "file_name": 5}]}, "file_name of images is not always text"),
        ({"images": {"1": "a"}}, "images is not a list of objects"),
        ({"annotations": [[1, 2, 3, 4]]}, "annotations is not a list of objects"),
        ({"categories": [{"id": 1, "name": "Mass"}, {"id": 2, "name": "Mass"}]}, "another has: name"),
    ],
)
def test_coco_that_cannot_be_trusted(write, changes, said):
    with pytest.raises(CxrError, match=said):
        read_drawn(write(json.dumps(coco(**changes))))


# --- tables of our own, and of others whose columns are named


def test_our_own_parquet_with_readers(tmp_path):
    columns = {name: [0.5, 1.5] if name.endswith("min") else [10.25, 20.0] for name in COORDINATES}
    columns |= {"image_id": ["b", "a"], "finding": ["Mass", "Mass"], "reader": ["R1", None], "patient_id": ["007", "8"]}
    columns |= {"image_width": [100, 50], "image_height": [100, 50], "split": ["test", "test"]}
    write_boxes(tmp_path / "truth.parquet", truth_table(columns), {})
    drawn = read_drawn(tmp_path / "truth.parquet")
    assert drawn.table.schema.equals(SCHEMA)
    assert boxes(drawn) == [("a", "Mass", 1.5, 1.5, 20, 20), ("b", "Mass", 0.5, 0.5, 10.25, 10.25)]
    assert drawn.table["reader"].to_pylist() == [None, "R1"]
    assert drawn.table["patient_id"].to_pylist() == ["8", "007"]
    assert drawn.table["image_width"].to_pylist() == [50, 100]
    assert (drawn.kind, drawn.vocabulary, drawn.looked_at) == ("table", None, None)


def test_parquet_in_another_form(tmp_path):
    table = pa.table({"patientId": ["p", "q"], "x": [1.0, None], "y": [2.0, None], "width": [3, None],
                      "height": [4, None], "Target": [1, 0]})  # fmt: skip
    pq.write_table(table, tmp_path / "labels.pq")
    drawn = read_drawn(tmp_path / "labels.pq")
    assert boxes(drawn) == [("p", "Lung Opacity", 1, 2, 4, 6)]
    assert seen(drawn) == [("p", None), ("q", None)]


def test_our_own_csv(write):
    text = f"\ufeff{OWN},patient_id,image_width,image_height,reader,extra\r\n"
    text += '"a, left.png","Mass, other",1,2,3.5,4,0042,10,,R1,x\r\n\r\n'
    text += "00001,Mass,,nan,1e99,1e1,,,,,\r\n,,,,,,,,,,\r\nb,Mass,1,2,3,four\r\n"
    drawn = read_drawn(write(text))
    assert boxes(drawn) == [
        ("a, left.png", "Mass, other", 1, 2, 3.5, 4),
        ("00001", "Mass", None, None, None, 10),
        ("b", "Mass", 1, 2, 3, None),
    ]
    assert rows(drawn) == [1, 3, 5]
    assert drawn.table["patient_id"].to_pylist() == ["0042", None, None]
    assert drawn.table["image_width"].to_pylist() == [10, None, None]
    assert drawn.table["reader"].to_pylist() == ["R1", None, None]
    assert [(fault.kind, fault.row, fault.what) for fault in lint(drawn.table)] == [
        ("not a number", 3, "x_min, y_min, x_max"), ("not a number", 5, "y_max"),
    ]  # fmt: skip


def test_blanks_around_a_field_are_no_part_of_it(write):
    text = OWN.replace(",", " , ") + ",reader\n a.png , Mass, 1,2 , 3,4 ,  \n"
    drawn = read_drawn(write(text))
    assert boxes(drawn) == [("a.png", "Mass", 1, 2, 3, 4)]
    assert drawn.table["reader"].to_pylist() == [None]


@pytest.mark.parametrize("size", ["0", "-5", "12.5", "wide", "nan"])
def test_an_image_of_no_size(write, size):
    with pytest.raises(CxrError, match="image_width is not a whole number from 1 in row 2"):
        read_drawn(write(f"{OWN},image_width\na,Mass,1,2,3,4,\nb,Mass,1,2,3,4,{size}\n"))


@pytest.mark.parametrize("header", [NIH, VINDR, RSNA, OWN])
def test_a_header_and_nothing_below(write, header):
    drawn = read_drawn(write(header))
    assert len(drawn.table) == 0
    assert drawn.table.schema.equals(SCHEMA)
    assert drawn.looked_at is None or len(drawn.looked_at) == 0
    assert lint(drawn.table, findings=drawn.vocabulary, units=drawn.units) == []


def test_named_columns(write):
    text = 'filename,label,x,y,w,h,pid,rad\n"one, a.png",Mass,1,2,3,4,p1,R1\ntwo.png,Nodule,5,6,7,8,p2,R2\n'
    told = "image_id=filename,finding=label,x_min=x,y_min=y, width = w,height=h,patient_id=pid,reader=rad"
    drawn = read_drawn(write(text), parse_columns(told))
    assert boxes(drawn) == [("one, a.png", "Mass", 1, 2, 4, 6), ("two.png", "Nodule", 5, 6, 12, 14)]
    assert drawn.table["patient_id"].to_pylist() == ["p1", "p2"]
    assert drawn.table["reader"].to_pylist() == ["R1", "R2"]
    assert drawn.units == "xywh"


def test_columns_that_are_not_told_keep_our_name(write):
    text = "name,finding,x_min,y_min,right,y_max,width,height\na,Mass,1,2,3,4,100,200\n"
    drawn = read_drawn(write(text), {"image_id": "name", "x_max": "right"})
    assert boxes(drawn) == [("a", "Mass", 1, 2, 3, 4)]
    assert drawn.units == "corners"
    told = {"image_id": "name", "x_max": "right", "image_width": "width", "image_height": "height"}
    assert read_drawn(write(text), told).table["image_height"].to_pylist() == [200]


def test_named_columns_read_a_form_as_it_is_told(write):
    text = "Image Index,Finding Label,Bbox [x,y,w,h]\na,Mass,1,2,3,4\n"
    told = parse_columns("image_id=Image Index,finding=Finding Label,x_min=Bbox [x,y_min=y,x_max=w,y_max=h]")
    assert boxes(read_drawn(write(text), told)) == [("a", "Mass", 1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("image_id", "'image_id' is not of the form name=value. Write it like image_id=filename"),
        ("image_id=", "is not of the form"),
        ("", "is not of the form"),
        ("image_id=a,image_id=b", "image_id is given twice: a and b"),
        ("imageid=a", "There is no column 'imageid' to be named. Did you mean image_id?"),
        ("width=w", "width is named, and height is not. Add height=…."),
        ("width=w,height=h,x_max=r", "Both width and x_max are named"),
    ],
)
def test_columns_that_cannot_be_told(told, said):
    with pytest.raises(UsageError) as error:
        parse_columns(told)
    assert said in str(error.value)


def test_named_columns_that_are_not_there(write):
    path = write("filename,label,x,y,w,h\na,Mass,1,2,3,4\n")
    told = {"image_id": "file_name", "finding": "label", "x_min": "x", "y_min": "y", "width": "w", "height": "h"}
    with pytest.raises(UsageError, match=r"no column 'file_name' for image_id\. Did you mean filename\?"):
        read_drawn(path, told)
    with pytest.raises(UsageError, match="no column 'x_max' for x_max"):
        read_drawn(path, {"image_id": "filename", "finding": "label", "x_min": "x", "y_min": "y"})
    with pytest.raises(UsageError, match="is JSON"):
        read_drawn(write("{}"), told)


# --- files that are something else, or damaged


def test_a_form_is_recognised_by_what_is_in_the_file(write):
    assert read_drawn(write(VINDR + "a,ILD,5,R1,1,2,3,4\n", "BBoxes.json")).kind == "VinDr"
    assert read_drawn(write(gzip.compress(json.dumps(HAM).encode()), "train.csv")).kind.startswith("CheXpert")
    assert read_drawn(write("\ufeff \n" + json.dumps(coco()), "BBox_List_2017.csv")).kind == "COCO"
    assert read_drawn(write(gzip.compress(NIH.encode(), mtime=0), "truth.parquet")).kind == "NIH BBox_List"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "in no form that is known here: it is empty"),
        (b"\n ,\n", "it is empty"),
        (pickle.dumps({"a": 1}), "neither Parquet nor UTF-8 text"),
        ("a,b\n1,2\n".encode("utf-16"), "neither Parquet nor UTF-8 text"),
        (b"image_id,label\na,Mass\n", "its columns are image_id, label. Known: NIH's BBox_List_2017.csv; a table"),
        (",".join(f"c{i}" for i in range(20)).encode(), "c11 and 8 more"),
        (b"[]", "its JSON is of another shape"),
        (b"{}", "its JSON is of another shape"),
        (b'[{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]', "its JSON is of another shape"),
        (b'{"train/patient1/a.jpg": {"Edema": [[1, 2', "is damaged JSON"),
        (b"[" * 100_000, "is damaged JSON"),
        (b'{"train/patient1/a.jpg": {}, "train/patient1/a.jpg": {}}', "has 'train/patient1/a.jpg' twice"),
        (b"PAR1 and no more", "is damaged Parquet"),
        (gzip.compress(NIH.encode() * 99, mtime=0)[:40], "damaged or cut off gzip file"),
        (b"\x1f\x8b no gzip", "damaged or cut off gzip file"),
        (f"{OWN}\na,Mass,1,2,3,4\n\na,Mass, left,1,2,3,4\n".encode(), r"than the header has \(6\) in row 3"),
        (f'{OWN}\n"a,Mass,1,2,3,4\nb,Mass,1,2,3,4\n'.encode(), "damaged CSV file: unexpected end of data"),
        (f"{OWN},finding\n".encode(), "more than one column finding"),
    ],
)
def test_files_that_cannot_be_read(write, content, said):
    with pytest.raises(CxrError, match=said):
        read_drawn(write(content))


def test_paths_that_are_no_files(tmp_path):
    with pytest.raises(CxrError, match="There is no truth at"):
        read_drawn(tmp_path / "none.csv")
    with pytest.raises(CxrError, match="cannot be read: Is a directory"):
        read_drawn(tmp_path)


def test_a_gzip_file_that_swells_is_refused(write, monkeypatch):
    monkeypatch.setattr(gzipped, "MOST_UNPACKED", 2**20)
    with pytest.raises(CxrError, match="unpacks to more than 1 MiB"):
        read_drawn(write(gzip.compress(bytes(2**20 + 1), mtime=0)))
    assert len(read_drawn(write(gzip.compress(NIH.encode(), mtime=0))).table) == 0


def test_parquet_of_a_newer_program_is_refused(tmp_path):
    table = pa.table({name: [] for name in OWN.split(",")}).replace_schema_metadata({"cxrmine": '{"schema": 99}'})
    pq.write_table(table, tmp_path / "truth.parquet")
    with pytest.raises(CxrError, match="schema version 99"):
        read_drawn(tmp_path / "truth.parquet")


def test_csv_and_parquet_say_the_same(write, tmp_path):
    text = io.StringIO()
    out = csv.writer(text)
    out.writerow(OWN.split(","))
    corners = np.random.default_rng(0).random((50, 4)) * 1000
    out.writerows([f"{i}.png", "Mass", *box] for i, box in enumerate(corners.tolist()))
    columns = {"image_id": [f"{i}.png" for i in range(50)], "finding": ["Mass"] * 50}
    pq.write_table(pa.table(columns | dict(zip(COORDINATES, corners.T, strict=True))), tmp_path / "a.parquet")
    assert read_drawn(write(text.getvalue())).table.equals(read_drawn(tmp_path / "a.parquet").table)
