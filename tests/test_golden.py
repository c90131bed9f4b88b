"""Scores that must come out as they are known to: through the command, on made tables and on the real ones."""

import csv
import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cxrmine.boxes.table import truth_table, write_boxes
from cxrmine.cli import app
from cxrmine.data.drawn.read import read_drawn
from cxrmine.scoring.controls import IN_SAMPLE
from cxrmine.scoring.protocols import PROTOCOLS
from cxrmine.tables import COORDINATES
from tests.by_hand import score

DATA = Path(__file__).parents[2] / "shared" / "data"
WANG = {
    "Atelectasis": 180, "Cardiomegaly": 146, "Effusion": 153, "Infiltration": 123, "Mass": 85, "Nodule": 79,
    "Pneumonia": 120, "Pneumothorax": 98,
}  # fmt: skip
EVERYWHERE = (
    "acc_afp", "acc_afp_iobb", "iou", "ior", "iobb", "top1", "truth_iou", "centre", "ap", "froc", "rsna", "by_size",
)  # fmt: skip

TRUTH = (100, 100, 110, 110)
HIT = (108, 100, 118, 110)  # IoU 20 of 180, IoBB 20 of 100
AT_IT = (100, 100, 200, 110)  # IoU and IoBB are 100 of 1000, exactly 0.1: with 1 on each side, 121 of 1111
FAR = (500, 500, 510, 510)


def real(name: str) -> Path:
    if not (DATA / name).exists():
        pytest.skip(f"{name} is not beside this checkout")
    return DATA / name


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def command(*words: object, code: int = 0) -> str:
    """What `cxrmine score` prints; of an error, what it says."""
    settings = dict.fromkeys(name for name in os.environ if name.startswith("CXRMINE_"))
    done = CliRunner().invoke(app, ["score", *map(str, words)], env=settings)
    assert done.exit_code == code, done.output
    return done.stdout if code == 0 else " ".join(done.stderr.split())


def lines_of(text: str, title: str, row: str) -> list[str]:
    """The printed lines from a row on, of the table whose title begins so."""
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith(title))
    return lines[next(i for i, line in enumerate(lines) if i > first and line.startswith(f" {row} ")) :]


def cells(text: str, title: str, row: str) -> list[str]:
    """The cells of a row, without its name."""
    return re.split(r"\s{2,}", lines_of(text, title, row)[0].strip())[1:]


def written(path: Path, rows: Sequence[tuple]) -> Path:
    """Rows of (image, finding, box, and more columns)."""
    more = ("rank", "score") if len(rows[0]) > 4 else ("patient_id",) if len(rows[0]) > 3 else ()
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["image_id", "finding", *COORDINATES, "image_width", "image_height", *more])
        out.writerows([image, finding, *box, 1024, 1024, *rest] for image, finding, box, *rest in rows)
    return path


def as_boxes(source: Path, out: Path, names: dict[str, str] | None = None) -> Path:
    """A file of truth as a table of predictions."""
    drawn = read_drawn(source, None).table
    finding = [(names or {}).get(word, word) for word in drawn["finding"].to_pylist()]
    kept = ("image_id", "split", "patient_id", *COORDINATES, "image_width", "image_height")
    write_boxes(out, truth_table({name: drawn[name] for name in kept} | {"finding": finding}), {})
    return out


# --- 984 rows


@pytest.fixture(scope="module")
def rows_984(tmp_path_factory) -> tuple[Path, Path]:
    """984 truth rows on 180 images, and for Atelectasis 131 hits and 819 false boxes, 409 of these at IoU 0.1.

    Rank 1 is false on the first 50 images, which are hit at rank 2; it is a hit on the next 81, and all is false on
    the last 49. Every heart is found, and nothing else.
    """
    folder = tmp_path_factory.mktemp("wang")
    drawn = [(f"{i:03}.png", finding, TRUTH) for finding, n in WANG.items() for i in range(n)]
    boxes = [row for row in drawn if row[1] == "Cardiomegaly"]
    boxes = [(*row, 1, 0.5) for row in boxes]
    for i in range(180):
        false = [(AT_IT if (i + k) % 2 else FAR, 0.9) for k in range(4 + (i < 99))]
        hits = [(HIT, 0.1)] if i < 131 else []
        listed = [*false[:1], *hits, *false[1:]] if i < 50 else hits + false
        boxes += [(f"{i:03}.png", "Atelectasis", box, rank, sure) for rank, (box, sure) in enumerate(listed, start=1)]
    return written(folder / "truth.csv", drawn), written(folder / "boxes.csv", boxes)


