"""The score stage: sources in, rows, a document and tables out."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxrmine.boxes.shards import Boxes, shard_path
from cxrmine.boxes.table import IMAGES_SCHEMA, SCHEMA, BoxWriter, build, truth_table, write_boxes
from cxrmine.errors import CxrError, UsageError
from cxrmine.scoring.truth import read
from cxrmine.stages import score

IMAGES = [f"{i:03}.png" for i in range(20)]
META = {"recipe": {"mine": {"way": "peak", "top": 2}, "data": {"size": 64}}, "weights_sha256": "w", "dataset": "d"}


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    return draw(tmp_path / "truth.parquet")


def draw(path: Path) -> Path:
    """Twenty patients with a Mass each, the last five in split val, and one Nodule."""
    n = len(IMAGES)
    columns = {
        "image_id": [*IMAGES, IMAGES[0]],
        "finding": ["Mass"] * n + ["Nodule"],
        "split": ["test"] * 15 + ["val"] * 5 + ["test"],
        "patient_id": [name[:3] for name in IMAGES] + ["000"],
        "x_min": np.arange(n + 1.0),
        "y_min": np.zeros(n + 1),
        "x_max": np.arange(n + 1.0) + 20,
        "y_max": np.full(n + 1, 20.0),
        "image_width": [128] * (n + 1),
        "image_height": [128] * (n + 1),
    }
    write_boxes(path, truth_table(columns), {})
    return path


def mine(path: Path, images: list[str], source: str = "cam", shift: float = 0.0, **meta: object) -> Path:
    """A perfect first box and a bad second one for Mass; and a box of a finding without truth."""
    with BoxWriter(path, META | meta) as writer:
        for name in images:
            x = float(name[:3]) + shift
            row = {"image_id": name, "image_width": 128, "image_height": 128, "source": source, "score": 0.5}
            place = {"x_min": x, "y_min": 0.0, "x_max": x + 20, "y_max": 20.0}
            far = {"x_min": 90.0, "y_min": 90.0, "x_max": 99.0, "y_max": 99.0}
            boxes = [
                {**row, **far, "finding": "Hernia", "rank": 1},
                {**row, **place, "finding": "Mass", "rank": 1},
                {**row, **far, "finding": "Mass", "rank": 2},
            ]
            pairs = [
                {"image_id": name, "finding": f, "boxes": k, "status": "ok"} for f, k in (("Hernia", 1), ("Mass", 2))
            ]
            writer.write(boxes, pairs)
    return path


def test_rows_are_the_controls_and_then_the_predictions(tmp_path, drawn):
    path = mine(tmp_path / "b.parquet", IMAGES)
    result = score.run(score.Score((path,), drawn))
    assert [name for name, _ in result.rows] == ["mean box", "typical box", "random map", "cam"]
    document = result.document
    assert list(document)[:6] == ["schema", "kind", "method", "protocol", "counts", "leakage"]
    assert (document["schema"], document["kind"], document["method"]) == (1, "boxes", "cam")
    assert document["acc_afp"]["Mass"]["0.7"] == {
        "acc": 1, "afp": 1, "truth": 20, "hit": 20, "taken": 40, "false": 20, "images": 20,
    }  # fmt: skip
    assert document["top1"]["Nodule"] == {"mean_iou": 0, "pairs": 1, "missing": 1}
    assert set(document["controls"]) == {"mean box", "typical box", "random map"}
    assert document["references"]["Mass"] == "scored patients, 5 folds by patient"
    assert document["protocol"]["rule"] == ">"
    json.dumps(document, allow_nan=False)


def test_what_is_not_judged_is_said(tmp_path, drawn):
    result = score.run(score.Score((mine(tmp_path / "b.parquet", IMAGES[:12]),), drawn, splits=("test",)))
    counts = result.document["counts"]
    assert (counts["unjudged"], counts["judged_pairs_without_box"], counts["truth_boxes_on_images_not_mined"]) == (
        12,
        1,
        3,
    )
    assert counts["findings_without_truth"] == ["Hernia"]
    text = "\n".join(result.notes)
    assert "12 boxes of pairs without truth are unjudged" in text
    assert "3 truth boxes lie on images that were not mined" in text
    assert "no truth for Hernia" in text


def test_splits_and_findings_choose_what_is_judged(tmp_path, drawn):
    path = mine(tmp_path / "b.parquet", IMAGES)
    result = score.run(score.Score((path,), drawn, splits=("val",), findings=("Mass",), controls=False))
    assert result.document["counts"]["judged_pairs"] == 5
    assert [name for name, _ in result.rows] == ["cam"]
    with pytest.raises(CxrError, match="no truth boxes of train"):
        score.run(score.Score((path,), drawn, splits=("train",)))
    with pytest.raises(UsageError, match=r"Did you mean test\?"):
        score.run(score.Score((path,), drawn, splits=("tset",)))
    with pytest.raises(CxrError, match=r"Did you mean Mass\?"):
        score.run(score.Score((path,), drawn, findings=("mas",)))


def test_findings_that_are_nearly_alike_are_refused(tmp_path, drawn):
    for known, match in ((["Mas", "Nodules"], "boxes of Mass, which cam does not know. Did you mean Mas?"), ([], None)):
        recipe = {**META["recipe"], "data": {"size": 64, "findings": known}}
        path = mine(tmp_path / f"{len(known)}.parquet", IMAGES, recipe=recipe)
        if match:
            with pytest.raises(CxrError, match=re.escape(match)):
                score.run(score.Score((path,), drawn))
        else:
            score.run(score.Score((path,), drawn))
    other = {"data": {"findings": ["Mass", "Hernia"]}}  # Nodule is another finding, and is nobody's misspelling
    score.run(score.Score((mine(tmp_path / "o.parquet", IMAGES, recipe=other),), drawn))


def bare(drawn: Path, tmp_path: Path, **changed: str) -> Path:
    """The truth as a CSV that knows nothing of the images; `changed`: column → its value in the first row."""
    names = ["image_id", "finding", "x_min", "y_min", "x_max", "y_max"]
    rows = pq.ParquetFile(drawn).read(columns=names).to_pylist()
    rows[0] |= changed
    lines = [",".join(names), *(",".join(str(row[name]) for name in names) for row in rows)]
    (tmp_path / "truth.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "truth.csv"


def test_what_truth_does_not_say_of_its_images_comes_from_the_predictions(tmp_path, drawn):
    """The images table says that the film is 128 by 96 here, that 000 is its patient and val its split."""
    csv_path = bare(drawn, tmp_path)
    images = {"image_id": ["000.png"] * 2, "width": [None, 128], "height": [None, 96], "split": ["val"] * 2}
    images = build(IMAGES_SCHEMA, {**images, "patient_id": ["000"] * 2, "status": ["ok"] * 2})
    known = {"image_id": ["001.png"], "finding": ["Mass"], "image_width": [64], "image_height": [65]}
    boxes = build(SCHEMA, known | {"rank": [1], "patient_id": ["001"], "split": ["test"]})
    truth = read(csv_path, predictions=[("a", Boxes(boxes, {}, None))]).everything
    names = ("image_width", "image_height", "patient_id", "split")
    assert [truth[name].to_pylist()[:3] for name in names] == [
        [None, None, 64], [None, None, 65], [None, None, "001"], [None, None, "test"],
    ]  # fmt: skip
    truth = read(csv_path, predictions=[("a", Boxes(boxes, {}, images))])
    assert [truth.everything[name].to_pylist()[:3] for name in names] == [
        [128, 128, 64], [96, 96, 65], ["000", "000", "001"], ["val", "val", "test"],
    ]  # fmt: skip
    assert (len(truth.judged), truth.not_mined) == (2, 19)


def test_truth_outside_its_image_is_refused_once_the_size_is_known(tmp_path, drawn):
    path = mine(tmp_path / "b.parquet", IMAGES)
    sized = bare(drawn, tmp_path, x_max="4000")
    score.run(score.Score((), sized))  # nobody knows better
    images = [{"image_id": n, "width": 128, "height": 128, "finding": "Mass", "status": "ok"} for n in IMAGES]
    boxes = pq.ParquetFile(path).read()
    with pytest.raises(CxrError, match=r"1 of 21 boxes outside their image, the first: 000.png, Mass: x_max is beyond"):
        read(sized, predictions=[("cam", Boxes(boxes, {}, build(IMAGES_SCHEMA, images)))])
    with pytest.raises(CxrError, match=r"0 to 4000 of 128"):
        read(sized, predictions=[("cam", Boxes(boxes, {}, None))])


def test_a_control_without_a_box_is_said(tmp_path, drawn):
    text = "\n".join(score.run(score.Score((), bare(drawn, tmp_path))).notes)
    assert "Of 21 judged pairs, controls have no box for: mean box 21, typical box 21, random map 21" in text
    text = "\n".join(score.run(score.Score((), drawn)).notes)
    assert "controls have no box for: mean box 1, typical box 1 (" in text  # nobody else has a Nodule


def test_training_patients_are_said_plainly_of_training_films_and_are_a_leak_elsewhere(tmp_path, drawn):
    seen = tmp_path / "patients.parquet"
    pq.write_table(pa.table({"patient_id": ["001", "002", "016"], "split": ["train", "train", "val"]}), seen)
    said = "The run was trained on 2 of the 20 judged patients, and validated on 1"
    for split, note in (("train", f"{said}: these are boxes of its training films."), ("boxed", f"LEAKS: {said}.")):
        path = mine(tmp_path / f"{split}.parquet", IMAGES, split=split)
        assert note in score.run(score.Score((path,), drawn, run_patients=seen)).notes
    notes = score.run(score.Score((), bare(drawn, tmp_path), run_patients=seen)).notes
    assert "The patients of 20 judged images are not known: the run may have seen them." in notes
    assert not any("None of the" in note for note in notes)


def test_controls_alone_need_no_prediction(drawn):
    result = score.run(score.Score((), drawn))
    assert [name for name, _ in result.rows] == ["mean box", "typical box", "random map"]
    assert result.document["method"] == ""


def test_two_predictions_of_one_source_are_told_apart(tmp_path, drawn):
    paths = (mine(tmp_path / "b.parquet", IMAGES), mine(tmp_path / "c.parquet", IMAGES, shift=30))
    result = score.run(score.Score(paths, drawn, controls=False))
    assert [name for name, _ in result.rows] == ["cam (b)", "cam (c)"]
    assert list(result.document["others"]) == ["cam (c)"]


def test_shards_that_a_shell_listed_are_one_prediction(tmp_path, drawn):
    whole = score.run(score.Score((mine(tmp_path / "whole.parquet", IMAGES),), drawn))
    parts = tuple(shard_path(tmp_path / "b.parquet", i, 2) for i in (1, 2))
    for i, part in enumerate(parts):
        mine(part, IMAGES[i * 10 : i * 10 + 10], shard=[i + 1, 2])
    joined = score.run(score.Score(parts, drawn))
    assert joined.document == whole.document


def test_leakage_counts_patients_the_run_has_seen(tmp_path, drawn):
    path, seen = mine(tmp_path / "b.parquet", IMAGES), tmp_path / "patients.parquet"
    for ids, leaks in ((["001", "900"], 1), (["900"], 0)):
        pq.write_table(pa.table({"patient_id": ids, "split": ["train"] * len(ids)}), seen)
        result = score.run(score.Score((path,), drawn, run_patients=seen))
        leakage = {"patients": leaks, "trained": leaks, "of": 20, "images_without_patient": 0}
        assert result.document["leakage"] == leakage
        assert any("LEAKS" in note for note in result.notes) == bool(leaks)
    seen.write_bytes(b"no table")
    with pytest.raises(CxrError, match="not a run's table of patients"):
        score.run(score.Score((path,), drawn, run_patients=seen))


def test_files_are_written(tmp_path, drawn):
    path = mine(tmp_path / "b.parquet", IMAGES)
    (tmp_path / "s.csv").write_text(score.csv(score.run(score.Score((path,), drawn))))
    with (tmp_path / "s.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = {"method": "cam", "measure": "acc_afp", "finding": "Mass", "threshold": "0.3", "figure": "acc"}
    assert [row["value"] for row in rows if wanted.items() <= row.items()] == ["1.0"]
    assert {row["finding"] for row in rows} == {"Mass", "Nodule", "mean"}
    assert all(len(row) == 6 for row in rows)


def test_tables_for_people(tmp_path, drawn):
    result = score.run(score.Score((mine(tmp_path / "b.parquet", IMAGES),), drawn))
    title, header, rows, note = score.summary_table(result)
    assert header == ["", "Acc (AFP) > 0.1", "Acc (AFP) > 0.3", "Acc (AFP) > 0.5", "top-1 IoU"]
    assert rows[-1] == ["cam", "0.500 (0.50)", "0.500 (0.50)", "0.500 (0.50)", "0.500"]
    assert "Protocol cai2018" in note
    assert "mean over findings" in title
    title, header, rows, note = score.finding_tables(result)[0]
    assert title == "Acc (AFP) at IoU > 0.1"
    assert header == ["finding", "mean box", "typical box", "random map", "cam"]
    assert rows[0][0::4] == ["Mass", "1.000 (1.00)"]


def test_truth_from_a_dataset_folder(dataset, tmp_path):
    whole = read(dataset)
    drawn = read(dataset / "truth.parquet")
    assert whole.images is not None
    assert len(whole.judged) > 0
    columns = ["image_id", "finding", "patient_id", "x_min", "y_max", "image_width", "image_height"]
    ours = set(zip(*(whole.judged[name].to_pylist() for name in columns), strict=True))
    assert ours <= set(zip(*(drawn.judged[name].to_pylist() for name in columns), strict=True))
    image = whole.judged["image_id"][0].as_py()
    (tmp_path / "b.csv").write_text(
        f"image_id,finding,x_min,y_min,x_max,y_max\n{image},Mass,1,1,9,9\nstranger.png,Mass,1,1,9,9\n"
    )
    result = score.run(score.Score((tmp_path / "b.csv",), dataset))
    assert result.document["counts"]["images_not_in_dataset"] == 1
    assert "1 images are not in the dataset" in "\n".join(result.notes)


def test_scoring_imports_neither_torch_nor_pandas(tmp_path, drawn):
    path = mine(tmp_path / "b.parquet", IMAGES)
    code = (
        "import sys; from pathlib import Path; from cxrmine.stages import score; "
        "score.run(score.Score((Path(sys.argv[1]),), Path(sys.argv[2]))); "
        "sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, path, drawn], check=False).returncode == 0
