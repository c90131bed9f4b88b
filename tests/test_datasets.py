"""A dataset is found where it lies, whatever lies beside it, and paths are understood however they are written."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from cxrmine.data.datasets import DAMAGED_ARCHIVE, MOST_BELOW, open_dataset
from cxrmine.data.index import Index
from cxrmine.errors import CxrError
from tests import test_chexpert, test_coco_layout, test_rsna
from tests.miniature import cases, write_png
from tests.test_archives import Passes
from tests.test_tree import tar, zipped

Form = Callable[[Path, int], str]


def table(root: Path, paths: Sequence[str] = ("f/0.png", "f/1.png", "f/2.png", "f/3.png")) -> Path:
    """Four films f/0.png and so on, and a table that names them as it is told."""
    for number, case in enumerate(cases(4)):
        write_png(root / "f" / f"{number}.png", case.pixels)
    rows = [f"{path},{number},{number % 2}" for number, path in enumerate(paths)]
    (root / "labels.csv").write_text("\n".join(["path,patient,Mass", *rows]) + "\n")
    return root


def places(index: Index) -> dict[str, str | None]:
    return dict(zip(*(index.table[name].to_pylist() for name in ("image_id", "path")), strict=True))


WHOLE = {f"f/{number}.png": f"f/{number}.png" for number in range(4)}


# --- what lies beside it


def test_a_folder_with_a_dataset_and_other_things(tmp_path: Path) -> None:
    root = test_chexpert.write(tmp_path / "CheXpert-v1.0-small", cases(8), release="CheXpert-v1.0-small")
    expected = open_dataset(root)
    (tmp_path / "CheXpert-v1.0-small.zip").write_bytes(b"PK\5\6" + bytes(18))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "read.csv").write_text("a,b\n")
    (tmp_path / "README.md").write_text("x")
    (tmp_path / "__MACOSX").mkdir()
    for archives in (False, True):
        index = open_dataset(tmp_path, archives=archives)
        assert index.fingerprint == expected.fingerprint
        assert places(index) == places(expected)
    assert any(note.startswith("folder: CheXpert-v1.0-small") for note in index.notes)


def test_of_several_datasets_none_is_guessed(tmp_path: Path) -> None:
    table(tmp_path / "one")
    test_rsna.write(tmp_path / "two", cases(4))
    with pytest.raises(CxrError, match=r"has 2 datasets in it: one \(table\), two \(RSNA Pneumonia\)\. Name one: "):
        open_dataset(tmp_path)
    for name in (tmp_path / "two").glob("*.csv"):
        name.unlink()
    assert places(open_dataset(tmp_path)) == WHOLE


def test_a_table_in_one_of_several_folders_needs_films(tmp_path: Path) -> None:
    table(tmp_path / "data")
    (tmp_path / "runs" / "am").mkdir(parents=True)
    (tmp_path / "runs" / "am" / "patients.csv").write_text("image,Mass\na,1\n")
    (tmp_path / "runs" / "am" / "model.safetensors").write_text("x")
    assert places(open_dataset(tmp_path)) == WHOLE


@pytest.mark.parametrize("folder", ["mydata/", ""])
def test_an_archive_that_a_mac_made(tmp_path: Path, folder: str) -> None:
    root = table(tmp_path / "made")
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    inside = {f"{folder}{name}": content for name, content in files.items()}
    beside = {f"__MACOSX/{folder}f/._0.png": b"\0\5", f"{folder}f/._1.png": b"\0\5", f"{folder}._labels.csv": b"\0\5"}
    index = open_dataset(zipped(tmp_path / "mac.zip", {**beside, **inside}), archives=True)
    assert places(index) == WHOLE
    assert index.dropped == ()


def test_a_tar_archive_is_gone_through_once_or_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = test_chexpert.write(tmp_path / "above" / "CheXpert-v1.0", cases(8))
    files = {p.relative_to(tmp_path / "above").as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}
    archive = tar(tmp_path / "cx.tar.gz", files)
    expected = open_dataset(root).fingerprint
    passes = Passes(monkeypatch)
    assert open_dataset(archive, archives=True).fingerprint == expected
    assert passes.count == 2  # the second for the size of some films with boxes


@pytest.mark.parametrize("name", ["test.csv", "train.csv", "valid.csv"])
def test_an_empty_table_of_nobody(tmp_path: Path, name: str) -> None:
    (table(tmp_path) / name).write_text("")
    index = open_dataset(tmp_path)
    assert places(index) == WHOLE
    assert f"tables that are not read: {name}" in index.notes


def test_a_damaged_table_of_a_layout_is_no_reason_to_read_another(tmp_path: Path) -> None:
    root = test_chexpert.write(tmp_path / "x", cases(8))
    train = next(root.rglob("train.csv"))
    train.write_text("")
    with pytest.raises(CxrError, match=r"train\.csv cannot be read: empty"):
        open_dataset(root)


def test_a_folder_in_no_layout(tmp_path: Path) -> None:
    for name in "abcdefgh":
        (tmp_path / name).mkdir()
    with pytest.raises(CxrError, match=r"at its top: a/, b/, c/, d/, e/, f/ and 2 more\. Name the folder.*labels\.csv"):
        open_dataset(tmp_path)
    with pytest.raises(CxrError, match=r"at its top: nothing\..*docs/data\.md"):
        open_dataset(tmp_path / "a")
    zipped(tmp_path / "b" / "x.zip", {"a.png": b"x"})
    with pytest.raises(CxrError, match=r"at its top: x\.zip\..*make a pack, which is read"):
        open_dataset(tmp_path / "b")


# --- archives that are damaged


def test_a_bad_archive_of_something_else_is_counted(tmp_path: Path) -> None:
    (table(tmp_path) / "notes").mkdir()
    (tmp_path / "notes" / "slides.zip").write_bytes(b"PK")
    index = open_dataset(tmp_path, archives=True)
    assert places(index) == WHOLE
    assert [(e.reason, e.examples) for e in index.dropped] == [(DAMAGED_ARCHIVE, ("notes/slides.zip",))]
    (tmp_path / "f" / "2.png").unlink()
    with pytest.raises(CxrError, match=r"slides\.zip is a damaged .* 1 are nowhere else, and may lie in it"):
        open_dataset(tmp_path, archives=True)


def test_a_bad_archive_of_films_stops(tmp_path: Path) -> None:
    table(tmp_path)
    films = {f"f/{number}.png": (tmp_path / "f" / f"{number}.png").read_bytes() for number in range(4)}
    shutil.rmtree(tmp_path / "f")
    whole = tar(tmp_path / "films.tar", films, "w").read_bytes()
    assert open_dataset(tmp_path, archives=True).table["path"].null_count == 0
    (tmp_path / "films.tar").write_bytes(whole[: len(whole) // 4])
    with pytest.raises(CxrError, match=r"films\.tar is a damaged .* Films that tables name lie in it: [1-4] or more"):
        open_dataset(tmp_path, archives=True)


# --- paths


@pytest.mark.parametrize("written", ["./f/{}.png", "f\\{}.png", ".\\f\\{}.png", "f//{}.png", "{root}/f/{}.png"])
def test_ordinary_paths_of_other_programs(tmp_path: Path, written: str) -> None:
    table(tmp_path, [written.format(number, root=tmp_path) for number in range(4)])
    index = open_dataset(tmp_path)
    assert places(index) == WHOLE
    assert index.dropped == ()


def test_an_absolute_path_through_a_link(tmp_path: Path) -> None:
    real = table(tmp_path / "real")
    (tmp_path / "link").symlink_to(real)
    table(real, [f"{tmp_path / ('link' if number % 2 else 'real')}/f/{number}.png" for number in range(4)])
    assert places(open_dataset(tmp_path / "link")) == WHOLE


def test_boxes_beside_the_table_name_films_so_too(tmp_path: Path) -> None:
    table(tmp_path)
    rows = ["image_id,finding,x_min,y_min,x_max,y_max", ".\\f\\1.png,Mass,1,1,9,9", f"{tmp_path}/f/3.png,Mass,1,1,9,9"]
    (tmp_path / "boxes.csv").write_text("\n".join(rows) + "\n")
    assert open_dataset(tmp_path).boxes["image_id"].to_pylist() == ["f/1.png", "f/3.png"]


def test_coco_s_names_of_files(tmp_path: Path) -> None:
    made = cases(4)
    expected = open_dataset(test_coco_layout.write(tmp_path / "a", made))
    root = test_coco_layout.write(tmp_path / "b", made)
    for lists in root.rglob("*.json"):
        document = json.loads(lists.read_text())
        for number, entry in enumerate(document["images"]):
            entry["file_name"] = (".\\{}", "./{}")[number % 2].format(entry["file_name"].replace("/", "\\"))
        lists.write_text(json.dumps(document))
    assert open_dataset(root).fingerprint == expected.fingerprint
    assert places(open_dataset(root)) == places(expected)


def test_chexpert_s_paths(tmp_path: Path) -> None:
    expected = open_dataset(test_chexpert.write(tmp_path / "a", cases(8)))
    root = test_chexpert.write(tmp_path / "b", cases(8))
    for name in ("train.csv", "valid.csv"):
        lists = next(root.rglob(name))
        first, *rows = lists.read_text().splitlines()
        column = first.split(",").index("Path")
        split = [row.split(",") for row in rows]
        for row in split:
            row[column] = row[column].replace("/", "\\")
        lists.write_text("\n".join([first, *map(",".join, split)]) + "\n")
    assert places(open_dataset(root)) == places(expected)


@pytest.mark.parametrize(
    "bad", ["/elsewhere/f/0.png", "../f/0.png", "f/../../0.png", "{root}/../0.png", "{root}x/0.png"]
)
def test_what_leaves_the_dataset_is_refused_with_an_example(tmp_path: Path, bad: str) -> None:
    table(tmp_path, [bad.format(root=tmp_path), "f/1.png"])
    (entry,) = [entry for entry in open_dataset(tmp_path).dropped if "unsafe" in entry.reason]
    assert entry.count == 1
    table(tmp_path, [bad.format(root=tmp_path)])
    with pytest.raises(CxrError, match=r"unsafe image name \(1, for instance '.*0\.png'\).*without \.\. in it"):
        open_dataset(tmp_path)


def test_the_folders_of_films_are_not_taken_for_those_of_datasets(tmp_path: Path) -> None:
    for number in range(MOST_BELOW):
        (tmp_path / "p" / f"{number:02}").mkdir(parents=True)
    table(tmp_path / "p" / "07")
    assert places(open_dataset(tmp_path)) == WHOLE
    (tmp_path / "p" / "more").mkdir()
    with pytest.raises(CxrError, match=r"in no layout that is known here; at its top: p/\."):
        open_dataset(tmp_path)
