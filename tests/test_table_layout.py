"""A table of any origin beside films: which column is which, what a row says, and whose film it is."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxrmine.data.datasets import open_dataset
from cxrmine.data.index import Index
from cxrmine.data.meant import meant
from cxrmine.data.reading import Reading
from cxrmine.errors import CxrError
from tests.miniature import FINDINGS, Case, cases, write_dicom, write_jpg, write_png

PATIENT = "MRN-555-"  # of DICOM headers: must never be seen outside


def film_of(case: Case) -> str:
    return f"films/{('a', 'b/c')[case.number % 2]}/film{case.number:03}.{('png', 'jpg', 'dcm')[case.number % 3]}"


def put_film(root: Path, case: Case) -> None:
    path = root / film_of(case)
    if path.suffix == ".dcm":
        write_dicom(path, case.pixels, patient=f"{PATIENT}{case.patient}", view="PA")
    else:
        (write_png if path.suffix == ".png" else write_jpg)(path, case.pixels)


def put(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path.parent


def write(root: Path, made: list[Case], joined: bool = False) -> Path:
    """Films of all kinds in two folders, and labels.csv: a column a finding; or findings joined, and a row a box."""
    rows: list[list[object]] = []
    for case in made:
        put_film(root, case)
        own = [film_of(case), f"p{case.patient}", {"val": "valid"}.get(case.split, case.split), "PA"]
        if joined:
            words = "|".join(case.findings) or "No Finding"
            rows += [[*own, words, *box] for box in case.boxes] or [[*own, words, *[""] * 5]]
        else:
            rows.append([*own, *(int(finding in case.findings) for finding in FINDINGS)])
    named = ("findings", "finding", "x_min", "y_min", "x_max", "y_max") if joined else FINDINGS
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "patient", "split", "view", *named), *rows])
    return root


def rows(index: Index, *names: str) -> list[tuple]:
    return list(zip(*(index.table[name].to_pylist() for name in names), strict=True))


def ledger(index: Index) -> dict[str, tuple[int, tuple[str, ...]]]:
    return {entry.reason: (entry.count, entry.examples) for entry in index.dropped}


def labels(index: Index) -> dict[str, tuple[int | None, ...]]:
    values = index.table["labels"].to_pylist()
    return {row[0]: tuple(value.values()) for row, value in zip(rows(index, "image_id"), values, strict=True)}


def careful(index: Index) -> list[str]:
    return [note for note in index.notes if note.startswith("CAREFUL")]


def of_text(tmp_path: Path, *lines: str, told: dict[str, str] | None = None) -> Index:
    return open_dataset(put(tmp_path / "labels.csv", *lines), Reading(told or {}))


# --- whole datasets


@pytest.mark.parametrize("joined", [False, True])
def test_films_of_all_kinds(tmp_path: Path, joined: bool) -> None:
    made = cases(12)
    index = open_dataset(write(tmp_path / "d", made, joined))
    made.sort(key=film_of)
    assert (index.layout, index.findings, index.dropped) == ("table", FINDINGS, ())
    assert rows(index, "image_id", "path", "split", "patient_id", "view") == [
        (film_of(c), film_of(c), c.split, f"p{c.patient}", "PA") for c in made
    ]
    assert list(labels(index).values()) == [tuple(int(f in c.findings) for f in FINDINGS) for c in made]
    drawn = sorted((film_of(c), *box, None) for c in made for box in c.boxes) if joined else []
    assert [tuple(row.values()) for row in index.boxes.to_pylist()] == drawn
    assert careful(index) == []


def test_parquet_says_the_same_as_csv(tmp_path: Path) -> None:
    """Truth values, lists of words and numbers with decimals are what they mean."""
    put(tmp_path / "a" / "t.csv", "image,patient,Mass,Nodule", "x,1,1,0", "y,2,0,", "z,3,-1,1")
    columns = {"image": ["x", "y", "z"], "patient": [1, 2, 3], "Mass": [1.0, 0.0, -1.0], "Nodule": [0, None, 1]}
    (tmp_path / "b").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "b" / "t.parquet")
    one, two = open_dataset(tmp_path / "a"), open_dataset(tmp_path / "b")
    assert labels(one) == labels(two) == {"x": (1, 0), "y": (0, None), "z": (-1, 1)}
    assert one.fingerprint == two.fingerprint
    (tmp_path / "c").mkdir()
    more = {"image": ["x", "y", "z"], "labels": [["Mass", "Nodule"], [], ["Mass"]], "patient": ["1", "1", "2"]}
    pq.write_table(pa.table(more), tmp_path / "c" / "t.parquet")
    assert labels(open_dataset(tmp_path / "c")) == {"x": (1, 1), "y": (None, None), "z": (1, 0)}
    (tmp_path / "d").mkdir()
    pq.write_table(pa.table({"image": ["x", "y"], "Mass": [True, False]}), tmp_path / "d" / "t.parquet")
    assert labels(open_dataset(tmp_path / "d")) == {"x": (1,), "y": (0,)}


# --- which column is which


HEADERS = (
    ("Image Index,Finding Labels,Patient ID,View Position,set", {}),
    ("filename,labels,subject_id,view,subset", {}),
    ("PATH,class,PatientID,ViewPosition,Split", {}),
    ("file,what,who,side,part", {"image": "file", "findings": "what", "patient": "who", "view": "side",
                                 "split": "part"}),
)  # fmt: skip


@pytest.mark.parametrize(("header", "told"), HEADERS)
def test_columns_by_their_names_or_told(tmp_path: Path, header: str, told: dict[str, str]) -> None:
    index = of_text(tmp_path, header, "b.png,Mass|Nodule,p1,PA,test", "a.png,No Finding,p2,AP,valid", told=told)
    assert rows(index, "image_id", "patient_id", "view", "split") == [
        ("a.png", "p2", "AP", "val"), ("b.png", "p1", "PA", "test"),
    ]  # fmt: skip
    assert labels(index) == {"a.png": (0, 0), "b.png": (1, 1)}
    assert index.findings == ("Mass", "Nodule")


def test_the_dataset_s_own_file_tells_and_the_flag_is_stronger(tmp_path: Path) -> None:
    put(tmp_path / "cxrmine-data.toml", 'views = "all"', "[columns]", 'findings = "A,B"', 'patient = "who"')
    lines = ("image,A,B,C,who,whose,view", "x,1,0,1,p,q,PA", "y,0,1,1,p,q,LATERAL")
    assert rows(of_text(tmp_path, *lines), "image_id", "patient_id") == [("x", "p"), ("y", "p")]
    index = of_text(tmp_path, *lines, told={"patient": "whose"})
    assert (rows(index, "patient_id")[0], index.findings) == (("q",), ("A", "B"))
    assert len(open_dataset(tmp_path, Reading(views="frontal"))) == 1


@pytest.mark.parametrize(
    ("lines", "told", "message"),
    [
        (("a,Mass", "x,1"), {}, r"no column that is known to be the film's name; its columns are a, Mass\. Name it: "),
        (("image,age", "x,7"), {}, r"no column that is known to be findings; its columns are image, age\."),
        (("image,Mass", "x,1"), {"findings": "Mas"}, r"no column 'Mas' for findings\. Did you mean Mass\?"),
        (("image,Mass", "x,1"), {"findings": "Mass|Nodule"}, r"no column 'Nodule' for findings"),
        (("image,Mass", "x,1", "y,yes"), {"findings": "Mass|Mass"}, r"Mass is 'yes' in row 2\. It can be 1, 0, -1"),
        (("image,Mass", *["x,1"] * 9, "y,2"), {}, r"Mass is '2' in row 10\."),
        (("image,labels", "x,Mass", "y,Mass|3"), {}, r"labels has '3' in row 2, which is no finding\."),
        (("image,labels,split", "x,Mass,train", "y,Mass,A"), {}, r"split is 'A' in row 2, which is no split\."),
        (("image,Mass,x,y", "x,1,2,3"), {"x": "x"}, r"x is named, and the other sides of a box are not known\."),
        (("image,A,B,x,y,width,height", "x,1,0,1,1,9,9"), {}, r"has boxes, and no column of their finding\."),
        (("image,label,x,y,w,h", "a,Mass,.1,.2,.3,1"), {}, r"boxes in parts of a film, all at most 1\."),
        (("image,image,Mass", "a,b,1"), {}, r"more than one column image\."),
        (("image,Mass", "a,1"), {"table": "label.csv"}, r"no table label\.csv\. Did you mean labels\.csv\?"),
        (("image,Mass", "a,1"), {"pateint": "b"}, r"does not let 'pateint' be named.* Did you mean patient\?"),
    ],
)  # fmt: skip
def test_what_cannot_be_understood(tmp_path: Path, lines: Sequence[str], told: dict[str, str], message: str) -> None:
    with pytest.raises(CxrError, match=message):
        of_text(tmp_path, *lines, told=told)


def test_of_several_tables_one_is_chosen(tmp_path: Path) -> None:
    put(tmp_path / "ages.csv", "image,age", "x,50")
    assert "tables that are not read: ages.csv" in of_text(tmp_path, "image,Mass", "x,1").notes
    put(tmp_path / "more.csv", "image,Nodule", "x,1")
    with pytest.raises(CxrError, match=r"2 tables of films and findings: labels\.csv, more\.csv\. .*table=labels\.csv"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path, Reading({"table": "more.csv"})).findings == ("Nodule",)


# --- findings


def test_columns_of_one_and_nought(tmp_path: Path) -> None:
    """Age and sex are none, though sex is 1 and 0 here; No Finding makes of what is empty a 0, and of -1 nothing."""
    index = of_text(
        tmp_path,
        "image,sex,age,Mass,Edema,Nodule,No Finding",
        "a,1,50,1.0,0,−1,0",
        "b,0,51,,u,,",
        "c,1,0,,-1.0,,1",
        "d,1,1,1,,,1",
    )
    assert index.findings == ("Mass", "Edema", "Nodule")
    assert labels(index) == {"a": (1, 0, -1), "b": (None, -1, None), "c": (0, -1, 0), "d": (1, 0, 0)}
    assert "rows that say there is no finding, beside a finding, which then counts: 1" in index.notes
    assert "columns that are not read: sex, age" in index.notes


@pytest.mark.parametrize(
    "words", ["Mass;Nodule", "Mass|Nodule", '"Nodule, Mass"', "\"['Mass', 'Nodule']\"", "Mass; Nodule;"]
)
def test_findings_in_words(tmp_path: Path, words: str) -> None:
    index = of_text(tmp_path, "image,label", f"a,{words}", "b,normal", "c,", "d,Mass", "e,NONE")
    assert labels(index) == {"a": (1, 1), "b": (0, 0), "c": (None, None), "d": (1, 0), "e": (0, 0)}


def test_one_column_of_findings_that_is_told_may_be_of_one_finding(tmp_path: Path) -> None:
    lines = ("image,Mass,Nodule", "a,1,0", "b,0,1")
    assert labels(of_text(tmp_path, *lines, told={"findings": "Mass"})) == {"a": (1,), "b": (0,)}


# --- films


def test_films_by_path_end_and_name(tmp_path: Path) -> None:
    """c.png lies in two places, e.png is wanted twice, and what leaves the folder is not looked for."""
    made = cases(1)[0].pixels
    for name in ("x/a.png", "x/y/b.png", "x/c.png", "y/c.png", "e.png", "x/f.dcm.png", "x/g.png", "z/d.png"):
        write_png(tmp_path / "d" / name, made)
    names = ("x/a.png", "y/b.png", "c.png", "q/e.png", "r/e.png", "f", "old/g.png", "../d.png", "/x/a.png", "h.png")
    index = of_text(tmp_path / "d", "image,Mass", *(f"{name},1" for name in names))
    assert dict(rows(index, "image_id", "path")) == {
        "x/a.png": "x/a.png", "y/b.png": "x/y/b.png", "c.png": None, "q/e.png": None, "r/e.png": None,
        "f": "x/f.dcm.png", "old/g.png": "x/g.png", "h.png": None,
    }  # fmt: skip
    found = ledger(index)
    assert found["unsafe image name"] == (2, ("'../d.png'", "'/x/a.png'"))
    assert found["image that may be one of several films"] == (3, ("c.png", "q/e.png", "r/e.png"))


def test_a_name_that_several_want_is_no_sign_of_any() -> None:
    """Of a dataset in which every patient has a view1.png, one film is here."""
    assert meant(["p1/view1.png", "p2/view1.png"], ["p3/view1.png"]) == ([None, None], [])
    assert meant(["p1/view1.png"], ["p3/view1.png"]) == (["p3/view1.png"], [])


def test_a_path_beside_the_image_s_name(tmp_path: Path) -> None:
    write_png(tmp_path / "d" / "x" / "a.png", cases(1)[0].pixels)
    index = of_text(tmp_path / "d", "image_id,path,Mass", "one,x/a.png,1", "two,../d/x/a.png,1", "three,/x/a.png,0")
    assert rows(index, "image_id", "path") == [("one", "x/a.png"), ("three", None), ("two", None)]
    assert ledger(index)["path that leaves the dataset"] == (2, ("'../d/x/a.png'", "'/x/a.png'"))


# --- people


def test_patients_and_views_from_dicom_headers_that_stay_unsaid(tmp_path: Path) -> None:
    """Films 2, 5, 8 and 11 are DICOM, of patients 1, 2, 4 and 5; a second film of patient 1 is added."""
    made = cases(12)
    root = write(tmp_path / "d", made)
    write_dicom(root / "films" / "again.dcm", made[0].pixels, patient=f"{PATIENT}1", view="LL")
    names = [film_of(case) for case in made] + ["films/again.dcm"]
    put(root / "labels.csv", "image,Mass", *(f"{name},1" for name in reversed(names)))
    index = open_dataset(root, Reading(views="all"))
    assert dict(rows(index, "image_id", "patient_id")) == {name: name for name in names} | {
        "films/again.dcm": "films/a/film002.dcm"
    }
    views = {name: view for name, view in rows(index, "image_id", "view") if view}
    assert views == {film_of(made[i]): "PA" for i in (2, 5, 8, 11)} | {"films/again.dcm": "LL"}
    assert len(open_dataset(root)) == 12
    assert "patients: from the headers of 5 DICOM films" in index.notes
    assert [note.split(",")[0] for note in careful(index)] == ["CAREFUL: nobody says who the patient of 8 images is"]
    said = json.dumps([index.table.to_pylist(), index.notes, [entry.examples for entry in index.dropped]])
    assert PATIENT not in said


def test_a_patient_s_name_put_in_place_of_all_says_nothing(tmp_path: Path) -> None:
    for i in range(3):
        write_dicom(tmp_path / f"{i}.dcm", cases(1)[0].pixels, patient="ANON")
    index = of_text(tmp_path, "image,Mass", "0.dcm,1", "1.dcm,1", "2.dcm,0")
    assert rows(index, "patient_id") == [("0.dcm",), ("1.dcm",), ("2.dcm",)]
    assert len(careful(index)) == 2


def test_a_film_that_cannot_be_read_is_a_patient_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"junk")
    assert rows(of_text(tmp_path, "image,Mass", "a.dcm,1"), "patient_id", "view") == [("a.dcm", None)]


def test_training_images_become_validation_where_there_are_none(tmp_path: Path) -> None:
    lines = [f"{i:03},p{i},1,train" for i in range(100)] + ["t,q,1,test"]
    index = of_text(tmp_path, "image,patient,Mass,split", *lines)
    split = [word for (word,) in rows(index, "split")]
    assert 3 <= split.count("val") <= 20
    assert split[-1] == "test"
    whole = of_text(tmp_path, "image,patient,Mass,split", *lines, "v,r,1,val")
    assert [image for image, word in rows(whole, "image_id", "split") if word == "val"] == ["v"]


# --- boxes


def test_a_row_a_box(tmp_path: Path) -> None:
    """b has two boxes of one finding; c a finding without a box; d nothing; of e nobody says anything."""
    index = of_text(
        tmp_path,
        "image_id,class_name,x,y,width,height,rad_id,patient",
        "b,Mass,1,2,10,20,R1,p",
        "b,Mass,5,5,2,2,R2,p",
        "c,Nodule,,,,,R1,q",
        "d,No Finding,,,,,R2,q",
        "e,,,,,,,r",
        "b,Nodule,7,,1,1,R1,p",
        "b,Edema,7,7,0,1,R1,",
        ",Mass,1,2,3,4,R1,p",
        "b,Mass,0,0,9,9,R1,other",
    )
    assert index.findings == ("Edema", "Mass", "Nodule")
    assert labels(index) == {"b": (1, 1, 1), "c": (0, 0, 1), "d": (0, 0, 0), "e": (None, None, None)}
    assert [tuple(row.values()) for row in index.boxes.to_pylist()] == [
        ("b", "Mass", 1, 2, 11, 22, "R1"), ("b", "Mass", 5, 5, 7, 7, "R2"),
    ]  # fmt: skip
    assert index.looked_at is not None
    assert sorted(tuple(row.values()) for row in index.looked_at.to_pylist()) == [
        ("b", "R1"), ("b", "R2"), ("c", "R1"), ("d", "R2"),
    ]  # fmt: skip
    assert ledger(index) == {
        "row without an image": (1, ("labels.csv: row 8",)),
        "row that says otherwise than another of its image": (1, ("labels.csv: row 9",)),
        "box without four numbers": (1, ("row 6: b Nodule 7,?,8,?",)),
        "box without an area": (1, ("row 7: b Edema 7,7,7,8",)),
    }


def test_a_second_row_of_an_image_without_boxes_is_counted(tmp_path: Path) -> None:
    index = of_text(tmp_path, "image,Mass", "a,1", "a,0")
    assert (labels(index), ledger(index)) == ({"a": (1,)}, {"second row of an image": (1, ("a",))})


BESIDE = {
    "boxes.csv": "image_id,finding,x_min,y_min,x_max,y_max\n{0},Mass,1,2,3,4\nlost,Mass,1,2,3,4\n",
    "my_bbox.csv": "class_name,image_id,x_min,y_min,x_max,y_max,rad_id\nMass,{0},1,2,3,4,\nMass,lost,1,2,3,4,R\n",
    "boxes.json": json.dumps(
        {
            "images": [{"id": 1, "file_name": "NAME"}, {"id": 2, "file_name": "lost"}],
            "categories": [{"id": 1, "name": "Mass"}],
            "annotations": [{"id": i, "image_id": i, "category_id": 1, "bbox": [1, 2, 2, 2]} for i in (1, 2)],
        }
    ).replace("{", "{{").replace("}", "}}").replace("NAME", "{0}"),
}  # fmt: skip


@pytest.mark.parametrize("written", ["x/a.png", "a.png", "a"])
@pytest.mark.parametrize("name", BESIDE)
def test_boxes_in_a_file_of_their_own(tmp_path: Path, name: str, written: str) -> None:
    put(tmp_path / name, BESIDE[name].format(written))
    index = of_text(tmp_path, "image,Mass", "x/a.png,1", "x/b.png,0")
    assert [tuple(row.values())[:6] for row in index.boxes.to_pylist()] == [("x/a.png", "Mass", 1, 2, 3, 4)]
    assert ledger(index)["box of an image without a row"] == (1, ("row 2: lost Mass 1,2,3,4",))


def test_mined_boxes_beside_the_table_are_no_truth(tmp_path: Path) -> None:
    put(tmp_path / "boxes.csv", "image_id,finding,x_min,y_min,x_max,y_max,source", "a,Mass,1,2,3,4,cam")
    index = of_text(tmp_path, "image,Mass", "a,1")
    assert len(index.boxes) == 0
    assert "boxes: not those of boxes.csv, which come from cam, not from people" in index.notes
    (tmp_path / "labels.csv").unlink()
    with pytest.raises(CxrError, match="in no layout that is known"):
        open_dataset(tmp_path)
