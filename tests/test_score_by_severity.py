"""`cxrmine score --by severity`: the figures of mild, moderate and severe findings, worked out by hand."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cxrmine.data.datasets import open_dataset
from cxrmine.data.severities import LEVELS, severities_of
from cxrmine.stages import predict, score
from tests.score_cases import IMAGES, SIZED, cell, coco, command, draw, lines, mine

FAST = ("--bootstrap", "0")
SPLIT = ("--by", "severity", "--severity", "severity.csv")
TOLD = "image_id,finding,severity"


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Three films. a: a mild Mass and a severe Nodule; b: a severe Mass; c: a mild Mass, a Nodule of unknown severity.

    Of a's Mass one box is exact and one far off, a's Nodule has none; b's box lies half beside its Mass (IoU 1/3), and
    b, which has no Nodule, has a box of one; both boxes of c are exact.
    """
    lines(
        tmp_path / "ours.csv",
        SIZED,
        "a.png,Mass,0,0,10,10,0.9,100,100",
        "a.png,Mass,80,80,90,90,0.3,100,100",
        "b.png,Mass,5,0,15,10,0.8,100,100",
        "b.png,Nodule,20,20,30,30,0.5,100,100",
        "c.png,Mass,50,50,60,60,0.7,100,100",
        "c.png,Nodule,0,0,10,10,0.6,100,100",
    )
    rows = [("a.png", "Mass", 0, 0, 10, 10), ("b.png", "Mass", 0, 0, 10, 10), ("c.png", "Mass", 50, 50, 60, 60)]
    rows += [("a.png", "Nodule", 50, 50, 60, 60), ("c.png", "Nodule", 0, 0, 10, 10)]
    coco(tmp_path / "truth.json", rows, ["a.png", "b.png", "c.png"])
    told = ("a.png,Mass,mild", "b.png,Mass,severe", "c,Mass,1", "a.png,Nodule,3", "c.png,Nodule,", "z.png,Mass,2")
    lines(tmp_path / "severity.csv", TOLD, *told)
    return tmp_path


def document(folder: Path, *words: object, boxes: object = "ours.csv", truth: object = "truth.json") -> dict:
    return json.loads(command(boxes, "--truth", truth, *words, "--json", "-", cwd=folder))


def test_every_severity_has_the_figures_of_its_own_pairs(films):
    told = document(films, *SPLIT, *FAST)
    by = told["by"]["severity"]
    assert list(by) == ["mild", "moderate", "severe", "unknown"]
    assert by["mild"]["acc_afp"].keys() == {"Mass"}, "no Nodule is mild: it has no figure, and not 0"
    expected = {"acc": 1, "afp": 0.5, "truth": 2, "hit": 2, "taken": 3, "false": 1, "images": 2}
    assert by["mild"]["acc_afp"]["Mass"]["0.3"] == expected, "a's box that is far off, of two films; nothing of b"
    assert by["mild"]["mean"]["acc_afp"]["0.3"] == {"acc": 1, "afp": 0.5}
    severe = by["severe"]
    assert severe["acc_afp"]["Mass"]["0.3"]["hit"] == 1
    assert severe["acc_afp"]["Mass"]["0.5"] == {
        "acc": 0, "afp": 1, "truth": 1, "hit": 0, "taken": 1, "false": 1, "images": 1,
    }  # fmt: skip
    assert severe["acc_afp"]["Nodule"]["0.3"] == {
        "acc": 0, "afp": 0, "truth": 1, "hit": 0, "taken": 0, "false": 0, "images": 1,
    }  # fmt: skip
    assert severe["mean"]["acc_afp"]["0.3"] == {"acc": 0.5, "afp": 0}
    assert severe["top1"]["Mass"]["mean_iou"] == pytest.approx(1 / 3)
    assert severe["mean"]["top1"]["mean_iou"] == pytest.approx(1 / 6), "over both findings, a's Nodule is missed"
    assert severe["iobb"]["pooled"] == {"recall": 0.5, "precision": 1, "detected": 1, "true": 1, "truth": 2, "hit": 1}
    assert by["unknown"]["mean"]["acc_afp"]["0.5"] == {"acc": 1, "afp": 0}
    assert by["moderate"]["mean"]["acc_afp"]["0.3"] == {"acc": None, "afp": None}
    assert by["moderate"]["counts"]["judged_pairs"] == 0
    assert severe["counts"] == {
        "findings": 2, "truth_boxes": 2, "judged_pairs": 2, "judged_images": 2, "judged_pairs_without_box": 1,
        "judged": 1,
    }  # fmt: skip
    assert {"ap", "froc", "rodeo", "rsna", "false_per_normal"}.isdisjoint(severe), "these need all images"
    named = {key: told["severity"][key] for key in ("file", "pairs", "rows_of_others")}
    counts = {"mild": 2, "moderate": 0, "severe": 2, "unknown": 1}
    assert named == {"file": "severity.csv", "pairs": counts, "rows_of_others": 1}


