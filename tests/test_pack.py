"""A pack has the films and the words of its dataset: from folder or archive, stopped or not, for every command."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from cxrmine.config import Data
from cxrmine.data import films
from cxrmine.data import pack as packs
from cxrmine.data.datasets import open_dataset
from cxrmine.data.films import Loose
from cxrmine.data.images import fit_geometry
from cxrmine.data.index import Index
from cxrmine.errors import CxrError, UsageError
from cxrmine.learn.loader import Batch, batches
from cxrmine.stages import pack_plan, packer
from cxrmine.stages.check import Check
from cxrmine.stages.check import run as check
from cxrmine.stages.pack import Pack, run
from tests.conftest import TINY
from tests.test_cli import cxrmine, refused


@pytest.fixture(scope="module")
def packed(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pack") / "p"
    run(Pack(dataset, out, 64, workers=1))
    return out


def loaded(index: Index, data: Data) -> Batch:
    return next(batches(index, data, [np.arange(len(index))], workers=1))


def small_shards(monkeypatch: pytest.MonkeyPatch, films: int) -> None:
    monkeypatch.setattr(pack_plan, "films_a_shard", lambda size: films)


def test_a_pack_says_and_shows_what_its_dataset_does(dataset: Path, packed: Path) -> None:
    index, source = open_dataset(packed), open_dataset(dataset)
    assert index.fingerprint == source.fingerprint
    assert index.findings == source.findings
    assert index.boxes.equals(source.boxes)
    mine, theirs = (loaded(one, Data(size=64)) for one in (index, source))
    assert np.array_equal(mine.images.numpy(), theirs.images.numpy())
    assert mine.geometries == theirs.geometries
    assert [index.films.size(path) for path in index.table["path"].to_pylist()] == [(96, 96)] * len(index)


def test_a_smaller_input_is_cut_from_a_pack_and_a_larger_one_refused(packed: Path) -> None:
    batch = loaded(open_dataset(packed), Data(size=32))
    assert batch.images.shape == (160, 1, 32, 32)
    assert batch.geometries[0] == fit_geometry(96, 96, 32, "stretch")
    with pytest.raises(CxrError, match=r"films of 64 pixels, and data\.size is 128\. Pack again with --size 128"):
        loaded(open_dataset(packed), Data(size=128))


def test_the_middle_of_a_film_is_cut_from_a_pack_that_is_large_enough(packed: Path) -> None:
    """56 pixels are cut out of 64, and 57 of 65."""
    index = open_dataset(packed)
    whole, middle = (loaded(index, Data(size=size, fit=fit)) for size, fit in ((64, "stretch"), (56, "crop")))
    assert np.array_equal(middle.images.numpy(), whole.images.numpy()[:, :, 4:60, 4:60])
    assert middle.geometries[0] == fit_geometry(96, 96, 56, "crop")
    for size, needed in ((57, 65), (64, 74)):
        said = (
            rf"films of 64 pixels, and data\.size is {size} with data\.fit = crop, which cuts it out of {needed}\. "
            rf"Pack again with --size {needed}, or say --set data\.size=56\."
        )
        with pytest.raises(CxrError, match=said):
            loaded(index, Data(size=size, fit="crop"))


def test_a_pack_is_of_whole_films(dataset: Path, tmp_path: Path) -> None:
    refused(cxrmine("pack", "--data", dataset, "--out", tmp_path / "p", "--fit", "crop"), 2, "It is stretch or pad.")


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip", "whole.zip", "whole.tar.gz", "nested.zip"])
def test_archives_pack_to_the_same_films(dataset: Path, packed: Path, tmp_path: Path, kind: str) -> None:
    source = tmp_path / "d"
    if kind.startswith("whole") or kind.startswith("nested"):
        inside = "some/folder/" if kind.startswith("nested") else ""
        source = tmp_path / kind
        archive(source, dataset, dataset, inside)
    else:
        shutil.copytree(dataset, source, ignore=shutil.ignore_patterns("images"))
        archive(source / f"images_01.{kind}", dataset / "images", dataset)
    if source.is_dir():
        assert open_dataset(source).table["path"].null_count == 160
    else:
        with pytest.raises(CxrError, match=r"is an archive\. Make a pack of it first"):
            open_dataset(source)
    run(Pack(source, tmp_path / "p", 64, workers=2))
    index, expected = open_dataset(tmp_path / "p"), open_dataset(packed)
    assert index.fingerprint == expected.fingerprint
    assert np.array_equal(loaded(index, Data(size=64)).images.numpy(), loaded(expected, Data(size=64)).images.numpy())


def archive(path: Path, folder: Path, root: Path, inside: str = "") -> None:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as made:
            for file in files:
                made.write(file, inside + file.relative_to(root).as_posix())
    else:
        with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as made:
            for file in reversed(files):  # whatever order an archive has
                made.add(file, inside + file.relative_to(root).as_posix())


def test_films_that_are_not_square_keep_their_geometry(tmp_path: Path) -> None:
    root = tmp_path / "d"
    (root / "images").mkdir(parents=True)
    rows = ["Image Index,Finding Labels,Patient ID"]
    for i, (width, height) in enumerate(((80, 40), (30, 90), (64, 64))):
        pixels = np.random.default_rng(i).integers(0, 256, (height, width), dtype=np.uint8)
        (root / "images" / f"{i}.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
        rows.append(f"{i}.png,Mass,{i}")
    (root / "Data_Entry_2017.csv").write_text("\n".join(rows) + "\n")
    source = open_dataset(root)
    for fit in ("pad", "stretch"):
        run(Pack(root, tmp_path / fit, 64, fit, workers=1))  # type: ignore[arg-type]
        data = Data(size=64, fit=fit)  # type: ignore[arg-type]
        mine, theirs = loaded(open_dataset(tmp_path / fit), data), loaded(source, data)
        assert np.array_equal(mine.images.numpy(), theirs.images.numpy())
        assert mine.geometries == theirs.geometries
    # From a padded pack to a stretched input: other pixels, but where they lie is exact.
    other = loaded(open_dataset(tmp_path / "pad"), Data(size=32, fit="stretch"))
    assert other.geometries == [fit_geometry(w, h, 32, "stretch") for w, h in ((80, 40), (30, 90), (64, 64))]
    assert other.images[0].float().std() > 10  # the film fills its square, no bars


def test_unreadable_films_are_recorded_with_their_reason(dataset: Path, tmp_path: Path) -> None:
    source = tmp_path / "d"
    shutil.copytree(dataset, source)
    films = sorted((source / "images").iterdir())
    films[0].write_bytes(films[0].read_bytes()[:200])
    films[1].unlink()
    with pytest.raises(CxrError, match=r"2 of 160 films cannot be read: .*--max-unreadable"):
        run(Pack(source, tmp_path / "p", 64, workers=1))
    assert not (tmp_path / "p" / packs.DONE).exists()
    made = run(Pack(source, tmp_path / "p", 64, workers=1, max_unreadable=0.1))
    assert made.unreadable == {"cut off before its end": 1, "no such file": 1}
    assert made.before == 158
    assert [(row, why) for row, why in loaded(made.index, Data(size=64)).unreadable] == [
        (0, "cut off before its end"),
        (1, "no such file"),
    ]


@pytest.mark.parametrize(("kind", "few"), [("folder", 0), ("folder", 1000), ("tar", 1000)])
def test_killed_at_any_time_it_goes_on_to_the_same_bytes(dataset: Path, tmp_path: Path, kind: str, few: int) -> None:
    """Shards of eight films, so that a kill comes between shards; what an orphan might write is waited for."""
    whole, out = tmp_path / "whole", tmp_path / "p"
    if kind == "tar":
        archive(tmp_path / "d.tar", dataset, dataset)
        dataset = tmp_path / "d.tar"
    code = (
        "import sys, cxrmine.stages.pack as s, cxrmine.stages.pack_plan as p; from pathlib import Path\n"
        f"p.films_a_shard, s.FEW = lambda size: 8, {few}\n"
        "if __name__ == '__main__': s.run(s.Pack(Path(sys.argv[1]), Path(sys.argv[2]), 64, workers=1))\n"
    )
    script = tmp_path / "go.py"
    script.write_text(code)
    command = [sys.executable, str(script), str(dataset)]
    subprocess.run([*command, str(whole)], check=True, capture_output=True)
    process = subprocess.Popen([*command, str(out)], stderr=subprocess.DEVNULL)
    while process.poll() is None and len(list(out.glob("films-*.parquet"))) < 4:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(1.5)  # its workers see that it is gone
    assert not (out / packs.DONE).exists()
    with pytest.raises(CxrError, match=r"is a pack that is not finished\. Run the same cxrmine pack again"):
        open_dataset(out)
    done = len(list(out.glob("films-*.parquet")))
    assert 4 <= done < 20
    before = {p.with_suffix(".npy").name: p.with_suffix(".npy").stat().st_mtime_ns for p in out.glob("films-*.parquet")}
    subprocess.run([*command, str(out)], check=True, capture_output=True)
    kept = [name for name, at in before.items() if (out / name).stat().st_mtime_ns == at]
    assert len(kept) == done
    names = sorted(p.name for p in whole.iterdir() if p.name != ".lock")
    assert sorted(p.name for p in out.iterdir() if p.name != ".lock") == names
    for name in names:
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name


def test_stopped_by_a_signal_it_ends_soon_and_says_so(dataset: Path, tmp_path: Path) -> None:
    """Films are packed large, so that it is stopped long before its one shard is whole."""
    out = tmp_path / "p"
    command = [sys.executable, "-m", "cxrmine", "pack", "--data", str(dataset), "--out", str(out), "--size", "768"]
    process = subprocess.Popen([*command, "--workers", "1"], stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list(out.glob(".films-*")):
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    said = process.communicate()[1]
    assert process.returncode == 75, said
    assert "error: Stopped." in said
    assert "Traceback" not in said
    assert sorted(path.name for path in out.iterdir()) == [".lock", packs.PLAN]


def test_damage_is_found_by_check(dataset: Path, packed: Path, tmp_path: Path) -> None:
    out = tmp_path / "p"
    shutil.copytree(packed, out)
    assert check(Check(out)).faults == ()
    raw = bytearray((out / "films-00000.npy").read_bytes())
    raw[-64 * 64 * 3 + 5] ^= 1  # one bit, in the third film from the end
    (out / "films-00000.npy").write_bytes(bytes(raw))
    (fault,) = check(Check(out)).faults
    assert (fault.kind, fault.count) == ("unreadable image: damaged: its checksum does not match", 1)
    assert fault.examples == ("films-00000.npy/157",)
    (out / "films-00000.npy").write_bytes(bytes(raw[:-1]))
    with pytest.raises(CxrError, match=r"films-00000\.npy"):
        open_dataset(out)


def test_it_refuses_what_is_not_the_same_pack(dataset: Path, packed: Path, tmp_path: Path) -> None:
    out = tmp_path / "p"
    shutil.copytree(packed, out)
    with pytest.raises(CxrError, match=r"is a pack of something else: size is 64 there and 32 here\..*--fresh"):
        run(Pack(dataset, out, 32, workers=1))
    assert run(Pack(dataset, out, 64, workers=1)).unreadable == {}  # it is there already
    run(Pack(dataset, out, 32, workers=1, fresh=True))
    assert json.loads((tmp_path / "p.1" / packs.DONE).read_text())["size"] == 64
    (tmp_path / "q").mkdir()
    (tmp_path / "q" / "thesis.txt").write_text("x")
    with pytest.raises(CxrError, match=r"has other files in it: thesis\.txt"):
        run(Pack(dataset, tmp_path / "q", 64, workers=1))
    with pytest.raises(CxrError, match="is a pack"):
        run(Pack(packed, tmp_path / "r", 32, workers=1))
    with pytest.raises(UsageError, match="is the dataset itself"):
        run(Pack(dataset, dataset, 64, workers=1))


def test_training_and_mining_on_a_pack_give_the_same_bytes(
    dataset: Path, packed: Path, trained: Path, tmp_path: Path
) -> None:
    from cxrmine.stages import mine, train

    train.run(train.Train(packed, "demo", tmp_path / "run", TINY, device="cpu", workers=1))
    for name in ("model.safetensors", "metrics.jsonl", "recipe.toml", "patients.parquet"):
        assert (tmp_path / "run" / name).read_bytes() == (trained / name).read_bytes(), name
    for data, out in ((dataset, "a"), (packed, "b")):
        mine.run(mine.Mine(trained, data, tmp_path / f"{out}.parquet", "test", device="cpu", workers=1))
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_several_shards_are_one_pack(
    dataset: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_shards(monkeypatch, 50)
    run(Pack(dataset, tmp_path / "p", 64, workers=2))
    index = open_dataset(tmp_path / "p")
    assert [entry["films"] for entry in json.loads((tmp_path / "p" / packs.DONE).read_text())["shards"]] == [
        50,
        50,
        50,
        10,
    ]
    expected = open_dataset(packed)
    assert np.array_equal(loaded(index, Data(size=64)).images.numpy(), loaded(expected, Data(size=64)).images.numpy())
    assert packs.damaged(index) == []


def test_the_words_of_a_pack(dataset: Path, tmp_path: Path) -> None:
    """Nothing in it tells where it was made; the same work gives the same bytes."""
    for name in ("a", "b"):
        run(Pack(dataset, tmp_path / name, 64, workers=1))
    for file in (tmp_path / "a").iterdir():
        if file.name != ".lock":
            assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
    assert str(tmp_path) not in (tmp_path / "a" / packs.DONE).read_text()
    table = pq.ParquetFile(tmp_path / "a" / packs.INDEX).read()
    assert table["path"].to_pylist()[:2] == ["films-00000.npy/0", "films-00000.npy/1"]
    assert replace(open_dataset(tmp_path / "a"), packed=None).films.__class__ is Loose


def table_dataset(root: Path, rows: list[tuple[str, str]]) -> Path:
    """Rows of image and film; each film is noise of its own."""
    (root / "f").mkdir(parents=True)
    for i, path in enumerate(sorted({path for _, path in rows})):
        pixels = np.random.default_rng(i).integers(0, 256, (64, 64), dtype=np.uint8)
        (root / path).write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    lines = [f"{image},{path},{image},1" for image, path in rows]
    (root / "labels.csv").write_text("\n".join(["image_id,path,patient,Mass", *lines]) + "\n")
    return root


def ten(root: Path) -> Path:
    return table_dataset(root, [(f"i{i}", f"f/{i}.png") for i in range(10)])


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The size of every file that is decoded from here on."""
    seen: list[int] = []
    decode = packer.decode_image
    monkeypatch.setattr(packer, "decode_image", lambda data: (seen.append(len(data)), decode(data))[1])
    return seen


