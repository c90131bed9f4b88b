"""Every fault that is planted in a dataset is found, named, and counted."""

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from cxrmine import console
from cxrmine.cli import app
from cxrmine.errors import CxrError
from cxrmine.report.checked import tables
from cxrmine.stages import look
from cxrmine.stages.check import Check, CheckReport, Fault, run
from tests import test_chexpert

HEADER = "Image Index,Finding Labels,Follow-up #,Patient ID,View Position"
WIDTH, HEIGHT = 60, 40


def film(seed: int, width: int = WIDTH, height: int = HEIGHT, ending: str = ".png") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    return cv2.imencode(ending, pixels)[1].tobytes()


def write(
    root: Path,
    entries: Sequence[str] = (),
    boxes: Sequence[str] = (),
    train: Sequence[str] = (),
    test: Sequence[str] = (),
    films: Sequence[str] = (),
) -> Path:
    """A sound dataset of two films, and whatever a test adds to it."""
    (root / "images").mkdir(parents=True)
    for seed, name in enumerate(("a.png", "b.png", *films)):
        (root / "images" / name).write_bytes(film(seed))
    rows = (HEADER, "a.png,Mass|Effusion,0,1,PA", "b.png,No Finding,0,2,AP", *entries)
    (root / "Data_Entry_2017.csv").write_text("\n".join(rows) + "\n")
    listed = ("Image Index,Finding Label,Bbox [x,y,w,h],,,", "a.png,Mass,0,0,60,40", *boxes)
    (root / "BBox_List_2017.csv").write_text("\n".join(listed) + "\n")
    (root / "train_val_list.txt").write_text("\n".join(("b.png", *train)))
    (root / "test_list.txt").write_text("\n".join(("a.png", *test)))
    return root


def found(report: CheckReport) -> dict[str, tuple[str, int, tuple[str, ...]]]:
    return {fault.kind: (fault.level, fault.count, fault.examples) for fault in report.faults}


def test_a_sound_dataset_has_no_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = run(Check(write(tmp_path / "d"), strict=True, workers=2))
    assert report.faults == ()
    assert report.ok
    document = report.document
    assert document["images"] == {"train": 1, "val": 0, "test": 1, "all": 2}
    assert document["patients"] == {"train": 1, "val": 0, "test": 1, "all": 2}
    assert document["boxes"] == {"boxes": 1, "images": 1}
    assert document["views"] == {"AP": 1, "PA": 1}
    assert document["sizes"] == {"60x40": 2}
    assert document["findings"]["Mass"] == {
        "train": 0, "val": 0, "test": 1, "uncertain": 0, "boxes": 1, "boxed_images": 1,
        "labels": {
            "train": {"present": 0, "uncertain": 0, "absent": 1, "not_mentioned": 0},
            "val": {"present": 0, "uncertain": 0, "absent": 0, "not_mentioned": 0},
            "test": {"present": 1, "uncertain": 0, "absent": 0, "not_mentioned": 0},
        },
    }  # fmt: skip
    assert document["findings"]["Effusion"]["boxes"] == 0
    assert document["layout"] == "ChestX-ray14"
    assert "labels: Data_Entry_2017.csv" in document["notes"]
    assert json.loads(json.dumps(document)) == document
    sheets, closing = tables(report.config.data, report.document)
    for sheet in sheets:
        console.table(sheet.title, sheet.header, sheet.rows, sheet.note)
    shown = capsys.readouterr().out
    for word in ("ChestX-ray14", "patients", "Mass", "Effusion", "60x40 2", "official lists"):
        assert word in shown
    assert "train, test: every other image is labelled absent" in shown
    assert "Labels of" not in shown
    assert closing == "No fault found."


def test_films_that_are_missing_or_cannot_be_read(tmp_path: Path) -> None:
    names = ("cut.png", "zero.png", "page.png", "bent.png", "gone.png", "folder.png", "black.png", "cut.jpg")
    root = write(tmp_path / "d", [f"{name},Mass,0,{i + 5},PA" for i, name in enumerate(names)], train=names)
    images = root / "images"
    (images / "cut.png").write_bytes(film(9)[:-100])
    (images / "cut.jpg").write_bytes(film(9, ending=".jpg")[:-100])
    (images / "zero.png").touch()
    (images / "page.png").write_text("<html>")
    bent = bytearray(film(9))
    bent[500] ^= 1
    (images / "bent.png").write_bytes(bent)
    (images / "folder.png").mkdir()
    (images / "black.png").write_bytes(cv2.imencode(".png", np.zeros((HEIGHT, WIDTH), np.uint8))[1].tobytes())
    report = run(Check(root))
    assert found(report) == {
        "no file for this image": ("error", 2, ("folder.png", "gone.png")),
        "unreadable image: cut off before its end": ("error", 2, ("images/cut.jpg", "images/cut.png")),
        "unreadable image: empty: zero bytes": ("error", 1, ("images/zero.png",)),
        "unreadable image: not a PNG, JPEG or DICOM file": ("error", 1, ("images/page.png",)),
        "unreadable image: damaged: a checksum does not match": ("error", 1, ("images/bent.png",)),
        "constant image: one gray value": ("warning", 1, ("images/black.png",)),
    }
    assert not report.ok
    assert report.document["sizes"] == {"60x40": 3}


