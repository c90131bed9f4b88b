"""The score stage: sources in, rows, a document and tables out."""

import csv
import json
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxrmine.boxes.shards import shard_path
from cxrmine.boxes.table import SCHEMA
from cxrmine.errors import CxrError, UsageError
from cxrmine.scoring.figures import MEAN, Key
from cxrmine.scoring.protocols import PROTOCOLS
from cxrmine.scoring.truth import Asked, Seen, read, seen
from cxrmine.stages import score
from cxrmine.stages.score import Score
from cxrmine.tables import build
from tests.score_cases import BOX, HEADER, IMAGES, META, SIZED, cell, draw, drawn_by_hand, lines, mine

CONTROLS = ["mean box", "typical box", "random map"]


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    return draw(tmp_path / "truth.parquet")


def names(result: score.ScoreResult) -> list[str]:
    return [row.name for row in result.rows]


def light(*predictions: Path, truth: Path, **more: object) -> score.ScoreResult:
    """Without intervals and controls."""
    return score.run(Score(predictions, truth, **{"samples": 0, "controls": False} | more))  # type: ignore[arg-type]


# --- rows and the document


def test_rows_are_the_controls_and_then_the_predictions(tmp_path, drawn):
    result = score.run(Score((mine(tmp_path / "b.parquet"),), drawn, samples=0))
    assert names(result) == [*CONTROLS, "cam"]
    document = result.document
    assert list(document)[:6] == ["schema", "kind", "version", "method", "protocol", "counts"]
    assert (document["schema"], document["kind"], document["method"]) == (1, "boxes", "cam")
    assert document["acc_afp"]["Mass"]["0.7"] == {
        "acc": 1, "afp": 1, "truth": 20, "hit": 20, "taken": 40, "false": 20, "images": 20,
    }  # fmt: skip
    assert document["top1"]["Nodule"] == {"mean_iou": 0, "pairs": 1, "missing": 1}
    assert set(document["controls"]) == {*CONTROLS, "mean box (in-sample)"}
    assert document["references"]["Mass"] == "scored patients, 5 folds by patient"
    assert document["protocol"]["rule"] == ">"
    assert document["notes"] == result.notes
    json.dumps(document, allow_nan=False)


def test_the_document_has_the_measures_of_the_design(tmp_path, drawn):
    document = light(mine(tmp_path / "b.parquet"), truth=drawn).document
    assert document["iou"]["Mass"]["0.1"] == 1
    assert document["ior"]["Mass"]["0.5"] == 1  # 400 of 400 + 81
    assert document["iobb"]["Mass"] == {
        "detected": 40, "true": 20, "truth": 20, "hit": 20, "recall": 1, "precision": 0.5,
    }  # fmt: skip
    for measure in ("acc_afp", "iou", "ior", "iobb", "top1"):
        assert measure in document["mean"]
    assert document["mean"]["acc_afp"]["0.3"] == {"acc": 0.5, "afp": 0.5}  # no Nodule is found, and none falsely
    assert document["mean"]["top1"]["mean_iou"] == 0.5


def test_what_is_not_judged_is_said(tmp_path, drawn):
    result = light(mine(tmp_path / "b.parquet", IMAGES[:12]), truth=drawn, splits=("test",))
    counts = result.document["counts"]
    assert [counts[k] for k in ("unjudged", "judged_pairs_without_box", "truth_boxes_on_images_not_mined")] == [
        12,
        1,
        3,
    ]
    assert counts["findings_without_truth"] == ["Hernia"]
    text = "\n".join(result.notes)
    assert "cam: 24 boxes of 13 pairs are judged; 12 boxes of pairs without truth are unjudged, 12 of the mined" in text
    assert "3 truth boxes lie on images that were not mined" in text
    assert "no truth for Hernia" in text


def test_splits_and_findings_choose_what_is_judged(tmp_path, drawn):
    path = mine(tmp_path / "b.parquet")
    result = light(path, truth=drawn, splits=("val",), findings=("Mass",))
    assert result.document["counts"]["judged_pairs"] == 5
    assert names(result) == ["cam"]
    with pytest.raises(CxrError, match="no truth boxes of train"):
        light(path, truth=drawn, splits=("train",))
    with pytest.raises(UsageError, match=r"Did you mean test\?"):
        light(path, truth=drawn, splits=("tset",))
    with pytest.raises(CxrError, match=r"Did you mean Mass\?"):
        light(path, truth=drawn, findings=("mas",))


