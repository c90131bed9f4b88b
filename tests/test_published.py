"""The papers' figures as the package has them, and the bounds of the list B that come from them or from a file."""

import csv
import json
from importlib.resources import files
from pathlib import Path

import pytest

from cxrmine.errors import CxrError, UsageError
from cxrmine.scoring.bounds import read_bounds, unbounded
from cxrmine.scoring.figures import MEAN, POOLED, Key
from cxrmine.scoring.published import METRICS, Reference, against, bounds
from tests.by_hand import MISS, TRUTH, score, table, truth
from tests.score_cases import SIZED, command, lines

SHARED = Path(__file__).parents[2] / "shared" / "published" / "published.csv"
OWN = files("cxrmine.scoring") / "published.csv"


def values(table: str, method: str) -> dict[Key, float]:
    found = [one for one in against(table) if one.name.startswith(f"{method}, ")]
    assert len(found) == 1
    return found[0].values


def test_the_packages_copy_is_the_one_that_was_given():
    if not SHARED.exists():
        pytest.skip("the papers' figures are not beside this checkout")
    assert OWN.read_bytes() == SHARED.read_bytes()


@pytest.mark.parametrize(
    ("table", "method", "key", "value"),
    [
        ("cai2018:2", "wang2017", Key("acc_afp", "Atelectasis", "0.1", "acc"), 0.69),
        ("cai2018:2", "wang2017", Key("acc_afp", "Atelectasis", "0.1", "afp"), 0.89),
        ("cai2018:2", "AM+KP", Key("acc_afp", "Cardiomegaly", "0.1", "acc"), 0.97),
        ("ham2021:IV", "HAM", Key("iou", "Cardiomegaly", "0.1", "share"), 1.00),
        ("ham2021:IV", "HAM", Key("iou", MEAN, "0.1", "share"), 0.82),
        ("agcl2018:2", "truth", Key("iobb", "Atelectasis", "", "truth"), 180),
        ("agcl2018:2", "BSL", Key("iobb", "Atelectasis", "", "detected"), 734),
        ("agcl2018:2", "BSL", Key("iobb", "Atelectasis", "", "true"), 138),
        ("agcl2018:2", "AGCL", Key("iobb", "Atelectasis", "", "recall"), 0.66),
        ("agcl2018:2", "AGCL", Key("iobb", "Atelectasis", "", "precision"), 0.31),
        ("irnet2021:2", "IRNet", Key("auc", "Mass", "", "auc"), 0.8131),
        ("irnet2021:2", "IRNet", Key("auc", MEAN, "", "auc"), 0.8335),
        ("irnet2021:3", "feature extractor", Key("truth_iou", "Mass", "", "mean_iou"), 0.1768),
        ("irnet2021:3", "feature extractor", Key("top1", "Mass", "", "mean_iou"), 0.1768),
    ],
)
def test_cells_of_the_papers(table, method, key, value):
    assert values(table, method)[key] == value


def test_every_row_is_a_figure_of_its_table():
    """Whatever the paper, table, method, finding and threshold: the value is there, under a key of ours."""
    with OWN.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1744
    tables = {f"{row['paper']}:{row['table']}" for row in rows}
    found = {(of, one.name): set(one.values.values()) for of in tables for one in against(of)}
    for row in rows:
        of = f"{row['paper']}:{row['table']}"
        assert float(row["value"]) in found[of, f"{row['method']}, {of}"], row
        assert row["metric"] in METRICS


def test_a_table_may_be_called_by_its_number():
    assert against("ham2021:4") == against("ham2021:IV")
    assert against("ham2021:4")[0].name.endswith(", ham2021:IV")
    assert against("ham2021:3") != against("ham2021:4")


def test_a_mean_is_made_where_the_paper_prints_none():
    """Wang's Acc at 0.1 over eight findings; agcl2018's counts have no mean, but a row of all."""
    found = values("cai2018:2", "wang2017")
    accs = [value for key, value in found.items() if (key.at, key.name) == ("0.1", "acc") and key.finding != MEAN]
    assert len(accs) == 8
    assert found[Key("acc_afp", MEAN, "0.1", "acc")] == pytest.approx(sum(accs) / 8)
    found = values("agcl2018:2", "AGCL")
    assert {key.finding for key in found if key.name == "detected"} - {MEAN} >= {"Atelectasis", POOLED}
    assert Key("iobb", MEAN, "", "detected") not in found


def test_what_differs_is_said():
    def differs(table: str) -> set[str]:
        return {one.differs for one in against(table)}

    assert all("Wang's AFP is per 984 rows" in text for text in differs("cai2018:2"))
    assert all("668 of the 726 box patients" in text for text in differs("ham2021:III"))
    assert not any("668 of the 726" in text for text in differs("ham2021:IV"))
    assert all("has the truth's size" in text for text in differs("irnet2021:3"))
    assert not any("has the truth's size" in text for text in differs("irnet2021:2"))
    assert isinstance(against("cai2018:1")[0], Reference)


@pytest.mark.parametrize("wrong", ["cai", "cai2018", "cai2018:9", "ham2021:XI", ""])
def test_a_table_that_is_not_there(wrong):
    with pytest.raises(UsageError):
        against(wrong)


