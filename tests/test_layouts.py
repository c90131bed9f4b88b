"""Every layout, written in its own form and small, goes through check, pack, train, mine and score."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from cxrmine.data import datasets
from cxrmine.data.datasets import open_dataset
from cxrmine.data.images import read_image
from cxrmine.data.index import Index, corners
from cxrmine.stages import check, mine, pack, predict, score, train
from tests import (
    test_chexpert,
    test_coco_layout,
    test_jsrt,
    test_mimic,
    test_montgomery,
    test_openi,
    test_padchest,
    test_rsna,
    test_table_layout,
    test_vindr,
)
from tests.conftest import TINY
from tests.miniature import HEIGHT, WIDTH, Case, cases, write_png
from tests.score_cases import SIZED, lines

Boxes = list[tuple[str, float, float, float, float]]
GRID = 1024
SMALL = (*TINY, "data.size=32", "data.fit=pad", "train.batch_size=8", "train.phases.0.epochs=1")


# --- forms that are written out of another


def write_nih(root: Path, made: list[Case]) -> Path:
    """NIH's tables with films that somebody made smaller, in a folder of his own: boxes are on a grid of 1024."""
    rows = ["Image Index,Finding Labels,Follow-up #,Patient ID,View Position"]
    listed = ["Image Index,Finding Label,Bbox [x,y,w,h],,,"]
    lists: dict[str, list[str]] = {"train_val_list.txt": [], "test_list.txt": []}
    for case in made:
        patient = case.patient + 30  # of whom some become val
        name = f"{patient:08}_{case.number:03}.png"
        write_png(root / "images-60" / "images-60" / name, case.pixels)
        rows.append(f"{name},{'|'.join(case.findings) or 'No Finding'},0,{patient},PA")
        listed += [f"{name},{box[0]},{','.join(map(str, on_grid(box)))}" for box in case.boxes]
        lists["test_list.txt" if case.split == "test" else "train_val_list.txt"].append(name)
    for name, content in {"Data_Entry_2017.csv": rows, "BBox_List_2017.csv": listed, **lists}.items():
        (root / name).write_text("\n".join(content))
    return root


def on_grid(box: tuple[str, int, int, int, int]) -> tuple[float, ...]:
    """x, y, w, h"""
    _, x0, y0, x1, y1 = box
    return x0 * GRID / WIDTH, y0 * GRID / HEIGHT, (x1 - x0) * GRID / WIDTH, (y1 - y0) * GRID / HEIGHT


def write_rsna_copies(root: Path, made: list[Case]) -> Path:
    """RSNA's tables with PNG copies: boxes are on a grid of 1024."""
    test_rsna.write(root, made)
    shutil.rmtree(root / "stage_2_train_images")
    rows = [test_rsna.HEADER]
    for case in made:
        write_png(root / "images" / f"{test_rsna.name_of(case)}.png", case.pixels)
        rows += [f"{test_rsna.name_of(case)},{','.join(map(str, on_grid(box)))},1" for box in case.boxes]
        rows += [f"{test_rsna.name_of(case)},,,,,0"] * (not case.boxes)
    (root / "stage_2_train_labels.csv").write_text("\n".join(rows))
    return root