def test_the_figures_of_all_pairs_stay_as_they_are(films):
    told, plain = document(films, *SPLIT, *FAST), document(films, *FAST)
    assert {"by", "severity"} == told.keys() - plain.keys()
    assert all(told[key] == plain[key] for key in plain if key != "controls")
    assert {name: {k: v for k, v in of.items() if k != "by"} for name, of in told["controls"].items()} == plain[
        "controls"
    ]


@pytest.mark.parametrize("words", ["", "--bounds bounds.csv", "--protocol wang2017", "--afp-per all"])
def test_the_severities_add_up_to_the_whole(tmp_path, words):
    """Twenty Masses, each with a box of IoU 12/28 and one far off; the bound ends the list at six that are far off."""
    mine(tmp_path / "b.parquet", shift=8)
    draw(tmp_path / "truth.parquet")
    levels = ["mild", "moderate", "severe", ""]
    lines(tmp_path / "severity.csv", TOLD, *(f"{name},Mass,{levels[k % 4]}" for k, name in enumerate(IMAGES)))
    lines(tmp_path / "bounds.csv", "finding,threshold,afp", "Mass,0.3,0.3")
    told = document(tmp_path, *SPLIT, *FAST, *words.split(), boxes="b.parquet", truth="truth.parquet")
    by = told["by"]["severity"]
    assert [part["counts"]["judged_pairs"] for part in by.values()] == [5, 5, 5, 6], "the Nodule's is unknown too"
    for at in ("0.1", "0.3", "0.5"):
        whole = told["acc_afp"]["Mass"][at]
        for name in ("truth", "hit", "taken", "false"):
            assert sum(part["acc_afp"]["Mass"][at][name] for part in by.values()) == whole[name]
    false = 6 if "bounds" in words else 20
    assert [told["acc_afp"]["Mass"]["0.3"][name] for name in ("hit", "false")] == [20, false]
    images = [part["acc_afp"]["Mass"]["0.3"]["images"] for part in by.values()]
    per = {"--protocol wang2017": [5, 5, 5, 6], "--afp-per all": [20] * 4}  # truth boxes of all findings; all films
    assert images == per.get(words, [5, 5, 5, 5])
    for name in ("detected", "true", "truth", "hit"):
        assert sum(part["iobb"]["pooled"][name] for part in by.values()) == told["iobb"]["pooled"][name]


def test_a_severity_alone_scores_the_same(films):
    """Truth and boxes of the severe pairs in files of their own: the same figures, whatever the measure."""
    kept = (("a.png", "Nodule"), ("b.png", "Mass"))
    header, *rows = (films / "ours.csv").read_text().splitlines()
    lines(films / "severe.csv", header, *(row for row in rows if tuple(row.split(",")[:2]) in kept))
    drawn = [("b.png", "Mass", 0, 0, 10, 10), ("a.png", "Nodule", 50, 50, 60, 60)]
    coco(films / "severe.json", drawn, ["a.png", "b.png", "c.png"])
    alone = document(films, *FAST, boxes="severe.csv", truth="severe.json")
    severe = document(films, *SPLIT, *FAST)["by"]["severity"]["severe"]
    measures = set(severe) - {"counts", "mean", "size_thirds", "intervals", "by_size"}  # thirds are those of the whole
    assert {"acc_afp", "acc_afp_iobb", "iou", "ior", "iobb", "top1", "truth_iou", "centre", "boxacc"} == measures
    for measure in measures:
        assert severe[measure] == alone[measure]
        assert severe["mean"][measure] == alone["mean"][measure]


