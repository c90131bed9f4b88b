"""`cxrmine score` with truth in every form it is known in, of one reader or several, and with maps."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cxrmine.boxes.table import truth_table, write_boxes
from cxrmine.errors import CxrError, UsageError
from cxrmine.stages import mine as mining
from cxrmine.stages import score
from tests.score_cases import SIZED, coco, command, lines

SIDE = 1024
HERE, THERE = (100, 100, 150, 150), (600, 600, 700, 700)  # of the first and the second film
NIH_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h]"
HAM = ("train/patient1/study1/view1_frontal.jpg", "valid/patient2/study1/view1_frontal.jpg")


def predicted(folder: Path, images: Sequence[str], finding: str, side: int = SIDE) -> Path:
    """The first film's box is right, the second's is not, and a third film has one where nothing is."""
    of = [(images[0], HERE), (images[1], HERE), *((name, HERE) for name in images[2:])]
    rows = [f"{name},{finding},{','.join(map(str, box))},0.5,{side},{side}" for name, box in of]
    return lines(folder / "ours.csv", SIZED, *rows)


def nih(path: Path) -> tuple[str, ...]:
    """As NIH ships it: the header is wider than its rows, and Infiltration has another name."""
    rows = ("00000001_000.png,Infiltrate,100.0,100.0,50.0,50.0", "00000002_000.png,Infiltrate,600.0,600.0,100.0,100.0")
    lines(path, f"{NIH_HEADER},,,", *rows)
    return ()


def nih_again(path: Path) -> tuple[str, ...]:
    """As others saved it: CRLF, and the name that it has elsewhere."""
    rows = ("00000001_000.png,Infiltration,100,100,50,50", "00000002_000.png,Infiltration,600,600,100,100")
    path.write_bytes("\r\n".join([NIH_HEADER, *rows, ""]).encode())
    return ()


def ham(path: Path) -> tuple[str, ...]:
    """With the spelling of 44 boxes, and one box without an area."""
    boxes = {HAM[0]: {"edema": [list(HERE)]}, HAM[1]: {"Edema": [list(THERE), [5, 5, 5, 9]]}}
    path.write_text(json.dumps(boxes))
    return "--name", "edema=Edema", "--skip-faulty"


def vindr(path: Path) -> tuple[str, ...]:
    rows = [
        f"a,ILD,4,R1,{','.join(map(str, HERE))}",
        f"b,ILD,4,R1,{','.join(map(str, THERE))}",
        "n,No finding,14,R1,,,,",
    ]
    lines(path, "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max", *rows)
    return ()


def rsna(path: Path) -> tuple[str, ...]:
    lines(path, "patientId,x,y,width,height,Target", "a,100,100,50,50,1", "b,600,600,100,100,1", "n,,,,,0")
    return ()


def as_coco(path: Path) -> tuple[str, ...]:
    coco(path, [("a", "Mass", *HERE), ("b", "Mass", *THERE)], ["a", "b", "n"], SIDE)
    return ()


def ours(path: Path) -> tuple[str, ...]:
    corners = dict(zip(("x_min", "y_min", "x_max", "y_max"), np.array([HERE, THERE]).T, strict=True))
    columns = {"image_id": ["a", "b"], "finding": ["Mass"] * 2, "patient_id": ["1", "2"], **corners}
    write_boxes(path, truth_table(columns | dict.fromkeys(("image_width", "image_height"), [SIDE] * 2)), {})
    return ()


def a_csv(path: Path) -> tuple[str, ...]:
    rows = (f"a,Mass,{','.join(map(str, HERE))}", f"b,Mass,{','.join(map(str, THERE))}")
    lines(path, "image_id,finding,x_min,y_min,x_max,y_max", *rows)
    return ()


def another_csv(path: Path) -> tuple[str, ...]:
    lines(path, "file,what,left,top,w,h,who", "a,Mass,100,100,50,50,x", "b,Mass,600,600,100,100,x")
    return "--columns", "image_id=file,finding=what,x_min=left,y_min=top,width=w,height=h"


FORMS: dict[str, tuple[Any, Sequence[str], str]] = {
    "nih.csv": (nih, ("00000001_000.png", "00000002_000.png"), "Infiltration"),
    "nih_again.csv": (nih_again, ("00000001_000.png", "00000002_000.png"), "Infiltration"),
    "ham.json": (ham, HAM, "Edema"),
    "vindr.csv": (vindr, "abn", "ILD"),
    "rsna.csv": (rsna, "abn", "Lung Opacity"),
    "coco.json": (as_coco, "abn", "Mass"),
    "ours.parquet": (ours, "ab", "Mass"),
    "ours.csv": (a_csv, "ab", "Mass"),
    "others.csv": (another_csv, "ab", "Mass"),
}
COMPLETE = {"vindr.csv", "rsna.csv", "coco.json"}  # which say what was searched


@pytest.mark.parametrize("name", FORMS)
def test_one_of_two_boxes_is_found_whatever_the_form_of_truth(tmp_path, name):
    write, images, finding = FORMS[name]
    (tmp_path / "truth").mkdir()
    truth = tmp_path / "truth" / name
    words = write(truth)
    boxes = predicted(tmp_path, images, finding)
    document = json.loads(command(boxes, "--truth", truth, *words, "--bootstrap", "0", "--json", "-", cwd=tmp_path))
    assert document["acc_afp"][finding]["0.5"] == {
        "acc": 0.5, "afp": 0.5, "truth": 2, "hit": 1, "taken": 2, "false": 1, "images": 2,
    }  # fmt: skip
    assert document["top1"][finding]["mean_iou"] == 0.5
    complete = name in COMPLETE
    assert document["counts"]["absent_pairs"] == complete
    assert document["counts"]["normal_images"] == complete
    assert document.get("false_per_normal", {}).get(finding) == ({"boxes": 1, "normal_images": 1} if complete else None)
    # The box on the normal film is as sure as the others: by name it is the last, so the precision at 1/2 stays 1.
    assert document["ap"][finding]["0.5"] == pytest.approx(51 / 101)
    # Three equally sure boxes come together, two of them false: on three films more than one in two, on two just that.
    assert document["froc"][finding]["iou"]["0.5"] == (0 if complete else 0.5)
    said = [note for note in document["notes"] if note.startswith("Truth: ")]
    assert len(said) == 1
    assert name in said[0]
    assert "2 boxes" in said[0]


def test_what_a_form_of_truth_needs_is_said(tmp_path):
    truth = tmp_path / "ham.json"
    words = ham(truth)
    boxes = predicted(tmp_path, HAM, "Edema")
    said = command(boxes, "--truth", truth, cwd=tmp_path, code=1)
    assert "2 faulty of 3 rows: 1 unknown finding 'edema' (did you mean 'Edema'?): row 1; 1 without area" in said
    assert "rename findings with --name, or leave them out with --skip-faulty" in said
    assert "1 without area" in command(boxes, "--truth", truth, *words[:2], cwd=tmp_path, code=1)
    left_out = command(boxes, "--truth", truth, "--skip-faulty", "--bootstrap", "0", cwd=tmp_path)
    assert "2 of 3 rows of truth left out: 1 unknown finding" in left_out


def test_mined_boxes_are_not_taken_for_truth_in_silence(tmp_path):
    boxes = predicted(tmp_path, "ab", "Mass")
    mined = lines(tmp_path / "t.csv", "image_id,finding,x_min,y_min,x_max,y_max,source", "a,Mass,1,1,9,9,cam")
    assert "CAREFUL: the boxes of this truth come from cam, not from people." in command(
        boxes, "--truth", mined, "--bootstrap", "0", cwd=tmp_path
    )
    ours(tmp_path / "truth.parquet")
    drawn = (tmp_path / "truth.parquet", "--truth", tmp_path / "truth.parquet")
    assert "CAREFUL: the boxes of truth are truth, drawn by people." in command(*drawn, cwd=tmp_path)


# --- several readers


def read_by_two(folder: Path) -> tuple[Path, Path]:
    """(boxes, truth): R1 and R2 agree on a's ILD but for 10 pixels, and on b's Edema only R1 drew."""
    header = "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"
    rows = [
        "a,ILD,4,R1,0,0,100,100",
        "a,ILD,4,R2,20,0,120,100",
        "b,ILD,4,R1,0,0,100,100",
        "b,ILD,4,R2,0,0,100,100",
    ]
    truth = lines(folder / "vindr.csv", header, *rows)
    boxes = lines(folder / "ours.csv", SIZED, "a,ILD,0,0,100,100,1,200,200", "b,ILD,0,0,100,100,1,200,200")
    return boxes, truth


def test_boxes_of_several_readers_become_one(tmp_path):
    """Fused, a's truth is 10..110: IoU 90/110; around both it is 0..120: IoU 100/120."""
    boxes, truth = read_by_two(tmp_path)
    for how, iou in ((("--readers", "fused"), 90 / 110), (("--readers", "union"), 100 / 120), ((), 90 / 110)):
        asked = (boxes, "--truth", truth, *how, "--bootstrap", "0", "--json", "-")
        document = json.loads(command(*asked, cwd=tmp_path))
        assert document["counts"]["truth_boxes"] == 2
        assert document["top1"]["ILD"]["mean_iou"] == pytest.approx((iou + 1) / 2)
        word = how[1] if how else "fused"
        assert f"4 boxes of several readers became 2 ({word})." in document["notes"]


