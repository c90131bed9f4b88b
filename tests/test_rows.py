"""Rows of a dataset's own tables: which are lost, how they are numbered, and how fields and letters are written."""

from pathlib import Path

import pytest

from cxrmine.data.datasets import open_dataset
from cxrmine.data.index import Index
from cxrmine.data.rows import read_rows
from cxrmine.data.tree import Tree
from cxrmine.errors import CxrError

QUOTED = "t.csv: in a quoted field that goes on over whole rows"
TORN = "t.csv: another number of fields than its header"


def rows_of(tmp_path: Path, text: str, *columns: str) -> tuple[dict[str, list], list[int], dict[str, tuple]]:
    """The columns, the numbers of the rows, and the ledger."""
    (tmp_path / "t.csv").write_bytes(text.encode())
    sheet, ledger = read_rows(Tree(tmp_path), "t.csv", columns)
    said = {entry.reason: (entry.count, entry.examples) for entry in ledger}
    return {name: column.to_pylist() for name, column in sheet.columns.items()}, sheet.row.tolist(), said


def test_rows_keep_their_numbers_after_one_that_is_torn(tmp_path: Path) -> None:
    columns, numbers, said = rows_of(tmp_path, "a,b\n1,x\n2\n3,y\n4,z,,\n5,w\n", "a")
    assert columns == {"a": ["1", "3", "5"]}
    assert numbers == [1, 3, 5]
    assert said == {TORN: (2, ("2", "4"))}


def test_a_message_names_the_row_as_the_file_has_it(tmp_path: Path) -> None:
    rows = [f"{i}.png,{i},{i % 2}" for i in range(20)]
    rows[1] = "1.png,1,0,more"
    rows[4] = "4.png,4,7"
    (tmp_path / "t.csv").write_text("\n".join(["image,patient,Mass", *rows]))
    with pytest.raises(CxrError, match="Mass is '7' in row 5"):
        open_dataset(tmp_path)


def test_rows_inside_a_quote_are_counted(tmp_path: Path) -> None:
    """Row 2 opens a quote that row 4 closes: of three rows none is whole, and the fifth is number 5."""
    text = 'film,m,note\n1.png,1,ok\n2.png,0,"big\n3.png,1,ok\n4.png,0,x"\n5.png,1,ok\n'
    columns, numbers, said = rows_of(tmp_path, text, "film", "m")
    assert columns == {"film": ["1.png", "5.png"], "m": ["1", "1"]}
    assert numbers == [1, 5]
    assert said == {QUOTED: (3, ("2.png", "3.png", "4.png"))}


def test_a_quote_that_never_ends(tmp_path: Path) -> None:
    columns, _, said = rows_of(tmp_path, 'film,m,note\r\n1.png,1,ok\r\n2.png,0,"big\r\n3.png,1,ok\r\n4.png,0,x', "film")
    assert columns == {"film": ["1.png"]}
    assert said == {QUOTED: (3, ("2.png", "3.png", "4.png"))}


def test_a_quote_that_ends_amid_a_row_tears_it(tmp_path: Path) -> None:
    """The torn row has three lines, which are rows. Before it one is torn for itself."""
    text = 'film,m,note\n0.png\n1.png,1,ok\n2.png,"0,big\n3.png,1,ok\n4.png,0",x,y\n5.png,1,ok\n'
    columns, numbers, said = rows_of(tmp_path, text, "film")
    assert columns == {"film": ["1.png", "5.png"]}
    assert numbers == [2, 6]
    assert said == {TORN: (1, ("0.png",)), QUOTED: (3, ("2.png", "3.png", "4.png"))}


@pytest.mark.parametrize(
    "cell", ["heart, lungs,\nribs, none", "a\nb, c, d", "['C1' 'C2'\n 'C3']", "1. no change\n2. none\n\n3. end"]
)
def test_a_field_of_several_lines_is_one(tmp_path: Path, cell: str) -> None:
    """Also one of which a line has as many commas as a row: it does not begin as rows do."""
    columns, numbers, said = rows_of(
        tmp_path, f'film,m,note\n1.png,1,ok\n2.png,0,"{cell}"\n3.png,1,ok\n', "film", "note"
    )
    assert columns["film"] == ["1.png", "2.png", "3.png"]
    assert columns["note"][1] == cell
    assert numbers == [1, 2, 3]
    assert said == {}


@pytest.mark.parametrize("mark", [";", "\t"])
def test_other_marks_than_commas(tmp_path: Path, mark: str) -> None:
    lines = ["image,patient,labels", '"a,b.png",1,Mass', "c.png,2,No Finding", "d.png,3"]
    lines = [line.replace('"a,b.png"', "?").replace(",", mark).replace("?", "a,b.png") for line in lines]
    (tmp_path / "t.csv").write_text("\ufeff" + "\n".join(lines))
    index = open_dataset(tmp_path)
    assert index.table["image_id"].to_pylist() == ["a,b.png", "c.png"]
    assert index.labels().tolist() == [[1], [0]]
    assert [(entry.reason, entry.examples) for entry in index.dropped] == [(TORN, ("d.png",))]


