"""A dataset's files are the same whether they lie in folders or in archives, and none leads out of it."""

import contextlib
import gzip
import io
import os
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cxrmine.data import archives, gzipped
from cxrmine.data.encoded import Unreadable
from cxrmine.data.tree import Tree, is_safe
from cxrmine.errors import CxrError

FILES = {"list.csv": b"a,b\n", "images/a.png": b"AAAA", "images/b.png": b"BB"}


def write(root: Path, files: dict[str, bytes] = FILES) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def tar(path: Path, files: dict[str, bytes] = FILES, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def zipped(path: Path, files: dict[str, bytes] = FILES) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("kind", ["folder", "a.zip", "a.tar", "a.tar.gz", "a.tgz"])
def test_every_container_is_the_same_tree(tmp_path: Path, kind: str) -> None:
    if kind == "folder":
        root = write(tmp_path / kind)
    elif kind == "a.zip":
        root = zipped(tmp_path / kind)
    else:
        root = tar(tmp_path / kind, mode="w" if kind == "a.tar" else "w:gz")
    tree = Tree(root, archives=True)
    assert tree.names == ("images/a.png", "images/b.png", "list.csv")
    assert tree.top == ("images", "list.csv")
    assert tree.text("list.csv") == "a,b\n"
    assert dict(tree.stream(["images/b.png", "images/a.png"])) == {"images/a.png": b"AAAA", "images/b.png": b"BB"}
    assert tree.has("images/a.png")
    assert not tree.has("images")
    assert tree.under("images").names == ("a.png", "b.png")
    assert dict(tree.under("images").stream(["a.png"])) == {"a.png": b"AAAA"}


def test_archives_in_a_folder(tmp_path: Path) -> None:
    write(tmp_path, {"list.csv": b"x"})
    tar(tmp_path / "images_01.tar.gz", {"images/a.png": b"A", "images/b.png": b"B"})
    zipped(tmp_path / "images_02.zip", {"c.png": b"C"})
    assert Tree(tmp_path).names == ("images_01.tar.gz", "images_02.zip", "list.csv")
    assert Tree(tmp_path).packed_away() == ["images_01.tar.gz", "images_02.zip"]
    tree = Tree(tmp_path, archives=True)
    films = ["images_01.tar.gz/images/a.png", "images_01.tar.gz/images/b.png", "images_02.zip/c.png"]
    assert [name for name in tree.names if name.endswith("png")] == films
    assert dict(tree.stream(reversed(films))) == dict(zip(films, (b"A", b"B", b"C"), strict=True))
    assert tree.portions(films, 1) == [films[:2], films[2:]]
    assert tree.packed_away() == []


def test_loose_files_come_in_portions(tmp_path: Path) -> None:
    assert Tree(tmp_path).portions(["a", "b", "c"], 2) == [["a", "b"], ["c"]]


def test_members_that_lead_out_are_not_there(tmp_path: Path) -> None:
    bad = {"../out.png": b"x", "/etc/out.png": b"x", "a/../../out.png": b"x", "good.png": b"g"}
    for root in (tar(tmp_path / "a.tar", bad, "w"), zipped(tmp_path / "a.zip", bad)):
        tree = Tree(root, archives=True)
        assert tree.names == ("good.png",)
        assert len(tree.strange) == 3
    with tarfile.open(tmp_path / "links.tar", "w") as archive:
        info = tarfile.TarInfo("link.png")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    assert Tree(tmp_path / "links.tar", archives=True).names == ()


@pytest.mark.parametrize(
    ("name", "safe"),
    [("a.png", True), ("a/b.png", True), ("", False), ("/a", False), ("a//b", False), ("a/../b", False), ("..", False),
     ("./a", False), ("a\\b", False), ("a\nb", False), ("a/", False), ("...", True), ("ä b.png", True)],
)  # fmt: skip
def test_names_that_stay_where_they_are(name: str, safe: bool) -> None:
    assert is_safe(name) == safe


def test_what_a_damaged_archive_loses_says_why(tmp_path: Path) -> None:
    whole = tar(tmp_path / "a.tar.gz", {"a.png": os.urandom(9000), "b.png": os.urandom(9000)}).read_bytes()
    names = Tree(tmp_path / "a.tar.gz", archives=True).names
    (tmp_path / "a.tar.gz").write_bytes(whole[: len(whole) * 3 // 4])
    content = dict(Tree(tmp_path / "a.tar.gz", archives=True).stream(names))
    assert isinstance(content["a.png"], bytes)
    assert isinstance(content["b.png"], Unreadable)
    assert "archive" in content["b.png"].why
    with pytest.raises(CxrError, match=r"a\.tar\.gz is a damaged or cut off archive"):
        _ = Tree(tmp_path / "a.tar.gz", archives=True).names


def test_a_zip_member_that_is_not_there_or_bent(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a.png": bytes(range(256)) * 40})
    raw = bytearray(path.read_bytes())
    raw[60] ^= 255
    path.write_bytes(bytes(raw))
    content = dict(Tree(path, archives=True).stream(["a.png", "gone.png"]))
    assert content["a.png"].why == "damaged or encrypted in its archive"
    assert content["gone.png"].why == "not in its archive"


def test_links_are_followed_and_circles_are_not(tmp_path: Path) -> None:
    films = write(tmp_path / "elsewhere", {"a.png": b"A"})
    root = write(tmp_path / "data", {"list.csv": b"x"})
    (root / "images").symlink_to(films)
    (films / "back").symlink_to(root)
    assert Tree(root).names == ("images/a.png", "list.csv")


def test_hidden_files_are_not_looked_at(tmp_path: Path) -> None:
    assert Tree(write(tmp_path, {".git/a.png": b"x", "._b.png": b"x", "c.png": b"x"})).names == ("c.png",)


def test_gzipped_tables(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"x,y\n"))
    (tmp_path / "b.csv.gz").write_bytes(b"x,y\n")
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress(b"x,y\n")[:-4])
    tree = Tree(tmp_path)
    assert tree.first("a.csv", "b.csv") == "a.csv.gz"
    assert tree.first("z.csv") is None
    assert tree.text("a.csv.gz") == "x,y\n"
    assert tree.text("b.csv.gz") == "x,y\n"  # unpacked by a browser, under the name it had
    (tmp_path / "D.CSV.GZ").write_bytes(gzip.compress(b"x,y\n"))
    assert tree.text("D.CSV.GZ") == "x,y\n"
    with pytest.raises(CxrError, match="damaged or cut off"):
        tree.read("c.csv.gz")


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