def test_a_reader_against_the_others_is_a_control(tmp_path):
    """a: 0..100 against 20..120 is 80/120, whoever is judged; b: 1. Four pairs of a reader and an image."""
    boxes, truth = read_by_two(tmp_path)
    printed = command(boxes, "--truth", truth, "--protocol", "irnet2021", "--bootstrap", "0", cwd=tmp_path)
    assert f"reader against the others {(80 / 120 + 1) / 2:.3f} 1.000" in printed
    assert "each reader's boxes against those of the others, made one, in 4 pairs" in printed


def test_boxes_against_each_readers_own(tmp_path):
    boxes, truth = read_by_two(tmp_path)
    asked = (boxes, "--truth", truth, "--protocol", "irnet2021", "--by-reader", "--bootstrap", "0")
    printed = command(*asked, cwd=tmp_path)
    assert "Boxes against each reader's alone, ILD" in printed
    assert "ours against R1 1.000" in printed
    assert f"ours against R2 {(80 / 120 + 1) / 2:.3f}" in printed
    document = json.loads(command(*asked, "--json", "-", cwd=tmp_path))
    assert document["by_reader"]["R1"]["ours"]["top1"]["ILD"]["mean_iou"] == 1
    with truth.open("a") as file:
        file.write("b,Edema,3,R1,150,150,160,160\n")  # of which R2 has none
    assert "ours against R2" in command(*asked, cwd=tmp_path)
    alone = lines(tmp_path / "one.csv", "image_id,finding,x_min,y_min,x_max,y_max,reader", "a,ILD,0,0,9,9,R1")
    said = command(boxes, "--truth", alone, "--by-reader", cwd=tmp_path, code=1)
    assert "does not have boxes of several readers. Leave --by-reader out" in said