def test_findings_that_are_nearly_alike_are_refused(tmp_path, drawn):
    for known, match in ((["Mas", "Nodules"], "boxes of Mass, which cam does not know. Did you mean Mas?"), ([], None)):
        recipe = {**META["recipe"], "data": {"size": 64, "findings": known}}
        path = mine(tmp_path / f"{len(known)}.parquet", recipe=recipe)
        if match:
            with pytest.raises(CxrError, match=re.escape(match)):
                light(path, truth=drawn)
        else:
            light(path, truth=drawn)
    other = {"data": {"findings": ["Mass", "Hernia"]}}  # Nodule is another finding, and is nobody's misspelling
    light(mine(tmp_path / "o.parquet", recipe=other), truth=drawn)
    typed = lines(tmp_path / "typed.csv", HEADER, "000.png,mass,0,0,20,20,1")
    with pytest.raises(CxrError, match=r"boxes of Mass, which typed does not know. Did you mean mass\?"):
        light(typed, truth=drawn)


def test_a_dataset_of_truth(dataset, tmp_path):
    whole = read(Asked(dataset))
    drawn = read(Asked(dataset / "truth.parquet"))
    assert whole.images is not None
    assert len(whole.judged) > 0
    columns = ["image_id", "finding", "patient_id", "x_min", "y_max", "image_width", "image_height"]
    ours = set(zip(*(whole.judged[name].to_pylist() for name in columns), strict=True))
    assert ours <= set(zip(*(drawn.judged[name].to_pylist() for name in columns), strict=True))
    image = whole.judged["image_id"][0].as_py()
    path = lines(tmp_path / "b.csv", HEADER, f"{image},Mass,1,1,9,9,1", "stranger.png,Mass,1,1,9,9,1")
    result = light(path, truth=dataset)
    assert result.document["counts"]["images_not_in_dataset"] == 1
    assert "1 image is not in the dataset" in "\n".join(result.notes)


# --- what truth does not say of its images


def bare(drawn: Path, tmp_path: Path, **changed: str) -> Path:
    """The truth as a CSV that knows nothing of the images; `changed`: column → its value in the first row."""
    columns = ["image_id", "finding", *BOX]
    rows = pq.ParquetFile(drawn).read(columns=columns).to_pylist()
    rows[0] |= changed
    told = [",".join(str(row[name]) for name in columns) for row in rows]
    return lines(tmp_path / "truth.csv", ",".join(columns), *told)


def test_what_truth_does_not_say_of_its_images_comes_from_the_predictions(tmp_path, drawn):
    """The images table says that the film is 128 by 96 here, that 000 is its patient and val its split."""
    asked = Asked(bare(drawn, tmp_path))
    images = {"image_id": ["000.png"], "width": [128], "height": [96], "split": ["val"], "patient_id": ["000"]}
    looked = Seen("b", pa.table(images), mined=True)
    box = {"image_id": ["001.png"], "finding": ["Mass"], "image_width": [64], "image_height": [65]}
    box |= dict(zip(BOX, ([0], [0], [9], [9]), strict=True))
    boxes = seen("a", None, build(SCHEMA, box | {"patient_id": ["001"], "split": ["test"]}))
    columns = ("image_width", "image_height", "patient_id", "split")
    truth = read(asked, [boxes])
    assert [truth.everything[name].to_pylist()[:3] for name in columns] == [
        [None, None, 64], [None, None, 65], [None, None, "001"], [None, None, "test"],
    ]  # fmt: skip
    truth = read(asked, [boxes, looked])
    assert [truth.everything[name].to_pylist()[:3] for name in columns] == [
        [128, 128, 64], [96, 96, 65], ["000", "000", "001"], ["val", "val", "test"],
    ]  # fmt: skip
    assert (len(truth.judged), truth.not_mined) == (2, 19)


def test_truth_outside_its_image_is_refused_once_the_size_is_known(tmp_path, drawn):
    sized = bare(drawn, tmp_path, x_max="4000")
    notes = score.run(Score((), sized, samples=0)).notes  # nobody knows better
    assert "The image's size is not known for 21 of 21 judged truth boxes" in "\n".join(notes)
    with pytest.raises(CxrError, match=r"1 of 21 boxes outside .*: 000.png, Mass: x_max is beyond .*0 to 4000 of 128"):
        light(mine(tmp_path / "b.parquet"), truth=sized)