@pytest.mark.parametrize("kind", ["folder", "tar", "zip"])
def test_what_was_mended_is_read_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[int], kind: str
) -> None:
    small_shards(monkeypatch, 4)
    films = ten(tmp_path / "films")
    sound = (films / "f" / "3.png").read_bytes()
    source = films if kind == "folder" else tmp_path / f"d.{kind}"

    def write(content: bytes) -> None:
        (films / "f" / "3.png").write_bytes(content)
        if kind != "folder":
            archive(source, films, films)

    write(sound[:50])
    wanted = Pack(source, tmp_path / "p", 32, workers=1)
    for _ in range(2):
        with pytest.raises(CxrError, match=r"1 of 10 films cannot be read: .* run the same command again: it reads"):
            run(wanted)
    write(sound)
    decoded.clear()
    made = run(wanted)
    assert decoded == [len(sound)]
    assert (made.unreadable, made.before) == ({}, 9)
    run(Pack(source, tmp_path / "new", 32, workers=1))
    assert files_of(tmp_path / "p") == files_of(tmp_path / "new")


def test_a_film_that_was_added_is_packed_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[int]
) -> None:
    small_shards(monkeypatch, 4)
    source = ten(tmp_path / "d")
    (source / "f" / "3.png").rename(tmp_path / "elsewhere.png")
    with pytest.raises(CxrError, match=r"1 of 10 films cannot be read: no such file \(1\)"):
        run(Pack(source, tmp_path / "p", 64, workers=1))
    (tmp_path / "elsewhere.png").rename(source / "f" / "3.png")
    decoded.clear()
    made = run(Pack(source, tmp_path / "p", 64, workers=1))
    assert len(decoded) == 1
    assert made.unreadable == {}
    assert made.index.table["path"].to_pylist()[3] == "films-00003.npy/0"
    expected = loaded(open_dataset(source), Data(size=64)).images.numpy()
    assert np.array_equal(loaded(made.index, Data(size=64)).images.numpy(), expected)
    assert packs.damaged(made.index) == []


