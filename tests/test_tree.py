"""A dataset's files are the same whether they lie in folders or in archives, and none leads out of it."""

import gzip
import io
import os
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cxrmine.data import zips
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


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of zip archives whose directory is read from here on."""
    seen: list[str] = []

    class Opened(zipfile.ZipFile):
        def __init__(self, path: Path) -> None:
            seen.append(path.name)
            super().__init__(path)

    monkeypatch.setattr(zips, "ZipFile", Opened)
    return seen


def test_the_directory_of_a_zip_is_read_once(tmp_path: Path, opened: list[str]) -> None:
    path = zipped(tmp_path / "a.zip", {f"{i}.png": b"%d" % i for i in range(50)})
    tree = Tree(path, archives=True)
    with ThreadPoolExecutor(4) as pool:
        read = [found for part in pool.map(lambda n: list(tree.stream([n])), tree.names) for found in part]
    assert dict(read) == {f"{i}.png": b"%d" % i for i in range(50)}
    assert opened == ["a.zip"]


def test_a_zip_that_is_another_by_now_is_opened_again(tmp_path: Path, opened: list[str]) -> None:
    path = zipped(tmp_path / "a.zip", {"a.png": b"A"})
    tree = Tree(path, archives=True)
    assert dict(tree.stream(["a.png"])) == {"a.png": b"A"}
    zipped(path, {"b.png": b"xx", "a.png": b"BB"})
    assert dict(tree.stream(["a.png"])) == {"a.png": b"BB"}
    assert opened == ["a.zip", "a.zip"]
    assert [at for at, _ in zips._kept].count(path) == 1


def test_few_zips_stay_open_and_one_that_is_read_from_stays_so(tmp_path: Path) -> None:
    paths = [zipped(tmp_path / f"{i}.zip", {"a.png": b"A", "b.png": b"%d" % i}) for i in range(5)]
    reading = Tree(paths[0], archives=True).stream(["a.png", "b.png"])
    assert next(reading) == ("a.png", b"A")
    first = zips.open_zip(paths[0]).archive
    for path in paths[1:]:
        assert len(dict(Tree(path, archives=True).stream(["a.png", "b.png"]))) == 2
    assert [at for at, _ in zips._kept] == paths[3:]
    assert next(reading) == ("b.png", b"0")
    reading.close()
    file = first.fp
    del first
    assert file.closed


def test_a_fork_reads_a_zip_for_itself(tmp_path: Path) -> None:
    tree = Tree(zipped(tmp_path / "a.zip"), archives=True)
    assert len(dict(tree.stream(FILES))) == 3
    with zips._opening:  # as another thread may hold it
        child = os.fork()
        if child == 0:
            good = not zips._kept and dict(tree.stream(FILES)) == FILES
            os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert dict(tree.stream(FILES)) == FILES