def test_boxes_in_the_pixels_of_another_image_size_are_refused(tmp_path, drawn):
    boxes = lines(tmp_path / "b.csv", SIZED, "000.png,Mass,0,0,20,20,1,1024,1024")
    with pytest.raises(CxrError, match=r"000.png has image_width 1024 here and 128 in the truth"):
        light(boxes, truth=drawn)
    beyond = lines(tmp_path / "d.csv", HEADER, "001.png,Mass,0,0,20,20,1", "000.png,Mass,500,0,600,20,1")
    with pytest.raises(
        CxrError, match=r"d has 1 of 2 boxes outside .*000.png, Mass: x_max is .* \(500 to 600 of 128\)"
    ):
        light(beyond, truth=drawn)
    unsized = light(lines(tmp_path / "c.csv", HEADER, "000.png,Mass,0,0,20,20,1"), truth=drawn)
    assert "c: the image's size is not said; taken as pixels of the truth's images." in unsized.notes


def test_a_control_without_a_box_is_said_and_does_not_stand_at_zero(tmp_path, drawn):
    boxes = lines(tmp_path / "b.csv", HEADER, "000.png,Mass,0,0,20,20,1")
    result = score.run(Score((boxes,), bare(drawn, tmp_path), samples=0))
    assert "not shown: mean box, typical box, random map (the image's size is not known" in "\n".join(result.notes)
    assert names(result) == ["b"]
    assert result.document["controls"]["mean box"]["counts"]["boxes"] == 0
    text = "\n".join(score.run(Score((), drawn, samples=0)).notes)
    assert "controls have no box for: mean box 1, typical box 1 (" in text  # nobody else has a Nodule


# --- who was trained on


def patients(path: Path, **split: str) -> Path:
    """The table of a run's patients: p001="train", …"""
    columns = {"patient_id": [name.removeprefix("p") for name in split], "split": list(split.values())}
    pq.write_table(pa.table(columns), path)
    return path


def test_training_patients_are_said_plainly_of_training_films_and_are_a_leak_elsewhere(tmp_path, drawn):
    known = patients(tmp_path / "patients.parquet", p001="train", p002="train", p016="val")
    said = "The run was trained on 2 of the 20 judged patients, and validated on 1"
    for split, note in (("train", f"{said}: these are boxes of its training films."), ("boxed", f"LEAKS: {said}.")):
        path = mine(tmp_path / f"{split}.parquet", split=split)
        notes = light(path, truth=drawn, run_patients=known).notes
        assert note in notes
        assert notes.index(note) == 0 or split == "train", "a leak comes first"
    notes = score.run(Score((), bare(drawn, tmp_path), samples=0, run_patients=known)).notes
    assert "The patients of 20 judged images are not known: the run may have seen them." in notes
    assert not any("None of the" in note for note in notes)


def test_leakage_counts_patients_the_run_has_seen(tmp_path, drawn):
    path = mine(tmp_path / "b.parquet")
    for people, leaks in ({"p001": "train", "p900": "train"}, 1), ({"p900": "train"}, 0):
        known = patients(tmp_path / "patients.parquet", **people)
        result = light(path, truth=drawn, run_patients=known)
        leakage = {"patients": leaks, "trained": leaks, "of": 20, "images_without_patient": 0}
        assert result.document["leakage"] == leakage
        assert any("LEAKS" in note for note in result.notes) == bool(leaks)
    known.write_bytes(b"no table")
    with pytest.raises(CxrError, match="not a run's table of patients"):
        light(path, truth=drawn, run_patients=known)


def test_strict_makes_a_leak_an_error_and_one_that_cannot_be_ruled_out(tmp_path, drawn):
    path = mine(tmp_path / "b.parquet")
    with pytest.raises(CxrError, match="no run is named"):
        light(path, truth=drawn, strict=True)
    for people, said in (({"p001": "train"}, "seen 1 of the 20"), ({"p001": "val"}, "seen 1 of the 20")):
        with pytest.raises(CxrError, match=said):
            light(path, truth=drawn, strict=True, run_patients=patients(tmp_path / "patients.parquet", **people))
    known = patients(tmp_path / "patients.parquet", p900="train")
    assert light(path, truth=drawn, strict=True, run_patients=known).document["leakage"]["patients"] == 0
    with pytest.raises(CxrError, match="patients of 20 judged images are not known"):
        light(truth=bare(drawn, tmp_path), strict=True, run_patients=known)