def test_a_bad_film_that_was_taken_away_is_no_longer_called_bad(tmp_path: Path) -> None:
    source = ten(tmp_path / "d")
    (source / "f" / "3.png").write_bytes(b"")
    with pytest.raises(CxrError, match=r"empty: zero bytes \(1\)"):
        run(Pack(source, tmp_path / "p", 32, workers=1))
    (source / "f" / "3.png").unlink()
    assert run(Pack(source, tmp_path / "p", 32, workers=1, max_unreadable=0.1)).unreadable == {"no such file": 1}


@pytest.mark.parametrize("films", [1, 2, 3, 100])
@pytest.mark.parametrize("kind", ["folder", "tar", "zip"])
def test_two_images_may_have_one_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, films: int) -> None:
    small_shards(monkeypatch, films)
    source = table_dataset(tmp_path / "d", [("a", "f/0.png"), ("b", "f/1.png"), ("c", "f/1.png"), ("e", "f/2.png")])
    expected = loaded(open_dataset(source), Data(size=64)).images.numpy()
    if kind != "folder":
        archive(tmp_path / f"d.{kind}", source, source)
        source = tmp_path / f"d.{kind}"
    made = run(Pack(source, tmp_path / "p", 64, workers=1))
    assert np.array_equal(loaded(made.index, Data(size=64)).images.numpy(), expected)
    assert np.array_equal(expected[1], expected[2])
    assert len({*made.index.table["path"].to_pylist()}) == 4


