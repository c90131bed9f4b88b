"""Archives are listed once, their tables kept from that pass, and what is damaged or hidden in them is told or left."""

import contextlib
import gzip
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cxrmine.data import archives, gzipped
from cxrmine.data.tree import Tree
from cxrmine.errors import CxrError
from tests.test_tree import tar, write, zipped


@pytest.mark.parametrize("packed", [False, True])
def test_a_table_that_swells_is_refused(tmp_path: Path, packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"a.csv.gz": gzip.compress(bytes(2**20 + 1)), "b.csv.gz": gzip.compress(bytes(2**20))}
    tree = Tree(tar(tmp_path / "a.tar", files, "w") if packed else write(tmp_path, files), archives=True)
    monkeypatch.setattr(gzipped, "MOST_UNPACKED", 2**20)
    assert len(tree.read("b.csv.gz")) == 2**20
    with pytest.raises(CxrError, match=r"a\.csv\.gz unpacks to more than 1 MiB"):
        tree.read("a.csv.gz")


@pytest.mark.parametrize("kind", ["folder", "a.zip", "a.tar.gz"])
def test_what_is_hidden_is_not_there_wherever_it_lies(tmp_path: Path, kind: str) -> None:
    hidden = {"d/._a.png": b"x", ".c/a.png": b"x", "__MACOSX/d/a.png": b"x", "._labels.csv": b"x", ".DS_Store": b"x"}
    make = {"folder": write, "a.zip": zipped, "a.tar.gz": tar}[kind]
    tree = Tree(make(tmp_path / kind, {**hidden, "d/a.png": b"A"}), archives=True)
    assert tree.names == ("d/a.png",)
    assert tree.top == ("d",)
    assert tree.strange == []


class Passes:
    """Counts how often a tar archive is gone through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.open = 0, tarfile.open
        monkeypatch.setattr(tarfile, "open", self)

    def __call__(self, *args: Any, **kwargs: Any) -> tarfile.TarFile:
        self.count += 1
        return self.open(*args, **kwargs)


def test_a_tar_archive_is_gone_through_once_for_its_names_and_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"d/a.csv": b"1", "d/e/b.json.gz": gzip.compress(b"2"), "d/none.csv": b"", "d/a.png": b"A"}
    (tmp_path / "above").mkdir()
    tar(tmp_path / "above" / "x.tar.gz", files)
    passes = Passes(monkeypatch)
    top = Tree(tmp_path / "above", archives=True)
    tree = top.under("x.tar.gz").under("d")
    assert top.names == ("x.tar.gz", *(f"x.tar.gz/{name}" for name in sorted(files)))
    assert tree.names == ("a.csv", "a.png", "e/b.json.gz", "none.csv")
    assert (tree.text("a.csv"), tree.under("e").text("b.json.gz"), top.text("x.tar.gz/d/a.csv")) == ("1", "2", "1")
    with pytest.raises(CxrError, match="empty: zero bytes"):
        tree.text("none.csv")
    assert passes.count == 1
    assert dict(tree.stream(["a.png", "a.csv"])) == {"a.csv": b"1", "a.png": b"A"}
    assert passes.count == 2
    tree.listed.forget()
    assert tree.text("a.csv") == "1"
    assert passes.count == 3


def test_tables_that_find_no_room_are_read_where_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tar(tmp_path / "a.tar.gz", {"a.csv": b"12345", "b.csv": b"67", "c.csv": b"89", "d.csv": b"0"})
    passes = Passes(monkeypatch)
    monkeypatch.setattr(archives, "MOST_KEPT", 4)
    tree = Tree(path, archives=True)
    assert len(tree.names) == 4
    assert [tree.text(name) for name in ("b.csv", "c.csv")] == ["67", "89"]
    assert passes.count == 1
    assert [tree.text(name) for name in ("a.csv", "d.csv")] == ["12345", "0"]
    assert passes.count == 3


def test_the_first_of_two_files_of_a_name_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for content in (b"first", b"second"):
            info = tarfile.TarInfo("a.csv")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    tree = Tree(path, archives=True)
    assert tree.text("a.csv") == "first"
    assert tree.names == ("a.csv",)
    assert tree.text("a.csv") == "first"


def test_a_long_listing_shows_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str | int] = []

    class Shown:
        def advance(self, n: int = 1) -> None:
            told.append(n)

    @contextlib.contextmanager
    def watch(total: int, label: str, unit: str) -> Iterator[Shown]:
        told.append(f"{label}: {total} {unit}")
        yield Shown()

    path = tar(tmp_path / "a.tar", {f"{i}.png": bytes(300 * 2**10) for i in range(10)}, "w")
    assert len(Tree(path, True, listed=archives.Archives(watch)).names) == 10
    assert told == []
    monkeypatch.setattr(archives, "LONG", 2**20)
    assert len(Tree(path, True, listed=archives.Archives(watch)).names) == 10
    assert told == ["listing a.tar: 2 MiB", 1, 1]


def test_a_damaged_archive_in_a_folder_is_told_and_the_rest_is_there(tmp_path: Path) -> None:
    write(tmp_path, {"a.csv": b"x", "notes/slides.zip": b"PK"})
    whole = tar(tmp_path / "b.tar", {"a.png": b"A", "b.png": bytes(9000)}, "w").read_bytes()
    (tmp_path / "b.tar").write_bytes(whole[:3000])
    tree = Tree(tmp_path, archives=True)
    assert tree.names == ("a.csv", "b.tar", "b.tar/a.png", "b.tar/b.png", "notes/slides.zip")
    assert sorted(tree.damaged) == ["b.tar", "notes/slides.zip"]
    assert "slides.zip is a damaged or cut off archive" in tree.damaged["notes/slides.zip"].what