# --- several predictions


def test_controls_alone_need_no_prediction(drawn):
    result = score.run(Score((), drawn, samples=0))
    assert names(result) == CONTROLS
    assert result.document["method"] == ""


def test_two_predictions_of_one_source_are_told_apart(tmp_path, drawn):
    paths = [mine(tmp_path / "b.parquet"), mine(tmp_path / "c.parquet", shift=30)]
    result = light(*paths, truth=drawn)
    assert names(result) == ["cam (b)", "cam (c)"]
    assert list(result.document["others"]) == ["cam (c)"]


def test_two_files_of_one_name_and_one_that_is_called_like_a_control(tmp_path, drawn):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    paths = [mine(tmp_path / "one" / "b.parquet"), mine(tmp_path / "two" / "b.parquet", shift=30)]
    result = light(*paths, truth=drawn)
    assert names(result) == [f"cam ({tmp_path}/one/b)", f"cam ({tmp_path}/two/b)"]
    shares = [row.values[Key("acc_afp", "Mass", "0.1", "acc")] for row in result.rows]
    assert shares == [1, 0]
    posing = lines(tmp_path / "mean box.csv", HEADER, "000.png,Mass,0,0,20,20,1")
    assert len(set(names(score.run(Score((posing,), drawn, samples=0))))) == 4


def test_shards_that_a_shell_listed_are_one_prediction(tmp_path, drawn):
    whole = score.run(Score((mine(tmp_path / "whole.parquet"),), drawn, samples=20))
    parts = tuple(shard_path(tmp_path / "b.parquet", i, 2) for i in (1, 2))
    for i, part in enumerate(parts):
        mine(part, IMAGES[i * 10 : i * 10 + 10], shard=[i + 1, 2])
    joined = score.run(Score(parts, drawn, samples=20))
    assert joined.document == whole.document


def test_how_a_second_prediction_differs_from_the_first(tmp_path, drawn):
    """Moved by 30 no box lies on the truth, whoever is drawn: the difference is −1 in every sample of 100."""
    paths = (mine(tmp_path / "b.parquet"), mine(tmp_path / "c.parquet", shift=30))
    result = score.run(Score(paths, drawn, samples=100, controls=False))
    differ = result.document["differences"]["cam (c)"]
    p = pytest.approx(2 / 101, abs=1e-6)
    apart = {"difference": -1, "low": -1, "high": -1, "p": p, "p_holm": pytest.approx(4 / 101, abs=1e-6)}
    assert differ["acc_afp"]["Mass"]["0.3"]["acc"] == apart, "Holm over two findings doubles the smallest p"
    assert differ["acc_afp"]["Nodule"]["0.3"]["acc"]["difference"] == 0
    assert differ["mean"]["acc_afp"]["0.3"]["acc"]["difference"] == -0.5
    assert differ["mean"]["acc_afp"]["0.3"]["acc"]["p_holm"] == differ["mean"]["acc_afp"]["0.3"]["acc"]["p"]
    table = result.tables()["differences:0"]
    assert table.title == "Difference: cam (c) minus cam (b)"
    assert table.header == ["finding", "Acc > 0.1", "Acc > 0.3", "Acc > 0.5", "top-1 IoU"]
    assert [row[0] for row in table.rows] == ["Mass", "Nodule", "mean"]
    assert table.rows[0][2] == "-1.000 p=0.040\n[-1.000, -1.000]"
    assert table.rows[1][2] == "+0.000 p=1.000\n[+0.000, +0.000]"
    without = light(*paths, truth=drawn)
    assert "differences:0" not in without.tables()
    assert any("--bootstrap 0 leaves out" in note for note in without.notes)


# --- intervals


def test_the_bootstrap_is_repeated_by_its_seed_and_left_out_by_none(tmp_path, drawn):
    path = mine(tmp_path / "b.parquet", IMAGES[:12])  # of 20 patients 8 have no box where nobody says who was mined
    (tmp_path / "b.images.parquet").unlink()
    intervals = [
        score.run(Score((path,), drawn, samples=samples, seed=seed, controls=False)).document["intervals"]
        for samples, seed in ((50, 0), (50, 0), (50, 1), (0, 0))
    ]
    low, high = intervals[0]["acc_afp"]["Mass"]["0.3"]["acc"]
    assert low < 12 / 20 < high
    assert intervals[0] == intervals[1]
    assert intervals[0] != intervals[2]
    assert intervals[3] == {}