def test_fast_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path / "d", ["c.png,Mass,0,3,PA"], ["a.png,Effusion,0,0,61,40"], train=["c.png"])
    (root / "images" / "c.png").write_bytes(b"junk")

    def never(*_: object) -> None:
        raise AssertionError("a film was decoded")

    monkeypatch.setattr(cv2, "imdecode", never)
    report = run(Check(root, fast=True))
    assert list(found(report)) == ["box outside the image"]
    assert tables(report.config.data, report.document)[1].endswith("No film was decoded (--fast).")
    assert not report.document["pixels_read"]


def test_boxes_in_the_wrong_place(tmp_path: Path) -> None:
    boxes = (
        "a.png,Effusion,0,0,60.5,40",
        "a.png,Effusion,-1,0,5,5",
        "a.png,Effusion,0,0,60.0000001,40",
        "b.png,Mass,1,1,5,5",
        "a.png,Mass,0,0,60,40",
        "a.png,Mass,3,3,0,4",
        "a.png,Hernia,3,3,4,4",
        "x.png,Mass,3,3,4,4",
    )
    report = run(Check(write(tmp_path / "d", boxes=boxes)))
    assert found(report) == {
        "box outside the image": ("error", 1, ("a.png Effusion 0.0,0.0..60.5,40.0",)),
        "box negative": ("error", 1, ("a.png Effusion -1.0,0.0..4.0,5.0",)),
        "box of a finding that its image is not labelled with": ("error", 1, ("b.png Mass 1.0,1.0..6.0,6.0",)),
        "box duplicated": ("warning", 1, ("a.png Mass 0.0,0.0..60.0,40.0",)),
        "box without an area": ("error", 1, ("row 7: a.png Mass 3,3,3,7",)),
        "box of a finding that no image is labelled with": ("error", 1, ("row 8: a.png Hernia 3,3,7,7",)),
        "box of an image without a row": ("error", 1, ("row 9: x.png Mass 3,3,7,7",)),
    }


def test_a_patient_in_two_splits(tmp_path: Path) -> None:
    root = write(tmp_path / "d", ["c.png,Mass,0,1,PA"], train=["c.png"], films=["c.png"])
    assert found(run(Check(root))) == {"patient in two splits": ("error", 1, ("1",))}


def test_warnings_fail_only_when_strict(tmp_path: Path) -> None:
    root = write(tmp_path / "d", ["c.png,Mass,0,3,PA"], films=["c.png", "stranger.png"])
    report = run(Check(root))
    assert found(report) == {
        "in neither split list": ("warning", 1, ("c.png",)),
        "file without a row": ("warning", 1, ("images/stranger.png",)),
    }
    assert report.ok
    assert tables(report.config.data, report.document)[1] == "2 kinds of warning. It can be used as it is."
    strict = run(Check(root, strict=True))
    assert not strict.ok
    assert tables(root, strict.document)[1] == "2 kinds of warning. Mend it first."
    assert strict.document["ok"] is False


def test_examples_are_few_and_counts_are_all(tmp_path: Path) -> None:
    names = [f"m{i}.png" for i in range(7)]
    report = run(Check(write(tmp_path / "d", [f"{n},Mass,0,9,PA" for n in names], train=names)))
    assert report.faults == (Fault("no file for this image", "error", 7, ("m0.png", "m1.png", "m2.png")),)
    assert tables(report.config.data, report.document)[0][-1].rows == (
        ("no file for this image", "error", "7", "m0.png; m1.png; m2.png"),
    )


