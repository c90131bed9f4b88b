"""What a person says of how a dataset is to be read: by flags, in the dataset's own file, and to which layout."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cxrmine.cli import app
from cxrmine.data.datasets import open_dataset
from cxrmine.data.reading import FILE, OURS, Reading, from_flags, refuse_untaken, with_own
from cxrmine.data.tree import Tree
from cxrmine.errors import CxrError, UsageError
from tests.test_check import write


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", {}),
        ("image=filename", {"image": "filename"}),
        ("image=file name, patient = who", {"image": "file name", "patient": "who"}),
        ("image=f,findings=Mass,Nodule", {"image": "f", "findings": "Mass|Nodule"}),
        ("findings=Mass,Nodule, Edema,image=f", {"findings": "Mass|Nodule| Edema", "image": "f"}),
    ],
)
def test_columns_of_a_flag(text: str, told: dict[str, str]) -> None:
    assert from_flags(columns=text) == Reading(told)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"columns": "imag=f"}, r"no column 'imag' to be named\. Did you mean image\? Write ours=theirs"),
        ({"columns": "image"}, r"'image' is not of the form name=value\."),
        ({"columns": "image=a,image=b"}, r"image is given twice: a and b\."),
        ({"views": "frontl"}, r"--views frontl is not known\. Did you mean frontal\? Say frontal or all\."),
    ],
)
def test_flags_that_cannot_be_understood(flags: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        from_flags(**flags)


def test_every_source_and_which_is_stronger(tmp_path: Path) -> None:
    """A flag counts for what it names; a flag that says what is meant anyhow, frontal, counts too."""
    tree = Tree(tmp_path)
    assert with_own(Reading({"image": "a"}), tree) == Reading({"image": "a"})
    (tmp_path / FILE).write_text('views = "all"\nvocabulary = "ham"\n[columns]\nimage = "theirs"\npatient = "who"\n')
    assert with_own(Reading(), tree) == Reading({"image": "theirs", "patient": "who"}, "all", "ham")
    told = from_flags("image=mine", "frontal", "vindr")
    assert with_own(told, tree) == Reading({"image": "mine", "patient": "who"}, "frontal", "vindr")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("view = 'all'", r"there is no key view\. Did you mean views\? The keys are columns, views, vocabulary\."),
        ("views = 'both'", r"views = 'both' is not known\. Say frontal or all\."),
        ("vocabulary = 3", r"has a value that is not text\."),
        ("columns = 'image'", r"has a value that is not text\."),
        ("[columns]\nimage = 1", r"has a value that is not text\."),
        ("views", r"is not valid TOML"),
    ],
)
def test_a_file_that_cannot_be_understood(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(CxrError, match=rf"{FILE}.*{message}"):
        with_own(Reading(), Tree(tmp_path))


def test_a_layout_says_what_it_takes() -> None:
    refuse_untaken(Reading({"patient": "who"}), ("patient",), "COCO")
    with pytest.raises(CxrError, match=r"COCO does not let 'view' be named.* It takes patient\."):
        refuse_untaken(Reading({"view": "side"}), ("patient",), "COCO")
    with pytest.raises(CxrError, match=r"Its columns are known: tell none\."):
        refuse_untaken(Reading({"view": "side"}), (), "ChestX-ray14")


def test_a_layout_whose_columns_are_known_takes_none(tmp_path: Path) -> None:
    root = write(tmp_path / "d")
    with pytest.raises(CxrError, match="ChestX-ray14 does not let 'image' be named"):
        open_dataset(root, Reading({"image": "Image Index"}))


def test_every_name_of_ours_is_known_to_the_table() -> None:
    from cxrmine.data.columns import NAMES
    from cxrmine.data.layouts import table

    assert {*NAMES} | {"table", "labels"} == {*OURS}
    assert {*table.COLUMNS} == {*OURS} - {"labels"}


def test_check_takes_the_flags(tmp_path: Path) -> None:
    """Two films without a patient, one of them lateral; --views all reads it too."""
    root = write(tmp_path / "d")
    for name in ("Data_Entry_2017.csv", "BBox_List_2017.csv", "train_val_list.txt", "test_list.txt"):
        (root / name).unlink()
    (root / "t.csv").write_text("film name,what,pov\na.png,Pleural Effusion,PA\nb.png,No Finding,LATERAL\n")
    asked = [
        "check",
        "--data",
        str(root),
        "--fast",
        "--json",
        "-",
        "--columns",
        "image=film name,findings=what,view=pov",
    ]
    one = CliRunner().invoke(app, asked)
    assert one.exit_code == 0, one.output
    document = json.loads(one.stdout)
    assert (document["layout"], document["images"]["all"], list(document["findings"])) == (
        "table", 1, ["Pleural Effusion"],
    )  # fmt: skip
    both = CliRunner().invoke(app, [*asked, "--views", "all", "--vocabulary", "chestxray14"])
    document = json.loads(both.stdout)
    assert (document["views"], list(document["findings"])) == ({"LATERAL": 1, "PA": 1}, ["Effusion"])
    wrong = CliRunner().invoke(app, ["check", "--data", str(root), "--columns", "pov=view"])
    assert wrong.exit_code == 2