def test_what_is_in_brackets_is_said_where_it_is(tmp_path, drawn):
    path = mine(tmp_path / "b.parquet")
    for protocol, samples, said in (("cai2018", 20, True), ("cai2018", 0, False), ("rodeo", 20, False)):
        result = score.run(Score((path,), drawn, protocol=protocol, samples=samples, controls=False))
        assert ("In brackets: 95 % interval by bootstrap over patients, 20 samples." in result.notes) == said
        assert any("\n[" in text for row in result.tables()["summary"].rows for text in row) == said


def test_sizes_are_thirds_of_the_truth(tmp_path):
    """Boxes of 1 to 6 squared; the two smallest and the two largest are found."""
    sides = range(1, 7)
    header = f"image_id,finding,{','.join(BOX)},image_width,image_height"
    truth = lines(tmp_path / "t.csv", header, *(f"{i},Mass,0,0,{i},{i},50,50" for i in sides))
    found = lines(tmp_path / "b.csv", SIZED, *(f"{i},Mass,0,0,{i},{i},1,50,50" for i in (1, 2, 5, 6)))
    result = light(found, truth=truth)
    table = result.tables()["sizes"]
    assert table.note.endswith("small up to 4 square pixels, middle up to 16.")
    assert table.header[:4] == ["", "small > 0.1", "middle > 0.1", "large > 0.1"]
    assert table.rows == [["b", *["1.000", "0.000", "1.000"] * 3]]
    assert result.document["size_thirds"]["up_to"] == {"small": 4, "middle": 16}


# --- protocols


@pytest.mark.parametrize(
    ("protocol", "cells"),
    [
        ("cai2018", "0.500 (0.25)|0.500 (0.25)|0.250 (0.50)|0.333"),
        ("wang2017", "0.500 (0.17)|0.500 (0.17)|0.250 (0.33)|0.500 (0.17)|0.500 (0.17)|0.250 (0.33)"),
        ("ham2021", "0.500|0.500|0.000|0.000|0.500|0.500|0.000"),
        ("ham2021-code", "0.500|0.500|0.250|0.000|0.500|0.500|0.500"),
        ("agcl2018", "3|2|0.667|0.667"),
        ("irnet2021", "0.333|0.250"),
        ("rsna", "0.083"),  # Mass: (1/2 + 0 + 0) / 3, and Nodule 0
        ("vinbig", "0.250|0.500"),
        ("coco", f"{51 / 202:.3f}|{51 / 202:.3f}|{51 / 202:.3f}|0.500"),  # a precision of 1 at 51 of 101 recalls
    ],
)
def test_each_protocol_of_a_case_by_hand(tmp_path, protocol, cells):
    boxes, truth = drawn_by_hand(tmp_path)
    table = light(boxes, truth=truth, protocol=protocol).tables()["summary"]
    assert "|".join(table.rows[0][1:]) == cells
    assert table.rows[0][0] == "ours"
    assert table.above.startswith(f"Protocol {protocol} ({PROTOCOLS[protocol].source}): ")
    assert (f" {PROTOCOLS[protocol].rule} " in table.above) == (protocol != "irnet2021"), "which has no threshold"
    pooled = protocol == "agcl2018"
    assert table.title == f"Boxes against truth, {'2 findings pooled' if pooled else 'mean over 2 findings'}"


def test_rodeo_is_one_where_every_box_is_right(tmp_path):
    _, truth = drawn_by_hand(tmp_path)
    every = ("a.png,Mass,0,0,10,10", "b.png,Mass,0,0,10,10", "a.png,Nodule,50,50,60,60")
    boxes = lines(tmp_path / "all.csv", SIZED, *(f"{row},1,100,100" for row in every))
    result = light(boxes, truth=truth, protocol="rodeo")
    table = result.tables()["summary"]
    assert table.rows == [["all", "1.000", "1.000", "1.000", "1.000"]]
    assert table.title == "Boxes against truth, 2 findings pooled"
    assert result.document["rodeo"]["pooled"]["total"] == pytest.approx(1, abs=1e-5)