@pytest.mark.parametrize("inverted", [True, False])
def test_the_same_film_in_two_splits_though_it_looks_inverted(tmp_path: Path, inverted: bool) -> None:
    root = write(tmp_path / "d", ["c.png,Mass,0,3,PA"], train=["c.png"])
    pixels = np.random.default_rng(3).integers(60, 100, (HEIGHT, WIDTH), dtype=np.uint8)
    pixels[:, 3 * WIDTH // 8 : 5 * WIDTH // 8] += 100
    for name in ("a.png", "c.png"):  # of the test list and the other
        (root / "images" / name).write_bytes(cv2.imencode(".png", 255 - pixels if inverted else pixels)[1].tobytes())
    faults = found(run(Check(root)))
    assert faults.pop("same pixels in two splits") == ("error", 1, ("a.png = c.png",))
    assert [kind.partition(":")[0] for kind in faults] == ["image that looks inverted"] * inverted


@pytest.mark.parametrize(("spot", "kind"), [(0, "constant image"), (200, "black image")])
def test_films_with_nothing_on_them_are_not_taken_for_copies(tmp_path: Path, spot: int, kind: str) -> None:
    root = write(tmp_path / "d", ["c.png,Mass,0,3,PA"], train=["c.png"])
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    pixels[0, 0] = spot
    for name in ("a.png", "c.png"):
        (root / "images" / name).write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    assert [(kind.partition(":")[0], count) for kind, (_, count, _) in found(run(Check(root))).items()] == [(kind, 2)]


def of_chexpert(root: Path) -> Path:
    """Of training Edema is present once, uncertain twice and absent once, and three films say nothing of it."""
    findings = test_chexpert.OBSERVATIONS[1:]
    said = ("1.0", "-1.0", "-1.0", "0.0", "", "", "")
    folder = root / "CheXpert-v1.0"
    for name, values in (("train", said), ("valid", ("0.0", "1.0"))):
        rows = []
        for i, value in enumerate(values):
            path = f"{name}/patient{i + 10 * len(values):05}/study1/view1_frontal.jpg"
            labels = dict.fromkeys(findings, "" if name == "train" else "0.0") | {"Edema": value}
            rows.append(test_chexpert.row(path, **{f.replace(" ", "_"): v for f, v in labels.items()}))
            (folder / path).parent.mkdir(parents=True)
            (folder / path).write_bytes(film(i + 10 * len(values), ending=".jpg"))
        test_chexpert.table(folder / f"{name}.csv", rows)
    return folder


def test_labels_that_are_uncertain_or_blank_by_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = run(Check(of_chexpert(tmp_path)))
    edema = report.document["findings"]["Edema"]
    assert edema["labels"] == {
        "train": {"present": 1, "uncertain": 2, "absent": 1, "not_mentioned": 3},
        "val": {"present": 1, "uncertain": 0, "absent": 1, "not_mentioned": 0},
        "test": {"present": 0, "uncertain": 0, "absent": 0, "not_mentioned": 0},
    }
    assert (edema["train"], edema["val"], edema["uncertain"]) == (1, 1, 2)
    assert report.document["findings"]["Fracture"]["labels"]["train"]["not_mentioned"] == 7
    sheets = tables(report.config.data, report.document)[0]
    assert [sheet.title for sheet in sheets[1:]] == [
        "Images that have the finding, and truth boxes", "Labels of the 7 images of train",
    ]  # fmt: skip
    assert sheets[1].note.splitlines()[1:] == ["val: every other image is labelled absent; none is uncertain or blank"]
    assert sheets[2].header == ("finding", "present", "uncertain", "absent", "not mentioned")
    assert ("Edema", "1", "2", "1", "3") in sheets[2].rows
    assert len(sheets[2].rows) == 13
    for sheet in sheets[1:]:
        console.table(sheet.title, sheet.header, sheet.rows)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_what_the_command_says_of_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: Check) -> CheckReport:
        raise KeyboardInterrupt

    monkeypatch.setattr("cxrmine.stages.check.run", interrupted)
    stopped = CliRunner().invoke(app, ["check", "--data", str(tmp_path)])
    assert stopped.exit_code == 75
    assert stopped.stderr.splitlines() == [
        "error: Stopped.", "       Nothing is kept of a check: the same command begins again.",
    ]  # fmt: skip
    shown = CliRunner(env={"COLUMNS": "100"}).invoke(app, ["check", "--help"]).output
    assert "Processes; a few films are left to threads." in shown
    assert "(cores)" in shown
    assert "at most 8" not in shown


@pytest.mark.parametrize("few", [True, False])
def test_a_tar_archive_is_told_film_by_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: bool) -> None:
    """The archive is one portion, and the bar moves before its end."""
    names = [f"{i}.png" for i in range(8)]
    with tarfile.open(tmp_path / "d.tar", "w") as archive:
        for name, content in [("l.csv", "image,patient,Mass\n" + "".join(f"{n},{n},1\n" for n in names))]:
            add(archive, name, content.encode())
        for i, name in enumerate(names):
            add(archive, name, film(i, 1500, 1500))
    monkeypatch.setattr(look, "FEW", 400 if few else 0)
    monkeypatch.setattr(look, "BETWEEN", 0.01)
    steps: list[int] = []
    advance = console.Progress.advance
    monkeypatch.setattr(console.Progress, "advance", lambda bar, n: (steps.append(n), advance(bar, n)))
    assert run(Check(tmp_path / "d.tar", workers=2)).document["sizes"] == {"1500x1500": 8}
    assert sum(steps) == 8
    assert len([n for n in steps if n]) > 2


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def test_several_sizes_are_information(tmp_path: Path) -> None:
    root = write(tmp_path / "d", ["c.png,Mass,0,3,PA"], train=["c.png"])
    (root / "images" / "c.png").write_bytes(film(1, 80, 90))
    report = run(Check(root))
    assert report.faults == ()
    assert report.document["sizes"] == {"60x40": 2, "80x90": 1}


def test_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(CxrError, match="no dataset folder"):
        run(Check(tmp_path / "nowhere"))


def test_a_phantom_dataset_is_sound(dataset: Path) -> None:
    report = run(Check(dataset, strict=True))
    assert found(report) == {}
    assert report.document["sizes"] == {"96x96": 160}