def test_boxes_beside_a_table_with_semicolons(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,patient,Mass\na.png,1,1\nb.png,2,0\n")
    (tmp_path / "boxes.csv").write_text("image_id;finding;x_min;y_min;x_max;y_max\na.png;Mass;1;2;3;4.5\n")
    box = open_dataset(tmp_path).boxes.to_pylist()
    assert [tuple(row.values()) for row in box] == [("a.png", "Mass", 1.0, 2.0, 3.0, 4.5, None)]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_other_text_than_utf8(tmp_path: Path, encoding: str, capfd: pytest.CaptureFixture[str]) -> None:
    text = "image,patient,Mass,note\na.png,1,1,x\nb.png,2,0,caf\xe9\nc.png,3,1,\xe9t\xe9,torn\n"
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    line = 3 if encoding == "latin-1" else 1
    with pytest.raises(CxrError, match=f"t.csv is not UTF-8 text, from line {line} on. Save it as UTF-8."):
        open_dataset(tmp_path)
    assert capfd.readouterr() == ("", "")


# --- tables of one form, a split each


def two(tmp_path: Path, **files: str) -> Index:
    for name, text in files.items():
        (tmp_path / f"{name}.csv").write_text(text)
    return open_dataset(tmp_path)


def test_a_table_for_each_split(tmp_path: Path) -> None:
    """Columns may stand in another order; the film that two tables have is taken once."""
    index = two(
        tmp_path,
        train="image,patient,Mass\na.png,1,1\nb.png,2,0\n",
        validation="image,patient,Mass\nv.png,3,0\n",
        test="patient,image,Mass\n4,c.png,1\n1,a.png,1\n",
    )
    table = index.table
    assert dict(zip(table["image_id"].to_pylist(), table["split"].to_pylist(), strict=True)) == {
        "a.png": "test", "b.png": "train", "c.png": "test", "v.png": "val",
    }  # fmt: skip
    assert index.labels().tolist() == [[1], [0], [1], [0]]
    assert [(entry.reason, entry.count) for entry in index.dropped] == [("second row of an image", 1)]
    assert (
        "test.csv and train.csv and validation.csv have the same columns, and are read as one table; the split is what "
        "the file's name says"
    ) in index.notes


def test_their_own_splits_are_kept_and_rows_counted_on(tmp_path: Path) -> None:
    """Row 3 is the second of train.csv, after the one of test.csv."""
    of = {"test": "image,Mass,set\nx.png,1,val\n", "train": "image,Mass,set\na.png,1,train\nb.png,0,nonsense\n"}
    with pytest.raises(CxrError, match=r"test.csv \+ train.csv: set is 'nonsense' in row 3"):
        two(tmp_path, **of)
    index = two(tmp_path, test=of["test"], train=of["train"].replace("nonsense", "test"))
    assert index.table["split"].to_pylist() == ["train", "test", "val"]


def test_tables_that_are_not_parts_of_one(tmp_path: Path) -> None:
    with pytest.raises(CxrError, match="2 tables of films and findings"):
        two(tmp_path, train="image,Mass\na,1\nb,0\n", test="image,Mass,Nodule\nc,1,0\n")
    (tmp_path / "test.csv").write_text("image\nc\n")  # as challenges have it: without labels
    index = open_dataset(tmp_path)
    assert index.table["image_id"].to_pylist() == ["a", "b"]
    assert "tables that are not read: test.csv" in index.notes


# --- findings in words before findings in numbers


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        ("image,patient,label,class", ("a,1,1,Mass", "b,2,0,Normal")),
        ("image,patient,class,class_name", ("a,1,6,Mass", "b,2,14,No finding")),
        ("image,patient,labels,finding_labels,class", ("a,1,1,Mass,3", "b,2,0,normal,4")),
    ],
)
def test_words_before_numbers(tmp_path: Path, header: str, rows: tuple[str, ...]) -> None:
    (tmp_path / "t.csv").write_text("\n".join((header, *rows)))
    index = open_dataset(tmp_path)
    assert index.findings == ("Mass",)
    assert index.labels().tolist() == [[1], [0]]


def test_boxes_have_the_word_of_their_row(tmp_path: Path) -> None:
    rows = "image,patient,class,class_name,x_min,y_min,x_max,y_max\na,1,6,Mass,1,1,5,5\na,1,7,Nodule,2,2,4,4\n"
    (tmp_path / "t.csv").write_text(rows)
    assert open_dataset(tmp_path).boxes["finding"].to_pylist() == ["Mass", "Nodule"]
