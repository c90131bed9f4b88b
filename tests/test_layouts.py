"""Every layout, written in its own form and small, goes through check, pack, train, mine and score."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cxrmine.data import datasets
from cxrmine.data.datasets import open_dataset
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
from tests.miniature import HEIGHT, WIDTH, Case, cases

Write = Callable[[Path, list[Case]], Path]
FORMS: dict[str, tuple[Write, int, bool]] = {  # layout → its writer, films that are read, whether it has boxes
    "chexpert": (test_chexpert.write, 40, True),
    "chexpert-small": (partial(test_chexpert.write, release="CheXpert-v1.0-small"), 40, True),
    "mimic-jpg": (test_mimic.write, 40, False),
    "mimic-dicom": (partial(test_mimic.write, form="dicom"), 40, False),
    "vindr-physionet": (test_vindr.write, 40, True),
    "vindr-kaggle": (partial(test_vindr.write, form="kaggle", films="png"), 32, True),
    "rsna": (test_rsna.write, 40, True),
    "openi": (test_openi.write, 40, False),
    "padchest": (test_padchest.write, 40, False),
    "montgomery": (test_montgomery.write, 40, False),
    "jsrt": (test_jsrt.write, 40, False),
    "coco": (test_coco_layout.write, 40, True),
    "table": (test_table_layout.write, 40, False),
    "table-boxes": (partial(test_table_layout.write, joined=True), 40, True),
}
SMALL = (*TINY, "data.size=32", "data.fit=pad", "train.batch_size=8", "train.phases.0.epochs=1")


@pytest.mark.parametrize("form", FORMS)
def test_from_check_to_score(form: str, tmp_path: Path) -> None:
    write, count, has_boxes = FORMS[form]
    root = write(tmp_path / "data", cases(40))
    checked = check.run(check.Check(root))
    assert checked.ok, checked.faults
    index = checked.index
    assert len(index) == count
    assert (index.boxes.num_rows > 0) == has_boxes
    packed = pack.run(pack.Pack(root, tmp_path / "pack", 32, "pad", workers=1)).index
    assert packed.fingerprint == index.fingerprint
    assert {packed.films.size(path) for path in packed.table["path"].to_pylist()} == {(WIDTH, HEIGHT)}
    run = tmp_path / "run"
    train.run(train.Train(tmp_path / "pack", "demo", run, SMALL, device="cpu", workers=1))
    split = "boxed" if has_boxes else "all"
    mined = tmp_path / "boxes.parquet"
    mine.run(mine.Mine(run, root, mined, split, device="cpu", workers=1))  # from its own films this time
    sizes = pq.ParquetFile(mined).read(["image_width", "image_height"]).to_pydict()
    assert set(zip(*sizes.values(), strict=True)) <= {(WIDTH, HEIGHT)}
    if has_boxes:
        scored = score.run(score.Score((mined,), root))
        assert json.loads(json.dumps(scored.document))
    else:
        out = tmp_path / "predicted.parquet"
        predict.run(predict.Predict(run, root, out, "all", device="cpu", workers=1))
        scored = score.run(score.Score((out,), root))
        assert json.loads(json.dumps(scored.document))


def test_every_layout_is_here() -> None:
    names = {layout.__name__.rpartition(".")[2] for layout in datasets.LAYOUTS} - {"chestxray14"}
    assert names <= {form.partition("-")[0] for form in FORMS}


def test_a_folder_above_and_an_archive_of_it(tmp_path: Path) -> None:
    root = test_rsna.write(tmp_path / "above" / "rsna", cases(8))
    expected = open_dataset(root).fingerprint
    assert open_dataset(tmp_path / "above").fingerprint == expected
    archive = shutil.make_archive(str(tmp_path / "rsna"), "zip", tmp_path / "above")
    assert open_dataset(Path(archive), archives=True).fingerprint == expected