# --- maps


@pytest.fixture(scope="module")
def mapped(dataset, trained, tmp_path_factory):
    """(boxes, their maps)"""
    folder = tmp_path_factory.mktemp("mapped")
    boxes, maps = folder / "boxed.parquet", folder / "maps"
    mining.run(mining.Mine(trained, dataset, boxes, split="boxed", maps=maps, device="cpu", workers=1))
    return boxes, maps


def test_cuts_are_tuned_and_the_gap_is_printed(dataset, mapped, tmp_path):
    boxes, maps = mapped
    asked = ("--truth", dataset, "--finding", "Effusion", "--maps", maps, "--bootstrap", "0")
    gaps = []
    for choice, how in (
        ("held-out", "chosen on other patients"),
        ("oracle", "chosen on the scored patients themselves"),
    ):
        document = json.loads(command(boxes, *asked, "--tune", choice, "--json", "-", cwd=tmp_path))
        tuning = document["tuning"]
        assert tuning["choice"] == choice
        assert set(tuning) == {"choice", "held-out cuts", "oracle cuts", "cam, same half", "gap"}
        assert tuning["oracle cuts"]["scored_on"] == tuning["held-out cuts"]["scored_on"]
        best = [tuning[f"{of} cuts"]["top1"]["Effusion"]["mean_iou"] for of in ("oracle", "held-out")]
        assert best[0] >= best[1], "the oracle has picked on the pairs that it is scored on"
        assert tuning["gap"]["top1"]["mean_iou"] == pytest.approx(best[0] - best[1])
        printed = command(boxes, *asked, "--tune", choice, cwd=tmp_path)
        assert f"{choice} cuts, half of the patients " in printed
        assert "cam, same half " in printed
        assert f"{choice} cuts: {how} for the best mean IoU of the first box" in printed
        assert f"Oracle minus held-out: Acc {tuning['gap']['acc_afp']['0.1']['acc']:+.3f} at 0.1" in printed
        gaps.append(tuning["gap"])
    assert gaps[0] == gaps[1]
    every = command(boxes, "--truth", dataset, *asked[4:], "--tune", "held-out", cwd=tmp_path)
    assert "half of the patients" in every, "where a half lacks findings of the other too"
    alone = command(*asked, "--tune", "oracle", cwd=tmp_path)
    assert "oracle cuts, half of the patients" in alone
    assert "same half" not in alone