def test_boxes_where_nothing_is_are_false_for_measures_of_all_images(tmp_path):
    boxes, truth = drawn_by_hand(tmp_path)
    result = light(boxes, truth=truth)
    counts = result.document["counts"]
    assert (counts["absent_pairs"], counts["normal_images"], counts["unjudged_on_absent_pairs"]) == (3, 1, 1)
    assert result.document["false_per_normal"]["Mass"] == {"boxes": 1, "normal_images": 1}
    assert result.document["mean"]["false_per_normal"] == {"boxes": 0.5}
    assert any("(1 false in measures of all images" in note for note in result.notes)
    least = lines(tmp_path / "sure.csv", SIZED, *Path(boxes).read_text().replace(",0.5,", ",1.0,").splitlines()[1:])
    sure = light(least, truth=truth).document
    assert result.document["ap"]["Mass"]["0.5"] == pytest.approx(51 / 101)
    assert sure["ap"]["Mass"]["0.5"] == pytest.approx(51 / 2 / 101), "the surest box is the false one"
    assert sure["acc_afp"] == result.document["acc_afp"], "which the papers' measures never see"


# --- where the list of boxes stops


def bounded(folder: Path) -> tuple[Path, Path]:
    """(boxes, truth): of three images the first has a false box, the others true ones; scores rise."""
    sized = f"image_id,finding,{','.join(BOX)},image_width,image_height"
    truth = lines(folder / "t.csv", sized, *(f"{i}.png,Mass,0,0,10,10,100,100" for i in "abc"))
    rows = ("a.png,Mass,50,50,60,60,0.1", "b.png,Mass,0,0,10,10,0.5", "c.png,Mass,0,0,10,10,0.9")
    return lines(folder / "b.csv", SIZED, *(f"{row},100,100" for row in rows)), truth


def test_boxes_are_taken_until_afp_reaches_its_bound_in_the_order_that_is_asked_for(tmp_path):
    """No false box is allowed: by image the first one ends the list, by score the two true ones come before it."""
    boxes, truth = bounded(tmp_path)
    none = lines(tmp_path / "none.csv", "finding,threshold,afp", "Mass,0.3,0")
    for order, hit in (("image", 0), ("score", 2), (None, 0)):
        result = light(boxes, truth=truth, bounds=str(none), order=order)
        at = result.document["acc_afp"]["Mass"]
        assert (at["0.3"]["hit"], at["0.3"]["taken"], at["0.3"]["false"]) == (hit, hit, 0)
        assert (at["0.5"]["hit"], at["0.5"]["taken"]) == (2, 3), "no bound there"
        by = "score" if order == "score" else "image_id"
        said = f"Boxes are taken by rank, then {by}, until AFP by IoU reaches the bound (none.csv)."
        assert said in result.tables()["summary"].above
        assert result.document["bounds"] == {"Mass": {"0.3": 0}}
    assert light(boxes, truth=truth).document["bounds"] is None


def test_the_bounds_of_a_published_table(tmp_path):
    """Wang's AFP of a Mass at 0.3 is 0.71: of three images two boxes may be false, and at 0.1 (0.67) two too."""
    boxes, truth = bounded(tmp_path)
    ours = lines(tmp_path / "four.csv", SIZED, *(f"{i}.png,Mass,50,50,60,60,1,100,100" for i in "abc"))
    for asked in ("wang2017", "cai2018:2:wang2017"):
        result = light(ours, truth=truth, bounds=asked)
        assert result.document["acc_afp"]["Mass"]["0.3"]["taken"] == 2
        assert f"({asked})" in result.tables()["summary"].above
    assert light(boxes, truth=truth, bounds="wang2017").document["acc_afp"]["Mass"]["0.3"]["taken"] == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("finding,threshold,afp\nMass,0.3,x\n", "is no table of bounds"),
        ("finding,threshold,afp\n", "is no table of bounds"),
        ("finding,afp\nMass,1\n", "is no table of bounds"),
        ("finding,threshold,afp\nMass,0.33,1\n", "a bound that says nothing"),
        ("finding,threshold,afp\nMass,0.3,-1\n", "a bound that says nothing"),
        ("finding,threshold,afp\nMass,0.3,nan\n", "a bound that says nothing"),
        ("finding,threshold,afp\nMass,0.3,1\nMass,0.30,2\n", "two bounds for Mass at 0.3"),
        ("finding,threshold,afp\nMas,0.3,1\n", "The bounds are of Mas, and the truth of Mass"),
        ("finding,threshold,afp\nHernia,0.3,1\n", "of none of the judged findings: Mass"),
    ],
)
def test_bounds_that_bound_nothing_are_refused(tmp_path, text, said):
    boxes, truth = bounded(tmp_path)
    (tmp_path / "bounds.csv").write_text(text)
    with pytest.raises(CxrError, match=said) as fault:
        light(boxes, truth=truth, bounds=str(tmp_path / "bounds.csv"))
    assert fault.value.cure