def test_a_shard_that_is_not_full_never_gets_its_name(tmp_path: Path) -> None:
    task = packer.Task(tmp_path, False, "", (), ((0, 2),), (), tmp_path, 32, "stretch", 1)
    film = ("a", "a.png", np.zeros((32, 32), np.uint8), packer.Film(32, 32, 0, None))
    with pytest.raises(RuntimeError, match=r"films-00000\.npy got 1 of its 2 films"):
        packer._write_shard(task, 0, 2, iter([film]))
    assert list(tmp_path.iterdir()) == []


def test_shards_of_a_tar_are_filled_one_after_another_in_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred shards, and not a hundred open files. The archive has its films from the last to the first."""
    small_shards(monkeypatch, 1)
    monkeypatch.setattr(films, "MOST_OPEN", 5)
    source = table_dataset(tmp_path / "d", [(f"i{i:03}", f"f/{i:03}.png") for i in range(100)])
    archive(tmp_path / "d.tar", source, source)
    most, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(int(p.name) for p in Path("/proc/self/fd").iterdir()) + 20, hard))
    try:
        made = run(Pack(tmp_path / "d.tar", tmp_path / "p", 32, workers=1))
        loaded = [made.index.films.fitted(path, 32, "stretch")[0] for path in made.index.table["path"].to_pylist()]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    assert made.index.table["path"].to_pylist() == [f"films-{99 - i:05}.npy/0" for i in range(100)]
    assert all((film == Loose(source).fitted(f"f/{i:03}.png", 32, "stretch")[0]).all() for i, film in enumerate(loaded))


@pytest.mark.parametrize("kind", ["folder", "tar", "zip"])
def test_the_number_of_workers_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    small_shards(monkeypatch, 3)
    source = ten(tmp_path / "d")
    (source / "f" / "7.png").write_bytes(b"")
    if kind != "folder":
        archive(tmp_path / f"d.{kind}", source, source)
        source = tmp_path / f"d.{kind}"
    for workers in (1, 3):
        run(Pack(source, tmp_path / str(workers), 32, workers=workers, max_unreadable=0.1))
    assert files_of(tmp_path / "1") == files_of(tmp_path / "3")


def test_an_unfinished_pack_of_another_version_is_refused(tmp_path: Path) -> None:
    source, out = ten(tmp_path / "d"), tmp_path / "p"
    out.mkdir()
    for plan, match in (
        ('{"fingerprint": "x", "list": "y"}', r"another version of cxrmine did not finish\. Say --fresh"),
        ('{"schema": 3}', r"another version of cxrmine did not finish\. Say --fresh"),
        ("[]", r"plan\.json is damaged\. Say --fresh"),
        ("{", r"plan\.json is damaged\. Say --fresh"),
    ):
        (out / packs.PLAN).write_text(plan)
        with pytest.raises(CxrError, match=match):
            run(Pack(source, out, 32, workers=1))
    assert run(Pack(source, out, 32, workers=1, fresh=True)).unreadable == {}


def test_an_unfinished_pack_of_films_elsewhere_is_refused(tmp_path: Path) -> None:
    """The same words, and other files: a pack would be of both."""
    source = ten(tmp_path / "d")
    (source / "f" / "3.png").unlink()
    with pytest.raises(CxrError, match="1 of 10 films"):
        run(Pack(source, tmp_path / "p", 32, workers=1))
    (source / "f").rename(source / "g")
    (source / "labels.csv").write_text((source / "labels.csv").read_text().replace("f/", "g/"))
    with pytest.raises(CxrError, match=r"something else: image i0 was f/0\.png there and is g/0\.png here\. .*--fresh"):
        run(Pack(source, tmp_path / "p", 32, workers=1))


def test_a_shard_whose_table_is_damaged_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_shards(monkeypatch, 4)
    source = ten(tmp_path / "d")
    (source / "f" / "9.png").write_bytes(b"")
    wanted = Pack(source, tmp_path / "p", 32, workers=1)
    with pytest.raises(CxrError, match="1 of 10 films"):
        run(wanted)
    (tmp_path / "p" / "films-00000.parquet").write_bytes(b"PAR1")
    assert run(replace(wanted, max_unreadable=0.1)).before == 5
    run(Pack(source, tmp_path / "new", 32, workers=1, max_unreadable=0.1))
    assert files_of(tmp_path / "p") == files_of(tmp_path / "new")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("shards", None),
        ("findings", None),
        ("fingerprint", 7),
        ("dropped", [{}]),
        ("notes", "x"),
        ("size", True),
        ("size", 0),
        ("fit", ["pad"]),
        ("layout", 1),
        ("shards", [{"name": "../x.npy", "films": 160}]),
        ("shards", [{"name": "films-00000.npy/../../x.npy", "films": 160}]),
        ("shards", [{"name": "films-00000.npy", "films": -1}]),
        ("shards", [{"name": "films-00000.npy", "films": 160}] * 2),
        ("shards", [7]),
    ],
)
def test_a_damaged_description_is_said_to_be_so(packed: Path, tmp_path: Path, key: str, value: object) -> None:
    shutil.copy(packed / "films-00000.npy", tmp_path / "x.npy")
    out = tmp_path / "p"
    shutil.copytree(packed, out)
    said = json.loads((out / packs.DONE).read_text()) | {key: value}
    (out / packs.DONE).write_text(json.dumps({name: of for name, of in said.items() if of is not None}))
    with pytest.raises(CxrError, match=rf"pack\.json is damaged: {key}\. Pack the dataset again"):
        open_dataset(out)


@pytest.mark.parametrize("path", ["films-00001.npy/0", "films-00000.npy/160", "films-00000.npy/-1", "x", "/etc/passwd"])
def test_a_path_that_leads_nowhere_is_found(packed: Path, tmp_path: Path, path: str) -> None:
    out = tmp_path / "p"
    shutil.copytree(packed, out)
    table = pq.ParquetFile(out / packs.INDEX).read()
    at = table.column_names.index("path")
    pq.write_table(table.set_column(at, "path", [[path, *table["path"].to_pylist()[1:]]]), out / packs.INDEX)
    with pytest.raises(CxrError, match=r"index\.parquet has a film at .*, where there is none\. Pack"):
        open_dataset(out)
    pq.write_table(table.drop_columns(["path"]), out / packs.INDEX)
    with pytest.raises(CxrError, match=r"index\.parquet has no column path"):
        open_dataset(out)


def test_a_fast_check_reads_no_pixels_of_a_pack(packed: Path, tmp_path: Path) -> None:
    out = tmp_path / "p"
    shutil.copytree(packed, out)
    shard = np.load(out / "films-00000.npy")
    np.save(out / "films-00000.npy", 255 - shard)
    report = check(Check(out, fast=True))
    assert report.faults == ()
    assert report.sizes == {(96, 96): sum(report.index.table["boxed"].to_pylist())}
    assert not report.document["pixels_read"]
    assert check(Check(out)).faults != ()