def test_maxboxacc2_with_and_without_boxes(dataset, mapped, tmp_path):
    boxes, maps = mapped
    asked = ("--truth", dataset, "--maps", maps, "--protocol", "maxboxacc2", "--bootstrap", "0")
    for words in ((boxes, *asked), asked):
        printed = command(*words, cwd=tmp_path)
        document = json.loads(command(*words, "--json", "-", cwd=tmp_path))
        best = document["mean"]["maxboxacc2"]
        assert f"maps, best of all cuts {best['mean']:.3f} {best['0.3']['acc']:.3f}" in printed
        assert "Thresholds: oracle (the cut is chosen on the scored pairs)" in printed
        assert document["maxboxacc2"]["pooled"]["pairs"] == document["maxboxacc2"]["pooled"]["missing"] + 20
        share = document["controls"]["typical box"]["mean"]["boxacc"]
        assert f"typical box {share['mean']:.3f} {share['0.3']['acc']:.3f}" in printed
    beside = command(boxes, "--truth", dataset, "--maps", maps, "--bootstrap", "0", cwd=tmp_path)
    assert f"MaxBoxAccV2 of the maps {best['mean']:.3f}: an upper bound" in beside


def test_maps_that_are_not_there_are_refused(dataset, mapped, tmp_path):
    boxes, maps = mapped
    asked = (boxes, "--truth", dataset)
    for words, said, code in (
        (("--tune", "held-out"), "--tune held-out needs the maps. Mine with --maps DIR", 2),
        (("--protocol", "maxboxacc2"), "Protocol maxboxacc2 needs the maps.", 2),
        (("--maps", maps, "--tune", "heldout"), "Did you mean 'held-out'?", 2),
        (("--maps", tmp_path, "--tune", "oracle"), "There are no maps in", 1),
        (("--maps", tmp_path / "none"), "There are no maps in", 1),
    ):
        assert said in command(*asked, *words, cwd=tmp_path, code=code)