def atelectasis(truth: Path, boxes: Path, *words: str) -> dict[str, Any]:
    document = json.loads(command(boxes, "--truth", truth, "--bootstrap", 0, "--json", "-", *words))
    return document["acc_afp"]["Atelectasis"]["0.1"]


def test_wang2017_of_984_rows(rows_984, tmp_path):
    """As in a shell: 131 of 180, and 819 false boxes over 984 rows, by IoU and by IoBB, in the JSON and in print."""
    truth, boxes = rows_984
    words = ("score", boxes, "--truth", truth, "--protocol", "wang2017", "--findings", "--json", tmp_path / "s.json")
    done = subprocess.run(
        [sys.executable, "-m", "cxrmine", *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "s.json").read_text())
    expected = {
        "acc": 131 / 180, "afp": 819 / 984, "truth": 180, "hit": 131, "taken": 950, "false": 819, "images": 984,
    }  # fmt: skip
    for measure in ("acc_afp", "acc_afp_iobb"):
        assert document[measure]["Atelectasis"]["0.1"] == expected
        hearts = document[measure]["Cardiomegaly"]["0.1"]
        assert (hearts["acc"], hearts["afp"], hearts["images"]) == (1, 0, 984)
    assert (round(expected["acc"], 4), round(expected["afp"], 4)) == (0.7278, 0.8323)
    assert document["protocol"]["afp_images"] == "truth boxes of all findings"
    for title in ("Acc (AFP) IoU > 0.1", "Acc (AFP) IoBB > 0.1"):
        assert cells(done.stdout, title, "Atelectasis")[-1] == "0.728 (0.83)"
        assert cells(done.stdout, title, "Cardiomegaly")[-1] == "1.000 (0.00)"
        assert cells(done.stdout, title, "Nodule")[-1] == "0.000 (0.00)"
        assert cells(done.stdout, title, "mean")[-1] == "0.216 (0.10)"  # (131/180 + 1) / 8, and (819/984) / 8
    summary = cells(done.stdout, "Boxes against truth", "boxes")
    assert (summary[0], summary[3]) == ("0.216 (0.10)", "0.216 (0.10)")


def test_the_same_boxes_by_the_rules_of_others(rows_984):
    found = atelectasis(*rows_984)
    assert (found["acc"], found["afp"], found["images"]) == (131 / 180, 819 / 180, 180)
    at_it = atelectasis(*rows_984, "--protocol", "ham2021-code")  # at 0.1 is enough: every image has such a box
    assert (at_it["hit"], at_it["false"]) == (180, 410)


def test_the_list_b_stops_at_a_bound(rows_984, tmp_path):
    """99 of the first boxes are false. Rank 2 then begins with 50 hits, before the box that would be the hundredth.

    By score, rank 2 begins with false boxes: nothing of it is taken.
    """
    (tmp_path / "bounds.csv").write_text(f"finding,threshold,afp\nAtelectasis,0.1,{99 / 984}\n")
    words = ("--protocol", "wang2017", "--bounds", "bounds.csv")
    found = atelectasis(*rows_984, *words)
    assert (found["taken"], found["hit"], found["false"], found["afp"]) == (230, 131, 99, 99 / 984)
    found = atelectasis(*rows_984, *words, "--order", "score")
    assert (found["taken"], found["hit"], found["false"]) == (180, 81, 99)


def test_an_interval_is_over_patients(tmp_path):
    """A hit and a miss. Of one patient: they come together, and Acc is 1/2 in every sample. Of two: 0 to 1."""
    boxes = written(tmp_path / "boxes.csv", [("a.png", "Mass", TRUTH, 1, 0.5), ("b.png", "Mass", FAR, 1, 0.5)])
    title = "Boxes against truth"
    for people, interval in ((("p", "p"), "[0.500, 0.500]"), (("p", "q"), "[0.000, 1.000]")):
        drawn = [(f"{image}.png", "Mass", TRUTH, who) for image, who in zip("ab", people, strict=True)]
        text = command(boxes, "--truth", written(tmp_path / "truth.csv", drawn), "--bootstrap", 200)
        assert cells(text, title, "boxes") == ["0.500 (0.50)"] * 3 + ["0.500"]
        assert re.split(r"\s{2,}", lines_of(text, title, "boxes")[1].strip()) == [interval] * 4


# --- NIH