def test_irnets_boxes_beside_ours(tmp_path):
    """a: IoU 1 and 0 with its two truth boxes; b: 0.2. Two patients: samples of one alone are 0.5 and 0.2."""
    name = "image_id,finding,patient_id,x_min,y_min,x_max,y_max,image_width,image_height"
    drawn = ("a,Mass,p,0,0,5,10,99,99", "a,Mass,p,5,0,10,10,99,99", "b,Mass,q,0,0,10,10,99,99")
    lines(tmp_path / "truth.csv", name, *drawn)
    lines(tmp_path / "ours.csv", SIZED, "a,Mass,0,0,5,10,1,99,99", "b,Mass,0,0,2,10,1,99,99")
    words = ("ours.csv", "--truth", "truth.csv", "--protocol", "irnet2021", "--against", "irnet2021:3")
    printed = command(*words, "--json", "s.json", "--csv", "s.csv", cwd=tmp_path)
    assert "ours 0.400 1.000 [0.200, 0.500]" in printed
    assert "feature extractor, irnet2021:3 0.177 –" in printed
    assert "irnet2021:3: CAM box against 984 NIH boxes; the predicted box has the truth's size" in printed
    document = json.loads((tmp_path / "s.json").read_text())
    assert document["truth_iou"]["Mass"] == {"mean_iou": pytest.approx(0.4), "truth": 3, "missing": 0}
    assert document["intervals"]["truth_iou"]["Mass"]["mean_iou"] == pytest.approx([0.2, 0.5])
    assert document["against"]["feature extractor, irnet2021:3"]["truth_iou"]["Mass"]["mean_iou"] == 0.1768
    rows = list(csv.DictReader((tmp_path / "s.csv").open()))
    low = {(row["method"], row["measure"], row["finding"], row["figure"]): row["low"] for row in rows}
    assert float(low["ours", "truth_iou", "Mass", "mean_iou"]) == pytest.approx(0.2)


# --- bounds


def test_wangs_bounds_are_all_his_afps():
    limits = read_bounds("wang2017")
    assert limits == read_bounds("cai2018:2:wang2017") == bounds("cai2018:2", "wang2017")
    assert limits is not None
    assert limits["Atelectasis"]["0.1"] == 0.89
    assert limits["Pneumonia"]["0.1"] == 1.02
    assert len(limits) == 8
    assert {t for of in limits.values() for t in of} == {f"0.{n}" for n in range(1, 8)}
    assert MEAN not in limits
    assert read_bounds("") is None


def test_bounds_of_a_file(tmp_path):
    path = tmp_path / "bounds.csv"
    path.write_text("finding,threshold,afp\nMass,0.10,0\nMass,0.3,1.5\nNodule,.5,2\n")
    limits = read_bounds(str(path))
    assert limits == {"Mass": {"0.1": 0, "0.3": 1.5}, "Nodule": {"0.5": 2}}
    taken = score(table([("a", "Mass", MISS)]), truth([("a", "Mass", TRUTH)]), bounds=limits)["acc_afp"]["Mass"]
    assert [taken[t]["taken"] for t in ("0.1", "0.2", "0.3")] == [0, 1, 1]


@pytest.mark.parametrize(
    "text",
    ["", "finding,threshold\nMass,0.1\n", "finding,threshold,afp\nMass,low,1\n", "finding,threshold,afp\nMass,0.1\n"],
)
def test_a_file_that_has_no_bounds(tmp_path, text):
    path = tmp_path / "bounds.csv"
    path.write_text(text)
    with pytest.raises(CxrError, match="no table of bounds"):
        read_bounds(str(path))


def test_bounds_that_are_not_there(tmp_path):
    with pytest.raises(CxrError, match="no table of bounds at"):
        read_bounds(str(tmp_path / "none.csv"))
    with pytest.raises(UsageError, match="has no AFP of nobody"):
        read_bounds("cai2018:2:nobody")
    with pytest.raises(UsageError, match="has no AFP of HAM"):
        read_bounds("ham2021:IV:HAM")  # shares of pairs: no AFP
    with pytest.raises(UsageError, match="Did you mean wang2017"):
        read_bounds("wang")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("Mass,0.15,1", "threshold 0.15"),
        ("Mass,0.1,nan", "afp nan"),
        ("Mass,0.1,-1", "afp -1"),
        (",0.1,1", "finding ''"),
        ("Mass,0.20,2", "two bounds for Mass at 0.2"),
    ],
)
def test_bounds_that_would_be_passed_over(tmp_path, row, said):
    path = tmp_path / "bounds.csv"
    path.write_text(f"finding,threshold,afp\nMass,0.2,1\n{row}\n")
    with pytest.raises(CxrError, match=said):
        read_bounds(str(path))


def test_a_finding_without_a_bound_is_named():
    """Hernia has none; Infiltrate seems to be Infiltration, and the bounds of that would be passed over."""
    limits = {"Mass": {"0.1": 1.0}, "Infiltration": {"0.1": 1.0}}
    assert unbounded(limits, ["Infiltration", "Mass"]) == []
    assert unbounded(limits, ["Hernia", "Mass"]) == ["Hernia"]
    with pytest.raises(CxrError, match="of Infiltration, and the truth of Infiltrate"):
        unbounded(limits, ["Infiltrate", "Mass"])
    with pytest.raises(CxrError, match="none of the judged findings: Hernia"):
        unbounded(limits, ["Hernia"])


def test_a_mean_that_the_paper_does_not_print_is_said_to_be_ours():
    assert {r.own_mean for table in ("cai2018:2", "irnet2021:3") for r in against(table)} == {True}
    assert {r.own_mean for table in ("ham2021:III", "ham2021:IV") for r in against(table)} == {False}
