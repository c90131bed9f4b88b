"""Tables of probabilities: what comes in by the door, what does not, and what they score, worked out by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxrmine.boxes.shards import shard_path
from cxrmine.boxes.table import BoxWriter
from cxrmine.data.index import BOX_SCHEMA, UNMENTIONED, Index
from cxrmine.errors import CxrError, UsageError
from cxrmine.scoring.areas import compare, document, judged_images, score_probabilities
from cxrmine.scoring.classification import auc_interval, delong_test
from cxrmine.scoring.probabilities import (
    NAMES,
    Probabilities,
    aligned,
    build_probabilities,
    is_probabilities,
    read_probabilities,
    write_probabilities,
)
from cxrmine.scoring.statistics import holm

FINDINGS = ("Mass", "Nodule")


def dataset(*rows: tuple[str, str, int | None, int | None], root: Path = Path("d")) -> Index:
    """Rows of (image, split, Mass, Nodule); two images a patient."""
    columns = list(zip(*rows, strict=True))
    labels = [pa.array(column, pa.int8()) for column in columns[2:]]
    table = pa.table(
        {
            "image_id": pa.array(columns[0]),
            "path": pa.nulls(len(rows), pa.string()),
            "split": pa.array(columns[1]),
            "patient_id": pa.array([f"p{i // 2}" for i in range(len(rows))]),
            "view": pa.nulls(len(rows), pa.string()),
            "labels": pa.StructArray.from_arrays(labels, names=list(FINDINGS)),
            "boxed": pa.array([False] * len(rows)),
        }
    )
    return Index(root, "made up", FINDINGS, table, BOX_SCHEMA.empty_table())


DATA = dataset(
    ("a", "test", 1, 0),
    ("b", "test", 1, -1),
    ("c", "test", 0, 1),
    ("d", "test", 0, None),
    ("e", "test", 0, 1),
    ("f", "train", 1, 0),
    ("g", "val", 0, 0),
)
TEST = DATA.select("test")


def given(text: str, folder: Path, name: str = "p.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def predicted(mass: list[float | None], images: str = "abcde", **more: object) -> Probabilities:
    """A probability of Mass for each image, and the same of Nodule."""
    columns = {"image_id": list(images), "Mass": pa.array(mass, pa.float64()), "Nodule": pa.array(mass, pa.float64())}
    table = pa.table({**columns, **dict.fromkeys(NAMES[1:], pa.nulls(len(mass), pa.string()))})
    return Probabilities(table, dict(more), FINDINGS)


def written(folder: Path, rows: slice, shard: tuple[int, int], **more: object) -> Path:
    """A part of the dataset, with probabilities .0, .1, .2 …; the second image could not be read."""
    keep = np.zeros(len(DATA), bool)
    keep[rows] = True
    values = np.stack([np.arange(7) / 10, np.arange(7) / 20], axis=1).astype(np.float32)
    values[1] = np.nan
    status = np.array(["ok", "unreadable: cut off", *["ok"] * 5])
    path = shard_path(folder / "p.parquet", *shard) if shard[1] > 1 else folder / "p.parquet"
    table = build_probabilities(DATA.filter(keep), FINDINGS, values[keep], status[keep].tolist())
    write_probabilities(path, table, {"split": "all", "shard": list(shard), **more})
    return path


# --- the table


def test_an_image_without_probabilities_keeps_its_row(tmp_path: Path) -> None:
    path = written(tmp_path, slice(None), (1, 1))
    raw = pq.ParquetFile(path).read()
    assert raw.column_names == [*NAMES, *FINDINGS]
    assert raw["Mass"].type == pa.float32()
    assert raw["status"].to_pylist() == ["ok", "unreadable: cut off", *["ok"] * 5]
    read = read_probabilities(path)
    assert read.findings == FINDINGS
    assert read.meta == {"schema": 1, "split": "all"}
    assert read.table["image_id"].to_pylist() == list("abcdefg")
    assert read.table["Mass"].to_pylist() == [float(np.float32(i / 10)) if i != 1 else None for i in range(7)]
    assert read.table["patient_id"].to_pylist() == DATA.table["patient_id"].to_pylist()


def test_the_order_of_the_images_and_time_leave_no_trace_in_the_bytes(tmp_path: Path) -> None:
    values, status = np.random.default_rng(0).random((7, 2)).astype(np.float32), ["ok"] * 7
    order = np.array([3, 1, 0, 6, 5, 2, 4])
    shuffled = Index(DATA.root, DATA.layout, FINDINGS, DATA.table.take(order), DATA.boxes)
    write_probabilities(tmp_path / "a.parquet", build_probabilities(DATA, FINDINGS, values, status), {})
    other = build_probabilities(shuffled, FINDINGS, values[order], status)
    write_probabilities(tmp_path / "b.parquet", other, {})
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_shards_are_read_as_one_however_they_are_named(tmp_path: Path) -> None:
    whole = read_probabilities(written(tmp_path, slice(None), (1, 1)))
    parts = tmp_path / "parts"
    paths = [written(parts, rows, (i, 2)) for i, rows in ((2, slice(4, 7)), (1, slice(0, 4)))]
    for source in (parts, parts / "p-*.parquet", paths):
        read = read_probabilities(source)
        assert read.table.equals(whole.table)
        assert (read.meta, read.findings) == (whole.meta, FINDINGS)


def test_shards_that_are_not_of_one_are_refused(tmp_path: Path) -> None:
    paths = [written(tmp_path, rows, (i, 2)) for i, rows in ((1, slice(0, 4)), (2, slice(4, 7)))]
    with pytest.raises(CxrError, match=r"1 of 2 shards are missing: .*p-00002-of-00002\.parquet"):
        read_probabilities(paths[0])
    with pytest.raises(CxrError, match="differ in weights_sha256"):
        read_probabilities([paths[0], written(tmp_path, slice(4, 7), (2, 2), weights_sha256="other")])
    written(tmp_path, slice(3, 7), (2, 2))
    with pytest.raises(CxrError, match=r"p-00001-of-00002\.parquet and 1 more give d twice"):
        read_probabilities(paths)
    written(tmp_path, slice(0, 3), (1, 1))
    with pytest.raises(CxrError, match="and 2 more give d twice"):
        read_probabilities(tmp_path)
    (tmp_path / "p.parquet").rename(tmp_path / "q.parquet")
    with pytest.raises(CxrError, match=r"several tables of probabilities: p-00001-of-00002\.parquet, q\.parquet"):
        read_probabilities(tmp_path)


def test_a_csv_of_any_classifier(tmp_path: Path) -> None:
    text = "image_id,Nodule,patient_id,Mass\n00002,0.5,7,1\n00001,,007,0\na b.png,1e-3,,0.25\n"
    read = read_probabilities(given("\ufeff" + text, tmp_path))  # as Excel writes it
    assert read.findings == ("Nodule", "Mass")
    assert read.meta == {}
    assert read.table["image_id"].to_pylist() == ["00001", "00002", "a b.png"]  # a name, not a number
    assert read.table["patient_id"].to_pylist() == ["007", "7", None]
    assert read.table["split"].null_count == 3
    assert read.table["Nodule"].to_pylist() == [None, 0.5, 0.001]
    assert read.table["Mass"].to_pylist() == [0, 1, 0.25]


def test_close_probabilities_of_a_csv_stay_apart(tmp_path: Path) -> None:
    """float32 would make them equal, and the area another."""
    read = read_probabilities(given("image_id,Mass\na,0.999999990\nb,0.999999991\n", tmp_path))
    low, high = read.table["Mass"].to_pylist()
    assert low < high


def test_columns_that_are_not_asked_for_are_named(tmp_path: Path) -> None:
    path = given("image_id,Mass,age,view\na,0.5,58,PA\nb,0.1,61,AP\n", tmp_path)
    read = read_probabilities(path, FINDINGS)
    assert (read.findings, read.others) == (("Mass",), ("age", "view"))
    assert read.table.column_names == [*NAMES, "Mass"]
    with pytest.raises(CxrError, match=r"age is not from 0 to 1: rows 1, 2; view is not a finite number \(take out"):
        read_probabilities(path)


def test_every_fault_is_told_at_once_with_its_rows(tmp_path: Path) -> None:
    rows = ["a,0.5,0.5", "a,1.5,0.5", ",-0.1,0.5", "b,x,0.5", "c,nan,0.5", "d,inf,0.5", "b,0.5,0.5", "e,,"]
    rows += [f"f{i},2,1" for i in range(6)]
    path = given("image_id,Mass,Nodule\n" + "\n".join(rows) + "\n", tmp_path)
    with pytest.raises(CxrError) as fault:
        read_probabilities(path)
    assert str(fault.value) == (
        f"{path} has 12 faulty of 14 rows: image_id is empty: row 3; image_id was given before: rows 2, 7; "
        "Mass is not a finite number: rows 4, 5, 6; Mass is not from 0 to 1: rows 2, 3, 9, 10, 11 and 3 more. "
        "Correct or remove these rows."
    )


def test_what_is_no_table_of_probabilities_is_refused(tmp_path: Path) -> None:
    for text in ("", "image_id\na\n", "image,Mass\na,0.5\n", "image_id,split,status\na,test,ok\n"):
        with pytest.raises(CxrError, match=r"p\.csv is no table of probabilities.*image_id and a column a finding"):
            read_probabilities(given(text, tmp_path))
    with pytest.raises(CxrError, match="has the column 'Mass' twice"):
        read_probabilities(given("image_id,Mass,Mass\na,0.5,0.5\n", tmp_path))
    with pytest.raises(CxrError, match=r"no table of probabilities at .*none\.parquet.*cxrmine predict"):
        read_probabilities(tmp_path / "none.parquet")
    with pytest.raises(CxrError, match="No table of probabilities was named"):
        read_probabilities([])
    two = [given("image_id,Mass\na,0.5\n", tmp_path, "1.csv"), given("image_id,Nodule\nb,0.5\n", tmp_path, "2.csv")]
    with pytest.raises(CxrError, match="differ in the columns Mass, Nodule"):
        read_probabilities(two)
    pq.write_table(pa.table({"image_id": ["a"], "Mass": [[0.5]]}), tmp_path / "list.parquet")
    with pytest.raises(CxrError, match="Mass cannot be read from list"):
        read_probabilities(tmp_path / "list.parquet")
    day = given("image_id,Mass\na,2020-01-01\n", tmp_path)
    with pytest.raises(CxrError, match="Mass cannot be read from date32"):
        read_probabilities(day)


def test_a_finding_that_is_spelled_otherwise_is_not_passed_over(tmp_path: Path) -> None:
    path = given("image_id,mass,Nodule\na,0.5,0.5\n", tmp_path)
    with pytest.raises(CxrError, match=r"a column 'mass', which the dataset does not know.*Call it Mass"):
        read_probabilities(path, FINDINGS)
    with pytest.raises(CxrError, match=r"a column 'mass'.*Call it Mass"):
        document([("m", read_probabilities(path))], DATA)
    with pytest.raises(CxrError, match=r"a column for none of the dataset's findings.*Mass, Nodule"):
        read_probabilities(given("image_id,Fracture\na,0.5\n", tmp_path), FINDINGS)


def test_probabilities_and_boxes_are_told_apart_by_their_columns(tmp_path: Path) -> None:
    ours = written(tmp_path, slice(None), (1, 1))
    with BoxWriter(tmp_path / "boxes" / "b.parquet", {}) as writer:
        writer.write([], [{"image_id": "a"}])
    pq.write_table(pa.table({"patient_id": ["p"], "split": ["train"]}), tmp_path / "patients.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    assert is_probabilities(ours)
    assert is_probabilities(given("image_id,Mass\n", tmp_path))
    assert is_probabilities(tmp_path / "p*.parquet")
    assert is_probabilities(tmp_path)
    for other in (
        tmp_path / "boxes" / "b.parquet",
        tmp_path / "boxes" / "b.images.parquet",
        tmp_path / "boxes",
        tmp_path / "patients.parquet",
        tmp_path / "broken.parquet",
        tmp_path / "none.parquet",
        given("image_id,finding,x_min,y_min,x_max,y_max\n", tmp_path, "boxes.csv"),
        given("", tmp_path, "empty.csv"),
    ):
        assert not is_probabilities(other), other
    (tmp_path / "boxes" / "b.parquet").rename(tmp_path / "b.parquet")
    assert not is_probabilities(tmp_path), "a folder with boxes is one of boxes"
    assert read_probabilities(tmp_path).findings == FINDINGS


# --- scores


def scored(mass: list[float | None], images: str = "abcde") -> dict:
    table = aligned(predicted(mass, images).table, TEST.table["image_id"])
    return score_probabilities(table, TEST.labels(), FINDINGS, TEST.table["patient_id"].to_pylist())


def test_areas_by_hand() -> None:
    """Mass: a and b against c, d, e, as in test_classification. Nodule: c and e against a; b and d say nothing."""
    scores = scored([0.9, 0.4, 0.1, 0.4, 0.5])
    half = 1.959964 * math.sqrt(1 / 12)
    assert scores["auc"]["Mass"] == {
        **{"auc": 0.75, "low": pytest.approx(0.75 - half), "high": 1, "positives": 2, "negatives": 3},
        **{"uncertain": 0, "unmentioned": 0, "missing": 0},
    }
    assert scores["auc"]["Nodule"] == {
        **{"auc": 0, "low": None, "high": None, "positives": 2, "negatives": 1},
        **{"uncertain": 1, "unmentioned": 1, "missing": 0},
    }
    assert scores["mean"] == {"auc": 0.375, "findings": 2}
    assert scores["counts"]["images"] == 5
    assert scores["counts"]["patients"] == 3


def test_an_image_without_a_row_and_one_without_a_probability_are_counted() -> None:
    scores = scored([0.9, None, 0.1, 0.4], "abcd")
    assert scores["counts"]["images_without_row"] == 1
    assert scores["counts"]["images_without_probability"] == 1
    mass = scores["auc"]["Mass"]
    assert (mass["auc"], mass["positives"], mass["negatives"], mass["missing"]) == (1, 1, 2, 2)
    nodule = scores["auc"]["Nodule"]
    kinds = ("positives", "negatives", "uncertain", "unmentioned", "missing")
    assert [nodule[kind] for kind in kinds] == [1, 1, 0, 1, 2]
    nothing = scored([], "")
    assert nothing["mean"] == {"auc": None, "findings": 0}
    assert nothing["counts"]["images_without_row"] == nothing["auc"]["Mass"]["missing"] == 5


def test_findings_that_only_one_side_knows_are_listed() -> None:
    table = predicted([0.5] * 5).table.drop_columns("Nodule")
    table = table.append_column("Fracture", pa.array([0.5] * 5))
    scores = score_probabilities(table, TEST.labels(), FINDINGS, ["p"] * 5)
    assert scores["counts"]["findings_without_labels"] == ["Fracture"]
    assert scores["counts"]["findings_without_probabilities"] == ["Nodule"]
    assert list(scores["auc"]) == ["Mass"]


def test_two_tables_are_compared_on_the_images_of_both() -> None:
    """As in test_classification, with an image more on either side that the other has not."""
    labels = np.array([[1], [1], [0], [0], [0], [0], [1]], np.int8)
    a = predicted([0.9, 0.4, 0.1, 0.4, 0.5, 0.99, None], "abcdefg").table
    b = predicted([0.9, 0.8, 0.1, 0.85, 0.2, None, 0.01], "abcdefg").table
    found = compare(a, b, labels, ("Mass",))["Mass"]
    assert found["difference"] == pytest.approx(1 / 12)  # the second is the better one
    assert found["p"] == found["p_holm"] == pytest.approx(math.erfc(0.25))
    assert (found["positives"], found["negatives"]) == (2, 3)
    same = compare(a, a, labels, ("Mass",))["Mass"]
    assert (same["difference"], same["low"], same["high"], same["p"]) == (0, 0, 0, 1)


def test_p_is_corrected_over_the_findings() -> None:
    rng = np.random.default_rng(0)
    findings = tuple(f"f{c}" for c in range(6))
    labels = (rng.random((80, 6)) < 0.4).astype(np.int8)
    labels[:, 5] = UNMENTIONED
    values = [np.clip(rng.random((80, 6)) * 0.6 + strength * labels, 0, 1) for strength in (0.4, 0.2)]
    a, b = (pa.table({f: v[:, c] for c, f in enumerate(findings)}) for v in values)
    found = compare(a, b, labels, findings)
    p = [delong_test(labels[:, c], values[0][:, c], values[1][:, c]).p for c in range(6)]
    assert [at["p"] for at in found.values()] == [*p[:5], None]
    assert [at["p_holm"] for at in found.values()] == [*holm(p)[:5].tolist(), None]
    assert min(p[:5]) * 5 == pytest.approx(min(at["p_holm"] for at in list(found.values())[:5]))


def test_the_images_that_are_judged() -> None:
    def images(*methods: Probabilities, splits: str | None = None) -> str:
        named = [(f"m{i}", p) for i, p in enumerate(methods)]
        return "".join(judged_images(named, DATA, splits).table["image_id"].to_pylist())

    two = predicted([0.5, 0.5], "ab")
    assert images(two) == "abcde"  # all of test: what a table lacks is missing, not passed over
    assert images(two, predicted([0.5], "f")) == "abcdef"
    assert images(predicted([0.5, 0.5], "ab", split="all")) == "abcdefg"
    assert images(predicted([0.5, 0.5], "ab", split="all"), two) == "abcde"
    assert images(two, splits="val") == "g"
    with pytest.raises(CxrError, match="none of the images of m0"):
        images(predicted([0.5], "z"))
    with pytest.raises(UsageError, match="no split named 'tset'"):
        images(two, splits="tset")


def test_the_document_holds_all_methods_and_is_plain() -> None:
    first = predicted([0.9, 0.4, 0.1, 0.4, 0.5, 0.7, 0.3], "abcdefz")
    second = predicted([0.9, 0.8, 0.1, 0.85, 0.2])
    made = json.loads(json.dumps(document([("ours", first), ("theirs", second)], DATA, "test"), allow_nan=False))
    assert (made["schema"], made["kind"], made["method"]) == (1, "probabilities", "ours")
    assert made["protocol"]["name"] == "auc"
    assert made["auc"]["Mass"]["auc"] == 0.75
    assert made["counts"] == {
        **{"images": 5, "patients": 3, "images_without_row": 0, "images_without_probability": 0},
        **{"images_of_other_splits": 1, "images_not_in_dataset": 1, "splits": ["test"]},
        **{"findings_without_labels": [], "findings_without_probabilities": []},
    }
    assert made["others"]["theirs"]["auc"]["Mass"]["auc"] == pytest.approx(5 / 6)
    assert made["others"]["theirs"]["counts"]["images_not_in_dataset"] == 0
    difference = made["differences"]["theirs"]
    assert difference["Mass"]["difference"] == pytest.approx(1 / 12)
    assert difference["Nodule"]["p"] == 1
    assert difference["Nodule"]["low"] == difference["Nodule"]["high"] == 0
    assert difference["Mass"]["p_holm"] == 1  # twice erfc(1/4)
    assert made["mean_differences"]["theirs"] == {
        "difference": pytest.approx(made["others"]["theirs"]["mean"]["auc"] - made["mean"]["auc"]),
        "findings": 2,
    }


def test_only_the_findings_that_are_asked_for_are_scored() -> None:
    made = document([("m", predicted([0.9, 0.4, 0.1, 0.4, 0.5]))], DATA, "test", ["Mass"])
    assert list(made["auc"]) == ["Mass"]
    assert made["counts"]["findings_without_labels"] == []
    with pytest.raises(CxrError, match=r"no finding named Masss\. Did you mean Mass"):
        document([("m", predicted([0.9] * 5))], DATA, "test", ["Masss"])


def test_a_table_through_its_file_scores_as_its_numbers(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows = [(f"i{k:03}", "test", int(rng.random() < 0.4), int(rng.random() < 0.4)) for k in range(200)]
    index = dataset(*rows)
    values = rng.random((200, 2)).astype(np.float32)
    path = tmp_path / "p.parquet"
    write_probabilities(path, build_probabilities(index, FINDINGS, values, ["ok"] * 200), {"split": "test"})
    made = document([("m", read_probabilities(path, index.findings))], index)
    for c, finding in enumerate(FINDINGS):
        expected = auc_interval(index.labels()[:, c], values[:, c])
        assert tuple(made["auc"][finding][key] for key in ("auc", "low", "high")) == expected