@pytest.fixture(scope="module")
def nih_alone(tmp_path_factory) -> tuple[dict[str, Any], str]:
    """NIH's boxes against themselves, as `--json` and as printed, with Markdown."""
    folder = tmp_path_factory.mktemp("nih")
    source = real("nih/BBox_List_2017.csv")
    boxes = as_boxes(source, folder / "boxes.parquet")
    words = ("--bootstrap", 20, "--findings", "--json", folder / "s.json", "--markdown", folder / "s.md")
    text = command(boxes, "--truth", source, *words)
    return json.loads((folder / "s.json").read_text()), text + (folder / "s.md").read_text()


def leaves(node: Any, name: str = "") -> list[tuple[str, Any]]:
    """Every figure with its name, counts left out."""
    if isinstance(node, dict):
        return [leaf for key, value in node.items() for leaf in leaves(value, key)]
    return [] if isinstance(node, int) else [(name, node)]


def perfect(document: dict[str, Any]) -> None:
    counts = document["counts"]
    assert (counts["judged_pairs"], counts["judged"], counts["judged_images"], counts["boxes"]) == (984, 984, 880, 984)
    for measure in EVERYWHERE:
        figures = leaves(document[measure]) + leaves(document["mean"][measure])
        assert len(figures) >= 9
        for name, value in figures:
            nothing = measure == "by_size" and value is None  # no heart is small
            assert nothing or value == (0 if name == "afp" else 1), (measure, name, value)
    rodeo = document["rodeo"]
    assert (rodeo["pooled"]["matched"], rodeo["pooled"]["over"], rodeo["pooled"]["missed"]) == (984, 0, 0)
    assert min(of["total"] for of in rodeo.values()) == pytest.approx(1, abs=1e-5)


def test_nih_truth_against_itself(nih_alone):
    document, text = nih_alone
    perfect(document)
    assert {finding: of["0.1"]["truth"] for finding, of in document["acc_afp"].items()} == WANG
    for measure, of in document["intervals"].items():
        for name, ends in leaves(of) if measure in EVERYWHERE else ():
            assert ends in (None, [0, 0] if name == "afp" else [1, 1]), (measure, name)
    for t in ("0.1", "0.3", "0.5"):
        assert cells(text, f"Acc (AFP) > {t}", "mean")[-1] == "1.000 (0.00)"


def test_the_other_spelling_of_nihs_list_against_itself(tmp_path):
    source = real("nih/BBox_List_2017.variant.csv")
    boxes = as_boxes(source, tmp_path / "boxes.parquet")
    perfect(json.loads(command(boxes, "--truth", source, "--bootstrap", 0, "--json", "-")))


def test_one_spelling_of_nihs_list_against_the_other(tmp_path):
    """Cut to ten digits: no box moves by more than a millionth."""
    boxes = as_boxes(real("nih/BBox_List_2017.csv"), tmp_path / "boxes.parquet")
    document = json.loads(command(boxes, "--truth", real("nih/BBox_List_2017.variant.csv"), "--json", "-"))
    assert document["mean"]["acc_afp"]["0.7"] == {"acc": 1, "afp": 0}
    assert document["mean"]["ap"]["0.95"] == 1
    assert document["mean"]["top1"]["mean_iou"] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_nih_truth_is_perfect_by_any_rules(name):
    drawn = read_drawn(real("nih/BBox_List_2017.csv"), None).table
    columns = ("image_id", "finding", "patient_id", *COORDINATES, "image_width", "image_height")
    table = truth_table({column: drawn[column] for column in columns})
    perfect(score(table, table, name))


def test_a_mean_box_finds_hearts_and_nothing_else(nih_alone):
    """Of all 984 boxes; those of other patients alone are what is shown."""
    document, text = nih_alone
    acc = document["controls"][IN_SAMPLE]["acc_afp"]
    assert [round(acc["Cardiomegaly"][t]["acc"], 3) for t in ("0.1", "0.3", "0.5")] == [1.000, 0.993, 0.856]
    assert max(round(acc[name]["0.5"]["acc"], 3) for name in acc if name != "Cardiomegaly") == 0.008
    shown = document["controls"]["mean box"]["acc_afp"]
    assert cells(text, "Acc (AFP) > 0.5", "Cardiomegaly")[0] == "0.836 (0.16)"
    assert round(shown["Cardiomegaly"]["0.5"]["acc"], 3) == 0.836
    assert max(shown[name]["0.5"]["acc"] for name in shown if name != "Cardiomegaly") < 0.01
    assert "in-sample" not in text
    assert text.count("mean box") > 4
    assert document["references"]["Mass"] == "scored patients, 5 folds by patient"
    assert document["controls"][IN_SAMPLE]["intervals"] == {}