def test_intervals_are_drawn_by_patient_as_those_of_the_whole(films):
    told = document(films, *SPLIT, "--bootstrap", "60")
    low, high = told["by"]["severity"]["severe"]["intervals"]["mean"]["acc_afp"]["0.3"]["acc"]
    assert (low, high) == (0, 1), "b alone is drawn, or a alone; with both of them the mean is 1/2"
    assert told["by"]["severity"]["moderate"]["intervals"]["mean"]["acc_afp"]["0.3"]["acc"] is None


def test_the_table_has_a_row_a_severity(films):
    result = score.run(
        score.Score(
            (films / "ours.csv",), films / "truth.json", samples=0, by="severity", severity=films / "severity.csv"
        )
    )
    table = result.tables()["severity"]
    assert table.header[:4] == ["", "findings", "pairs", "truth boxes"]
    assert [cell(table, "ours, severe", column) for column in table.header[1:5]] == ["2", "2", "2", "0.500 (0.00)"]
    assert cell(table, "ours, mild", "Acc (AFP) > 0.5") == "1.000 (0.50)"
    assert cell(table, "ours, moderate", "Acc (AFP) > 0.5") == cell(table, "ours, moderate", "top-1 IoU") == "–"
    text = command("ours.csv", "--truth", "truth.json", *SPLIT, *FAST, cwd=films)
    assert "By severity, mean over findings findings pairs truth boxes" in text
    assert "severity.csv: of 5 judged pairs 2 mild, 0 moderate, 2 severe; of 1 nobody says how severe." in text
    assert "A mean is over the findings with pairs of that severity." in text
    assert "by finding and severity" not in text
    more = command("ours.csv", "--truth", "truth.json", *SPLIT, *FAST, "--findings", cwd=films)
    assert "Acc (AFP) > 0.1, by finding and severity" in more
    nodule = next(t for t in result.tables().values() if t.title == "Acc (AFP) > 0.1, by finding and severity")
    assert [cell(nodule, "Nodule", f"ours, {word}") for word in ("mild", "severe", "unknown")] == [
        "–", "0.000 (0.00)", "1.000 (0.00)",
    ]  # fmt: skip


def test_the_file_may_lie_beside_the_truth(films):
    assert document(films, "--by", "severity", *FAST) == document(films, *SPLIT, *FAST)


def test_pooled_figures_stand_beside_the_means(films):
    """agcl2018 pools: of three mild boxes two are true. irnet2021 has means, and all truth boxes together beside."""
    for name, columns in (
        ("agcl2018", {"detected": "3", "recall": "1.000", "precision": "0.667", "precision, mean": "0.667"}),
        ("irnet2021", {"mean IoU": "1.000", "mean IoU, pooled": "1.000"}),
    ):
        asked = score.Score((films / "ours.csv",), films / "truth.json", name, samples=0, by="severity")
        table = score.run(replace(asked, severity=films / "severity.csv")).tables()["severity"]
        assert {column: cell(table, "ours, mild", column) for column in columns} == columns


def test_the_csv_says_the_severity_in_a_last_column(films):
    asked = ("ours.csv", "--truth", "truth.json", *FAST, "--csv", "out.csv")
    command(*asked, cwd=films)
    plain = (films / "out.csv").read_text().splitlines()
    command(*asked, *SPLIT, cwd=films)
    split = (films / "out.csv").read_text().splitlines()
    assert split[0] == f"{plain[0]},severity"
    assert split[1 : len(plain)] == [f"{line}," for line in plain[1:]]
    rows = list(csv.DictReader(io.StringIO("\n".join(split))))
    of = {(r["method"], r["measure"], r["finding"], r["threshold"], r["figure"], r["severity"]): r for r in rows}
    assert len(of) == len(rows)
    assert of["ours", "acc_afp", "mean", "0.3", "acc", "severe"]["value"] == "0.5"
    assert of["ours", "acc_afp", "mean", "0.3", "acc", "moderate"]["value"] == ""
    assert of["ours", "acc_afp", "Mass", "0.3", "hit", ""]["value"] == "3"