def test_a_finding_without_a_bound_is_named(tmp_path, drawn):
    limits = lines(tmp_path / "mass.csv", "finding,threshold,afp", "Mass,0.3,0")
    result = light(mine(tmp_path / "b.parquet"), truth=drawn, bounds=str(limits))
    assert "(mass.csv), of Nodule all." in result.tables()["summary"].above


def test_bounds_and_orders_that_are_not_known_are_refused(tmp_path):
    boxes, truth = bounded(tmp_path)
    for bounds, said in (
        ("wang", r"no bounds called 'wang'.*Did you mean wang2017\?"),
        ("cai2018:2:wang", "no AFP of wang"),
        ("cai2018:9:wang2017", "no table '9'"),
        ("cai2018:4:wang2017", "no AFP of wang2017"),
    ):
        with pytest.raises(UsageError, match=said):
            light(boxes, truth=truth, bounds=bounds)
    with pytest.raises(CxrError, match="no table of bounds at"):
        light(boxes, truth=truth, bounds=str(tmp_path / "none.csv"))
    with pytest.raises(CxrError, match="is no table of bounds"):
        light(boxes, truth=truth, bounds=str(tmp_path))
    with pytest.raises(UsageError, match="no order called"):
        light(boxes, truth=truth, order="scores", bounds="wang2017")
    with pytest.raises(UsageError, match="there is no bound"):
        light(boxes, truth=truth, order="score")


# --- published figures


def test_a_published_table_stands_beside_ours_and_says_how_it_differs(tmp_path, drawn):
    result = light(mine(tmp_path / "b.parquet"), truth=drawn, against=("cai2018:2", "cai2018:2"))
    table = result.tables()["summary"]
    published = ["wang2017, cai2018:2", "baseline, cai2018:2", "AM+KP, cai2018:2"]
    assert names(result) == ["cam", *published]
    assert cell(table, "AM+KP, cai2018:2", "Acc (AFP) > 0.1") == "0.510 (0.62)"  # Mass .56 (.65), Nodule .46 (.59)
    assert cell(table, "AM+KP, cai2018:2", "top-1 IoU") == "–"
    said = [note for note in result.notes if note.startswith(f"{'; '.join(published)}: ")]
    assert len(said) == 1, "once for the three of them"
    assert "boxes of the list B taken until Wang's AFP was reached" in said[0]
    assert said[0].endswith("; here the mean over the judged findings it has.")
    kept = result.document["against"]["AM+KP, cai2018:2"]
    assert kept["acc_afp"]["Mass"]["0.1"]["acc"] == 0.56
    assert "Atelectasis" not in kept["acc_afp"]
    assert kept["differs"] in said[0]
    assert "Boxes against truth, mean over 2 findings" in table.title


def eight(folder: Path) -> Path:
    """A box of each of NIH's eight findings."""
    path = files("cxrmine.scoring") / "published.csv"
    rows = csv.DictReader(path.read_text().splitlines())
    findings = sorted({row["finding"] for row in rows if row["paper"] == "agcl2018" and row["table"] == "2"} - {"All"})
    assert len(findings) == 8
    return lines(folder / "eight.csv", HEADER, *(f"a,{finding},0,0,9,9,1" for finding in findings))


def test_published_means_are_over_what_is_judged(tmp_path):
    """Of all eight findings the printed mean stands; of one finding its own figure; of none of them nothing."""
    truth = boxes = eight(tmp_path)
    for findings, shown in (((), "0.820"), (("Mass",), "0.760"), (("Mass", "Nodule"), "0.705")):
        result = light(boxes, truth=truth, findings=findings, protocol="ham2021", against=("ham2021:IV",))
        assert cell(result.tables()["summary"], "HAM, ham2021:IV", "IoU > 0.1") == shown
    other = lines(tmp_path / "o.csv", HEADER, "a,Hernia,0,0,9,9,1")
    with pytest.raises(CxrError, match="cai2018:2 has none of the findings that are judged: Hernia"):
        light(other, truth=other, against=("cai2018:2",))