VINDR = """image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max
a,Cardiomegaly,3,R1,10,10,60,60
a,Cardiomegaly,3,R2,10,10,60,60
a,Cardiomegaly,3,R3,200,200,260,260
b,No finding,14,R1,,,,
b,No finding,14,R2,,,,
b,No finding,14,R3,,,,
"""
BOXES = """image_id,finding,score,x_min,y_min,x_max,y_max,image_width,image_height
a,Cardiomegaly,0.5,10,10,60,60,300,300
b,Cardiomegaly,0.9,10,10,60,60,300,300
"""


def vindr(folder: Path, boxes: str = BOXES) -> tuple[Path, Path]:
    (folder / "truth.csv").write_text(VINDR)
    (folder / "boxes.csv").write_text(boxes)
    return folder / "boxes.csv", folder / "truth.csv"


def test_readers_are_measured_over_all_images_where_the_protocol_is(tmp_path):
    """Film b is normal and boxed with more confidence: precision 1/2 for R1 and R2; R3 drew elsewhere."""
    boxes, truth = vindr(tmp_path)
    result = score.run(score.Score((boxes,), truth, protocol="vinbig", samples=50, by_reader=True))
    ap = {reader: of["boxes"]["ap"]["Cardiomegaly"]["0.4"] for reader, of in result.document["by_reader"].items()}
    assert ap == {"R1": 0.5, "R2": 0.5, "R3": 0}
    readers = result.document["controls"]["reader against the others"]
    assert readers["counts"]["absent_pairs"] == 3  # film b, read by each of the three
    # R1 and R2 find one of the other two's boxes each; R3 does not find what these two became.
    assert readers["acc_afp"]["Cardiomegaly"]["0.3"]["hit"] == 2
    assert readers["acc_afp"]["Cardiomegaly"]["0.3"]["truth"] == 5


def test_a_readers_images_are_of_the_patients_that_they_were(tmp_path):
    """Films a and c of two patients, and on c all agree: with one patient's films alone, Acc is 2 of 5, or 3 of 3."""
    boxes, truth = vindr(tmp_path)
    truth.write_text(VINDR + "".join(f"c,Cardiomegaly,3,R{k},10,10,60,60\n" for k in (1, 2, 3)))
    readers = score.run(score.Score((boxes,), truth, samples=200)).document["controls"]["reader against the others"]
    assert readers["acc_afp"]["Cardiomegaly"]["0.3"]["acc"] == pytest.approx(5 / 8)
    low, high = readers["intervals"]["acc_afp"]["Cardiomegaly"]["0.3"]["acc"]
    assert (low, high) == (pytest.approx(2 / 5), pytest.approx(1))


def test_a_finding_of_truth_may_take_the_name_that_the_boxes_have(tmp_path):
    boxes, truth = vindr(tmp_path, BOXES.replace("Cardiomegaly", "Heart"))
    with pytest.raises(CxrError, match=r"boxes has no finding of .*: it knows Heart, and the truth has Cardiomegaly"):
        score.run(score.Score((boxes,), truth, samples=0))
    result = score.run(score.Score((boxes,), truth, samples=0, names={"Cardiomegaly": "Heart"}))
    assert result.document["acc_afp"]["Heart"]["0.7"]["acc"] == 0.5  # one of the two fused boxes
    with pytest.raises(UsageError, match="cannot become 'Hart'"):
        score.run(score.Score((boxes,), truth, samples=0, names={"Cardiomegaly": "Hart"}))


def test_measures_of_all_images_say_when_no_pair_is_absent(tmp_path):
    boxes, truth = vindr(tmp_path)
    said = "CAREFUL: of boxes no pair is known to be absent"
    plain = tmp_path / "plain.csv"
    plain.write_text("image_id,finding,x_min,y_min,x_max,y_max\na,Cardiomegaly,10,10,60,60\n")
    for drawn, protocol, wanted in ((plain, "coco", True), (plain, "cai2018", False), (truth, "coco", False)):
        notes = score.run(score.Score((boxes,), drawn, protocol=protocol, samples=0)).notes
        assert any(note.startswith(said) for note in notes) == wanted, (drawn, protocol)