def test_findings_that_truth_calls_otherwise_are_the_same_in_the_file(films):
    text = (films / "truth.json").read_text()
    (films / "truth.json").write_text(text.replace('"Mass"', '"Lump"'))
    lines(films / "severity.csv", TOLD, "a.png,Lump,1", "b.png,Mass,3", "c.png,Mass,1", "c.png,Lump,2")
    told = document(films, *SPLIT, *FAST, "--name", "Lump=Mass")
    counts = {"mild": 1, "moderate": 1, "severe": 1, "unknown": 2}
    assert told["severity"]["pairs"] == counts, "of c's two severities the higher"


def test_boxes_of_several_readers(films):
    """The row of readers against each other has films of its own, and is not split; every other is."""
    header = "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"
    rows = [f"{name},Nodule/Mass,8,{reader},0,0,10,10" for name in "ab" for reader in ("R1", "R2")]
    lines(films / "readers.csv", header, *rows)
    lines(films / "own.csv", SIZED, "a,Mass,0,0,10,10,0.9,100,100", "b,Mass,5,0,15,10,0.8,100,100")
    named = (*SPLIT, *FAST, "--name", "Nodule/Mass=Mass")
    told = document(films, *named, "--by-reader", boxes="own.csv", truth="readers.csv")
    assert told["by"]["severity"]["mild"]["counts"]["truth_boxes"] == 1
    assert "by" not in told["controls"]["reader against the others"]
    assert told["by_reader"]["R1"]["own"]["by"]["severity"]["severe"]["top1"]["Mass"]["mean_iou"] == pytest.approx(
        1 / 3
    )
    said = command("own.csv", "--truth", "readers.csv", *named, cwd=films)
    assert "Not split: reader against the others." in said


# --- a dataset that says how severe its findings are