def write_vindr_copies(root: Path, made: list[Case]) -> Path:
    """Kaggle's form with films of half the width and a quarter of the height, and the table of the DICOM's sizes."""
    test_vindr.write(root, made, form="kaggle", films="png")
    rows = ["image_id,dim0,dim1"]
    for case in made:
        for path in root.glob(f"*/{test_vindr.name_of(case)}.png"):
            write_png(path, cv2.resize(case.pixels, (WIDTH // 2, HEIGHT // 4), interpolation=cv2.INTER_AREA))
        rows.append(f"{test_vindr.name_of(case)},{HEIGHT},{WIDTH}")
    (root / "train_meta.csv").write_text("\n".join(rows))
    return root


def write_negbio(root: Path, made: list[Case]) -> Path:
    """MIMIC's labels as the other labeler has them."""
    folder = test_mimic.write(root, made)
    name = "mimic-cxr-2.0.0-{}.csv.gz"
    (folder / name.format("chexpert")).rename(folder / name.format("negbio"))
    return folder


def write_parquet(root: Path, made: list[Case]) -> Path:
    test_table_layout.write(root, made, joined=True)
    pq.write_table(pyarrow.csv.read_csv(root / "labels.csv"), root / "labels.parquet")
    (root / "labels.csv").unlink()
    return root


# --- what boxes each form has


def as_drawn(made: list[Case]) -> Boxes:
    return [box for case in made for box in case.boxes]


def as_opacities(made: list[Case]) -> Boxes:
    return [("Lung Opacity", *box[1:]) for box in as_drawn(made)]


def by_readers(made: list[Case]) -> Boxes:
    """Of Kaggle's form, whose test part has no boxes."""
    train = [case for case in made if case.split != "test"]
    return [box for case in train for reader in test_vindr.READERS for box in test_vindr.drawn_by(case, reader)]


def by_readers_and_consensus(made: list[Case]) -> Boxes:
    whole = by_readers(made) + as_drawn([case for case in made if case.split == "test"])
    return [(f, x0 + 0.25, y0 + 0.25, x1 + 0.25, y1 + 0.25) for f, x0, y0, x1, y1 in whole]


@dataclass(frozen=True)
class Form:
    write: Callable[[Path, list[Case]], Path]
    films: int = 40  # that are read, of 40
    boxes: Callable[[list[Case]], Boxes] = as_drawn  # in pixels of 60×48
    size: tuple[int, int] = (WIDTH, HEIGHT)


def none(made: list[Case]) -> Boxes:
    return []


FORMS = {
    "chestxray14-resized": Form(write_nih),
    "chexpert": Form(test_chexpert.write),
    "chexpert-small": Form(partial(test_chexpert.write, release="CheXpert-v1.0-small")),
    "mimic-jpg": Form(test_mimic.write, boxes=none),
    "mimic-dicom": Form(partial(test_mimic.write, form="dicom"), boxes=none),
    "mimic-negbio": Form(write_negbio, boxes=none),
    "vindr-physionet": Form(test_vindr.write, boxes=by_readers_and_consensus),
    "vindr-kaggle": Form(partial(test_vindr.write, form="kaggle", films="png"), 32, by_readers),
    "vindr-copies": Form(write_vindr_copies, 32, by_readers, (WIDTH // 2, HEIGHT // 4)),
    "rsna": Form(test_rsna.write, boxes=as_opacities),
    "rsna-copies": Form(write_rsna_copies, boxes=as_opacities),
    "openi": Form(test_openi.write, boxes=none),
    "padchest": Form(test_padchest.write, boxes=none),
    "montgomery": Form(test_montgomery.write, boxes=none),
    "jsrt": Form(test_jsrt.write, boxes=none),
    "coco": Form(test_coco_layout.write),
    "table": Form(test_table_layout.write, boxes=none),
    "table-boxes": Form(partial(test_table_layout.write, joined=True)),
    "table-parquet": Form(write_parquet),
}


@pytest.mark.parametrize("name", FORMS)
def test_from_check_to_score(name: str, tmp_path: Path) -> None:
    form, made = FORMS[name], cases(40)
    root = form.write(tmp_path / "data", made)
    checked = check.run(check.Check(root))
    assert checked.ok, checked.faults
    index = checked.index
    assert len(index) == form.films
    boxes_are_the_drawn_ones(index, form, form.boxes(made))
    packed = pack.run(pack.Pack(root, tmp_path / "pack", 32, "pad", workers=1)).index
    assert packed.fingerprint == index.fingerprint
    assert packed.boxes == index.boxes
    assert {packed.films.size(path) for path in packed.table["path"].to_pylist()} == {form.size}
    run = tmp_path / "run"
    train.run(train.Train(tmp_path / "pack", "demo", run, SMALL, device="cpu", workers=1))
    if form.boxes(made):
        mined = tmp_path / "boxes.parquet"
        mine.run(mine.Mine(run, root, mined, "boxed", device="cpu", workers=1))  # from its own films this time
        mined_boxes_lie_in_their_films(mined, index, form.size)
        score.run(score.Score((mined,), root, samples=0, controls=False))
        truth_scores_one(index, root, tmp_path / "truth.csv", form.size)
    else:
        out = tmp_path / "predicted.parquet"
        predict.run(predict.Predict(run, root, out, "all", device="cpu", workers=1))
        table = pq.ParquetFile(out).read()
        assert set(table["image_id"].to_pylist()) == set(index.table["image_id"].to_pylist())
        document = score.run(score.Score((out,), root)).document
        assert document["counts"]["images"] == form.films


def boxes_are_the_drawn_ones(index: Index, form: Form, drawn: Boxes) -> None:
    """To a hundredth of a pixel of the film's own file; and there is something bright where a box lies."""
    across, down = form.size[0] / WIDTH, form.size[1] / HEIGHT
    expected = sorted((f, x0 * across, y0 * down, x1 * across, y1 * down) for f, x0, y0, x1, y1 in drawn)
    found = sorted(zip(index.boxes["finding"].to_pylist(), *corners(index.boxes).T.tolist(), strict=True))
    assert [box[0] for box in found] == [box[0] for box in expected]
    assert np.allclose([box[1:] for box in found], [box[1:] for box in expected], atol=0.01)
    path = dict(zip(index.table["image_id"].to_pylist(), index.table["path"].to_pylist(), strict=True))
    for image, box in zip(index.boxes["image_id"].to_pylist(), corners(index.boxes), strict=True):
        film = read_image(index.root / path[image]).astype(int)
        x0, y0, x1, y1 = np.round(box).astype(int)
        assert film[y0:y1, x0:x1].mean() > film.min() + 0.6 * (int(film.max()) - film.min()), (image, box)


def mined_boxes_lie_in_their_films(mined: Path, index: Index, size: tuple[int, int]) -> None:
    table = pq.ParquetFile(mined).read()
    assert table.num_rows > 0
    assert set(zip(table["image_width"].to_pylist(), table["image_height"].to_pylist(), strict=True)) == {size}
    assert set(table["image_id"].to_pylist()) <= set(index.boxes["image_id"].to_pylist())
    box = corners(table)
    assert (box[:, :2] >= 0).all()
    assert (box[:, 2:] <= size).all()
    assert (box[:, 2:] > box[:, :2]).all()
    # Somewhere a box reaches the outer half of a film: none is in pixels of a smaller input.
    assert (box[:, 2:].max(axis=0) > np.array(size) / 2).all()


def truth_scores_one(index: Index, root: Path, file: Path, size: tuple[int, int]) -> None:
    """The dataset's own boxes, each once, as if somebody had mined them."""
    names = ("image_id", "finding", "x_min", "y_min", "x_max", "y_max")
    own = sorted({tuple(box[name] for name in names) for box in index.boxes.to_pylist()})
    lines(file, SIZED, *(",".join(map(str, (*box, 0.5, *size))) for box in own))
    mean = score.run(score.Score((file,), root, samples=0, controls=False)).document["mean"]
    assert mean["top1"]["mean_iou"] == pytest.approx(1.0, abs=1e-5)
    assert mean["iobb"] == {"recall": 1.0, "precision": 1.0}
    assert mean["acc_afp"]["0.7"] == {"acc": 1.0, "afp": 0.0}


def test_every_layout_is_here() -> None:
    names = {layout.__name__.rpartition(".")[2] for layout in datasets.LAYOUTS}
    assert names == {form.partition("-")[0] for form in FORMS}


def test_a_folder_above_and_an_archive_of_it(tmp_path: Path) -> None:
    root = test_rsna.write(tmp_path / "above" / "rsna", cases(8))
    expected = open_dataset(root).fingerprint
    assert open_dataset(tmp_path / "above").fingerprint == expected
    archive = shutil.make_archive(str(tmp_path / "rsna"), "zip", tmp_path / "above")
    assert open_dataset(Path(archive), archives=True).fingerprint == expected


@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_boxes_of_copies_in_an_archive(tmp_path: Path, kind: str) -> None:
    """The sizes of the copies are read there too; of a tar archive first of eight films, then of all."""
    root = write_nih(tmp_path / "nih", cases(16))
    loose = open_dataset(root)
    archive = shutil.make_archive(str(tmp_path / "nih"), kind, root)
    packed = open_dataset(Path(archive), archives=True)
    assert packed.boxes == loose.boxes
    assert packed.notes[-1] == loose.notes[-1]
    assert loose.notes[-1].startswith("boxes: 16 on 12 films were drawn on films of 1024×1024 pixels, and are scaled")
    assert loose.notes[-1].endswith("12 of these films have other proportions, so each side is scaled by itself")