def test_tables_of_ham_are_called_by_either_number(tmp_path, drawn):
    path = mine(tmp_path / "b.parquet")
    results = [light(path, truth=drawn, protocol="ham2021", against=(f"ham2021:{n}",)) for n in ("4", "IV")]
    assert names(results[0]) == names(results[1])
    assert "HAM, ham2021:IV" in names(results[0])


def test_tables_that_are_not_known_or_have_nothing_to_compare_are_refused(tmp_path, drawn):
    path = mine(tmp_path / "b.parquet")
    for against, said in (
        ("cai:2", "no paper called 'cai'"),
        ("cai2018", "cai2018 has no table ''"),
        ("cai2018:9", "cai2018 has no table '9'"),
        ("cai2018:4", "cai2018:4 prints none of the figures that protocol cai2018 shows"),
        ("ham2021:IV", "ham2021:IV prints none of the figures"),
    ):
        with pytest.raises(UsageError, match=said):
            light(path, truth=drawn, against=(against,))


def test_published_counts_are_pooled_as_ours_are(tmp_path):
    asked = {"truth": eight(tmp_path), "protocol": "agcl2018", "against": ("agcl2018:2",)}
    table = light(eight(tmp_path), **asked).tables()["summary"]
    assert table.rows[-1] == ["AGCL, agcl2018:2", "3,498", "1,518", "0.730", "0.440"]
    assert "truth, agcl2018:2" not in [row[0] for row in table.rows], "which has no figure of these columns"
    two = light(eight(tmp_path), **asked, findings=("Mass", "Nodule")).tables()["summary"]
    assert "Without a figure in this table: BSL, agcl2018:2" in two.note, "what is pooled over eight is not over two"


# --- for people and programs


def test_the_csv_is_read_again(tmp_path, drawn):
    result = score.run(Score((mine(tmp_path / "b.parquet"),), drawn, samples=20))
    (tmp_path / "s.csv").write_text(result.csv())
    with (tmp_path / "s.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = {"method": "cam", "measure": "acc_afp", "finding": "Mass", "threshold": "0.3", "figure": "acc"}
    assert [(row["value"], row["low"], row["high"]) for row in rows if wanted.items() <= row.items()] == [
        ("1.0", "1.0", "1.0")
    ]
    assert {row["finding"] for row in rows} == {"Mass", "Nodule", "mean", "pooled"}
    assert all(
        set(row) == {"method", "measure", "finding", "threshold", "figure", "value", "low", "high"} for row in rows
    )
    numbers = [float(text) for row in rows for text in (row["value"], row["low"], row["high"]) if text]
    assert all(number == number for number in numbers)
    assert {row["method"] for row in rows} == {*CONTROLS, "mean box (in-sample)", "cam"}


def test_tables_for_people(tmp_path, drawn):
    result = light(mine(tmp_path / "b.parquet"), truth=drawn)
    table = result.tables()["summary"]
    assert table.header == ["", "Acc (AFP) > 0.1", "Acc (AFP) > 0.3", "Acc (AFP) > 0.5", "top-1 IoU"]
    assert table.rows[-1] == ["cam", "0.500 (0.50)", "0.500 (0.50)", "0.500 (0.50)", "0.500"]
    assert table.above.startswith("Protocol cai2018 (")
    assert "Protocol" not in table.note
    assert table.title == "Boxes against truth, mean over 2 findings"
    table = result.tables()["findings:0"]
    assert table.title == "Acc (AFP) > 0.1, by finding"
    assert table.header == ["finding", "cam"]
    assert table.rows == [["Mass", "1.000 (1.00)"], ["Nodule", "0.000 (0.00)"], ["mean", "0.500 (0.50)"]]
    alone = light(mine(tmp_path / "c.parquet"), truth=drawn, findings=("Mass",))
    assert alone.tables()["summary"].title == "Boxes against truth, Mass"


def test_the_mean_is_over_the_findings_of_the_truth(tmp_path, drawn):
    values = light(mine(tmp_path / "b.parquet"), truth=drawn).rows[0].values
    assert values[Key("acc_afp", MEAN, "0.1", "acc")] == 0.5


def test_scoring_imports_neither_torch_nor_pandas(tmp_path, drawn):
    path = mine(tmp_path / "b.parquet")
    code = (
        "import sys; from pathlib import Path; from cxrmine.stages import score; "
        "score.run(score.Score((Path(sys.argv[1]),), Path(sys.argv[2]), samples=5)); "
        "sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, path, drawn], check=False).returncode == 0