# --- CheXpert

RENAMED = {"edema": "Edema", "Enlarg_Cardiomediastinum": "Enlarged_Cardiomediastinum"}


@pytest.fixture(scope="module")
def chexpert(tmp_path_factory) -> tuple[Path, Path]:
    """HAM's file, and its boxes with the words put right."""
    source = real("chexpert/BBoxes.json.gz")
    return source, as_boxes(source, tmp_path_factory.mktemp("chexpert") / "boxes.parquet", RENAMED)


def test_words_that_chexpert_does_not_have_stop_the_score(chexpert):
    source, boxes = chexpert
    said = command(boxes, "--truth", source, code=1)
    assert "has 69 faulty of 6,101 rows: 44 unknown finding 'edema' (did you mean 'Edema'?)" in said
    assert "25 unknown finding 'Enlarg_Cardiomediastinum' (did you mean 'Enlarged_Cardiomediastinum'?)" in said
    assert "1 image without a box: train/patient01086/study3/view1_frontal.jpg" in said
    assert "leave them out with --skip-faulty" in said


def test_faulty_rows_of_chexpert_may_be_left_out(chexpert):
    source, boxes = chexpert
    words = ("--bootstrap", 0, "--skip-faulty", "--json", "s.json")
    text = command(boxes, "--truth", source, *words)
    counts = json.loads(Path("s.json").read_text())["counts"]
    assert (counts["boxes"], counts["truth_boxes"], counts["judged"]) == (6101, 6101 - 69, 6101 - 69)
    assert counts["unjudged"] == 69
    assert "69 of 6,101 rows of truth left out: 44 unknown finding 'edema'" in text


def test_chexpert_is_clean_once_the_words_are_put_right(chexpert):
    source, boxes = chexpert
    names = [word for old, new in RENAMED.items() for word in ("--name", f"{old}={new}")]
    text = command(boxes, "--truth", source, "--bootstrap", 0, *names, "--json", "s.json")
    document = json.loads(Path("s.json").read_text())
    counts = document["counts"]
    assert (counts["truth_boxes"], counts["judged"], counts["unjudged"]) == (6101, 6101, 0)
    assert counts["judged_images"] == 2348 - 1
    assert set(document["acc_afp"]) == {
        "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged_Cardiomediastinum", "Fracture",
        "Pleural_Effusion", "Pneumonia", "Pneumothorax",
    }  # fmt: skip
    truths = {finding: of["0.1"]["truth"] for finding, of in document["acc_afp"].items()}
    assert (truths["Edema"], truths["Enlarged_Cardiomediastinum"]) == (1054 + 44, 361 + 25)
    assert document["mean"]["acc_afp"]["0.7"] == {"acc": 1, "afp": 0}
    assert "unknown finding" not in text
    assert "1 image without a box: train/patient01086/study3/view1_frontal.jpg" in text


# --- a leak


@pytest.fixture(scope="module")
def all_but_the_880(tmp_path_factory) -> Path:
    """A run that was trained on every patient of the 111,240 other images."""
    boxed = set(read_drawn(real("nih/BBox_List_2017.csv"), None).table["image_id"].to_pylist())
    with gzip.open(real("nih/Data_Entry_2017_v2020.csv.gz"), "rt") as file:
        rows = [row for row in csv.reader(file) if row[0] not in boxed][1:]
    assert len(rows) == 111_240
    patients = sorted({row[3] for row in rows})
    run = tmp_path_factory.mktemp("runs") / "all"
    run.mkdir()
    pq.write_table(pa.table({"patient_id": patients, "split": ["train"] * len(patients)}), run / "patients.parquet")
    return run


def test_training_on_all_but_the_880_images_leaks(all_but_the_880, tmp_path):
    source = real("nih/BBox_List_2017.csv")
    boxes = as_boxes(source, tmp_path / "boxes.parquet")
    words = (boxes, "--truth", source, "--run", all_but_the_880, "--bootstrap", 0)
    text = command(*words, "--json", "s.json")
    assert "LEAKS: The run was trained on 668 of the 726 judged patients." in text
    leak = {"patients": 668, "trained": 668, "of": 726, "images_without_patient": 0}
    assert json.loads(Path("s.json").read_text())["leakage"] == leak
    said = command(*words, "--strict", code=1)
    assert "The run has seen 668 of the 726 judged patients." in said