@pytest.fixture(scope="module")
def probable(dataset, trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("predicted") / "ours.parquet"
    predict.run(predict.Predict(trained, dataset, out, device="cpu", workers=1))
    return out


def in_file(dataset: Path) -> dict[tuple[str, str], int]:
    with (dataset / "severity.csv").open(newline="") as file:
        return {(r["image_id"], r["finding"]): int(r["severity"]) for r in csv.DictReader(file)}


def test_severities_of_a_dataset_are_those_of_its_file(dataset):
    index = open_dataset(dataset)
    found, told = severities_of(index), in_file(dataset)
    for row, name in enumerate(index.table["image_id"].to_pylist()):
        for column, finding in enumerate(index.findings):
            assert found.values[row, column] == told.get((name, finding), 0)
    assert found.notes[0].endswith(f"of {len(told)} findings that are present")


def test_boxes_against_a_dataset_need_no_file(dataset, trained, tmp_path):
    index, told = open_dataset(dataset), in_file(dataset)
    drawn = {(r["image_id"], r["finding"]) for r in index.boxes.to_pylist()}
    rows = [f"{name},{finding},0,0,20,20,0.5,96,96" for name, finding in sorted(drawn)]
    lines(tmp_path / "own.csv", SIZED, *rows)
    found = document(tmp_path, "--by", "severity", *FAST, boxes="own.csv", truth=dataset)
    by = found["by"]["severity"]
    for word, level in LEVELS.items():
        assert by[word]["counts"]["judged_pairs"] == sum(told[pair] == level for pair in drawn) > 0
    assert "unknown" not in by
    assert sum(part["counts"]["truth_boxes"] for part in by.values()) == found["counts"]["truth_boxes"]


def test_areas_are_of_films_of_a_severity_against_all_without_the_finding(dataset, probable, tmp_path):
    index, told = open_dataset(dataset).select("test"), in_file(dataset)
    names = index.table["image_id"].to_pylist()
    table = pq.ParquetFile(probable).read()
    given = dict(zip(table["image_id"].to_pylist(), table["Mass"].to_pylist(), strict=True))
    without = [given[name] for name in names if (name, "Mass") not in told]
    found = document(tmp_path, "--by", "severity", boxes=probable, truth=dataset)
    by = found["by"]["severity"]
    for word, level in LEVELS.items():
        having = [given[name] for name in names if told.get((name, "Mass")) == level]
        area = by[word]["auc"]["Mass"]
        assert (area["positives"], area["negatives"]) == (len(having), len(without))
        if having:
            over = [(p > n) + (p == n) / 2 for p in having for n in without]
            assert area["auc"] == pytest.approx(sum(over) / len(over))
        else:
            assert area["auc"] is None
        known = [at["auc"] for at in by[word]["auc"].values() if at["auc"] is not None]
        assert by[word]["mean"] == {"auc": pytest.approx(sum(known) / len(known)), "findings": len(known)}
    assert sum(by[word]["auc"]["Mass"]["positives"] for word in LEVELS) == found["auc"]["Mass"]["positives"]
    text = command(probable, "--truth", dataset, "--by", "severity", cwd=tmp_path)
    assert f"ours, mild {by['mild']['counts']['findings']} {by['mild']['counts']['positives']} " in text
    assert "AUC, by finding and severity" in text
    assert "Films of that severity against all without the finding" in text
    rows = command(probable, "--truth", dataset, "--by", "severity", "--csv", "-", cwd=tmp_path)
    assert f"ours,auc,mean,,auc,{by['severe']['mean']['auc']},,,severe" in rows


def test_films_of_which_nobody_says_how_severe_are_counted(dataset, probable, tmp_path):
    there = open_dataset(dataset).select("test").table["image_id"].to_pylist()
    name, finding = next(pair for pair in in_file(dataset) if pair[0] in there)
    lines(tmp_path / "severity.csv", TOLD, f"{name},{finding},2")
    found = document(tmp_path, *SPLIT, boxes=probable, truth=dataset)
    present = sum(at["positives"] for at in found["auc"].values())
    counts = {word: part["counts"]["positives"] for word, part in found["by"]["severity"].items()}
    assert counts == {"mild": 0, "moderate": 1, "severe": 0, "unknown": present - 1} == found["severity"]["films"]


# --- mistakes

MISTAKES = [
    (
        "--by severty --severity severity.csv",
        2,
        "no way of splitting figures called 'severty'. Did you mean 'severity'?",
    ),
    ("--severity severity.csv", 2, "--severity says what --by severity splits by. Add --by severity, or leave it out."),
    (
        "--by severity --truth alone/t.json",
        1,
        "alone/t.json does not say how severe a finding is: there is no severity",
    ),
    ("--by severity --severity none.csv", 1, "no file none.csv of severities. Make one: cxrmine severity REPORTS"),
    ("--by severity --severity ours.csv", 1, "ours.csv has no column severity."),
    ("--by severity --severity words.csv", 1, "words.csv: severity is 'big' in row"),
    ("--by severity --severity others.csv", 1, "others.csv does not say of any of the judged pairs how severe it is."),
    (f"{' '.join(SPLIT)} --protocol coco", 2, "Protocol coco shows measures of all images, and --by splits those of"),
    (f"{' '.join(SPLIT)} --csv severity.csv", 2, "--csv severity.csv cannot be written"),
]


@pytest.mark.parametrize(("words", "code", "said"), MISTAKES, ids=[words for words, _, _ in MISTAKES])
def test_a_mistake_is_told_with_its_cure(films, words, code, said):
    lines(films / "words.csv", TOLD, "a.png,Mass,big")
    lines(films / "others.csv", TOLD, "z.png,Mass,1", "a.png,Hernia,1")
    (films / "alone").mkdir()
    (films / "alone" / "t.json").write_bytes((films / "truth.json").read_bytes())
    assert said in command("ours.csv", "--truth", "truth.json", *words.split(), cwd=films, code=code)


def test_a_dataset_without_severities_is_told_what_to_make(dataset, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in dataset.iterdir():
        if path.name != "severity.csv":
            (bare / path.name).symlink_to(path)
    name = open_dataset(bare).boxes["image_id"][0].as_py()
    lines(tmp_path / "own.csv", SIZED, f"{name},Mass,0,0,9,9,1,96,96")
    said = command("own.csv", "--truth", bare, "--by", "severity", cwd=tmp_path, code=1)
    assert "does not say how severe a finding is: there is no severity.parquet or severity.csv in" in said
    assert "cxrmine severity REPORTS --out FILE" in said
