"""The boxes table: written whole or not at all, the same bytes for the same work, and one checked door."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxrmine.boxes import table as t
from cxrmine.boxes.door import checked, read_truth
from cxrmine.boxes.shards import expand, grouped, read_boxes, shard_path
from cxrmine.errors import CxrError

META = {"recipe": {"name": "cam"}, "weights_sha256": "ab", "dataset": "cd", "version": "0.1.0"}
GOOD = {"image_id": ["a"], "finding": ["Mass"], "x_min": [1.0], "y_min": [2.0], "x_max": [3.0], "y_max": [5.0]}


def rows_of(first: int, last: int) -> tuple[dict, dict]:
    """Two boxes and one pair an image; every third image has no box."""
    images = [f"{i:04}.png" for i in range(first, last)]
    boxed = [image for image in images if int(image[:4]) % 3]
    twice = [image for image in boxed for _ in range(2)]
    boxes = {
        "image_id": twice,
        "finding": ["Mass"] * len(twice),
        "rank": [1, 2] * len(boxed),
        "patient_id": [image[:3] for image in twice],
        "score": [int(image[:4]) / 100 for image in twice],
        "x_min": np.zeros(len(twice)),
        "y_min": np.zeros(len(twice)),
        "x_max": np.full(len(twice), 7.5),
        "y_max": np.full(len(twice), 8.0),
        "region": [b"0"] * len(twice),
    }
    status = ["ok" if image in boxed else "no box" for image in images]
    pairs = {"image_id": images, "finding": ["Mass"] * len(images), "label": [1] * len(images), "status": status}
    return boxes, pairs


def write(path: Path, first: int = 0, last: int = 40, batch: int = 7, **meta: object) -> Path:
    with t.BoxWriter(path, META | meta) as writer:
        for start in range(first, last, batch):
            writer.write(*rows_of(start, min(start + batch, last)))
    return path


def shards(folder: Path, n: int = 3, **meta: object) -> list[Path]:
    edges = np.linspace(0, 40, n + 1).astype(int)
    return [
        write(shard_path(folder / "b.parquet", i, n), edges[i - 1], edges[i], shard=[i, n], **meta)
        for i in range(1, n + 1)
    ]


def csv(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_an_empty_table_goes_round(tmp_path):
    path = write(tmp_path / "b.parquet", 0, 0)
    boxes = read_boxes(path)
    assert len(boxes.table) == 0
    assert boxes.table.schema.equals(t.SCHEMA)
    assert boxes.images is not None
    assert len(boxes.images) == 0
    assert len(t.truth_table({})) == 0
    t.write_boxes(path, t.truth_table({}), {})
    assert len(read_truth(path)) == 0


def test_schema_is_the_contract():
    names = "image_id finding split patient_id rank score probability x_min y_min x_max y_max threshold image_width"
    assert t.SCHEMA.names == [*names.split(), "image_height", "region", "region_height", "region_width", "source"]
    assert t.SCHEMA.field("image_id").type == pa.dictionary(pa.int32(), pa.string())
    assert t.SCHEMA.field("rank").type == pa.int16()
    assert t.TRUTH_SCHEMA.names == [*t.SCHEMA.names, "reader"]
    names = "image_id patient_id split width height finding label probability boxes status"
    assert t.IMAGES_SCHEMA.names == names.split()


def test_what_is_written_is_read(tmp_path):
    path = write(tmp_path / "b.parquet")
    boxes = read_boxes(path)
    assert len(boxes.table) == 52
    assert boxes.meta == {"schema": 1, **META}
    assert boxes.images is not None
    assert boxes.images["status"].to_pylist().count("no box") == 14
    assert set(boxes.table["source"].to_pylist()) == {"b"}  # no source was given: the file's name
    assert t.images_path(path).name == "b.images.parquet"


def test_the_bytes_do_not_hang_on_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(t, "ROW_GROUP", 8)
    paths = [write(tmp_path / f"{batch}" / "b.parquet", batch=batch) for batch in (1, 7, 40)]
    for beside in (lambda p: p, t.images_path):
        assert len({beside(path).read_bytes() for path in paths}) == 1
    assert pq.ParquetFile(paths[0]).num_row_groups == 7
    assert pq.ParquetFile(paths[0]).schema_arrow.metadata[b"cxrmine"].startswith(b'{"dataset": "cd"')


def test_rows_go_in_as_well_as_columns(tmp_path):
    path = tmp_path / "b.parquet"
    boxes, pairs = rows_of(0, 40)
    with t.BoxWriter(path, META) as writer:
        writer.write(*([dict(zip(c, r, strict=True)) for r in zip(*c.values(), strict=True)] for c in (boxes, pairs)))
    assert path.read_bytes() == write(tmp_path / "other" / "b.parquet").read_bytes()


def test_an_exception_leaves_what_was_there(tmp_path):
    path = write(tmp_path / "b.parquet")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def stopped() -> None:
        with t.BoxWriter(path, META) as writer:
            writer.write(*rows_of(0, 7))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_the_boxes_come_last_and_never_lie_beside_images_of_another_run(tmp_path, monkeypatch):
    path = write(tmp_path / "b.parquet")
    renamed = []
    replace = os.replace
    monkeypatch.setattr("os.replace", lambda a, b: (renamed.append((b.name, path.exists())), replace(a, b)))
    write(path)
    assert renamed == [("b.images.parquet", False), ("b.parquet", False)]


@pytest.mark.parametrize("full", ["b.parquet", "b.images.parquet"])
def test_a_full_disk_names_the_table_it_stopped(tmp_path, monkeypatch, full):
    """The boxes and the images are open at once; pyarrow's error says neither."""
    close = t.pq.ParquetWriter.close

    def fails(writer):
        close(writer)
        if f".{full}." in str(writer.where):
            raise OSError(28, "Error writing bytes to file. Detail: [errno 28] No space left on device")

    monkeypatch.setattr(t.pq.ParquetWriter, "close", fails)
    with pytest.raises(OSError, match="errno 28") as raised:
        write(tmp_path / "b.parquet")
    assert raised.value.filename == str(tmp_path / full)
    assert list(tmp_path.iterdir()) == []


def test_batches_must_come_in_order(tmp_path):
    def backwards() -> None:
        with t.BoxWriter(tmp_path / "b.parquet", META) as writer:
            writer.write(*rows_of(20, 30))
            writer.write(*rows_of(0, 10))

    with pytest.raises(ValueError, match="sorted"):
        backwards()
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_column_is_refused():
    with pytest.raises(ValueError, match="x_mid"):
        t.build(t.SCHEMA, {"x_mid": [1]})


def test_truth_is_sorted_and_ranked_in_the_given_order():
    columns = {
        "image_id": ["b", "a", "b"],
        "finding": ["Mass"] * 3,
        "split": ["test"] * 3,
        "patient_id": ["2", "1", "2"],
        "x_min": [5, 2, 3],
        "y_min": [0, 0, 0],
        "x_max": [6, 5, 6],
        "y_max": [1, 1, 1],
        "image_width": [9] * 3,
        "image_height": [9] * 3,
    }
    truth = t.truth_table(columns)
    assert truth["image_id"].to_pylist() == ["a", "b", "b"]
    assert truth["rank"].to_pylist() == [1, 1, 2]
    assert truth["x_min"].to_pylist() == [2, 5, 3]
    assert set(truth["source"].to_pylist()) == {"truth"}
    assert truth["score"].to_pylist() == truth["probability"].to_pylist() == [1, 1, 1]
    for empty in ("threshold", "region", "reader"):
        assert truth[empty].null_count == 3


def test_shards_are_the_whole(tmp_path):
    parts = shards(tmp_path / "parts")
    assert parts[1].name == "b-00002-of-00003.parquet"
    whole = read_boxes(write(tmp_path / "whole" / "b.parquet"))
    for source in (tmp_path / "parts", tmp_path / "parts" / "b-*.parquet", parts[::-1]):
        joined = read_boxes(source)
        assert joined.table.equals(whole.table)
        assert joined.images is not None
        assert joined.images.equals(whole.images)
        assert joined.meta == whole.meta
    assert grouped(parts) == [parts]


def test_a_missing_shard_is_named(tmp_path):
    parts = shards(tmp_path)
    parts[1].unlink()
    for source in (tmp_path, tmp_path / "b-*", [parts[0], parts[2]]):
        with pytest.raises(CxrError, match=r"1 of 3 shards are missing: \S*b-00002-of-00003\.parquet\."):
            read_boxes(source)
    with pytest.raises(CxrError, match="2 of 3 shards are missing"):
        read_boxes(parts[0])


@pytest.mark.parametrize("key", ["recipe", "weights_sha256", "dataset"])
def test_shards_of_different_work_are_refused(tmp_path, key):
    parts = shards(tmp_path)
    write(parts[2], 30, 40, shard=[3, 3], **{key: "other"})
    with pytest.raises(CxrError, match=f"differ in {key}"):
        read_boxes(tmp_path)


def test_shards_of_different_totals_are_refused(tmp_path):
    shards(tmp_path, 2)
    shards(tmp_path, 3)
    with pytest.raises(CxrError, match="differ in their total: 2 and 3"):
        read_boxes(tmp_path)


def test_images_of_another_run_are_refused(tmp_path):
    path = write(tmp_path / "b.parquet")
    t.images_path(write(tmp_path / "c.parquet", weights_sha256="other")).rename(t.images_path(path))
    with pytest.raises(CxrError, match=r"b.images.parquet is not of the same run"):
        read_boxes(path)


def test_a_table_given_twice_is_refused(tmp_path):
    first, second = write(tmp_path / "b.parquet"), write(tmp_path / "c.parquet")
    with pytest.raises(CxrError, match="given twice"):
        read_boxes([first, second])
    with pytest.raises(CxrError, match=r"several boxes tables: b\.parquet, c\.parquet"):
        expand(tmp_path)


def test_a_newer_schema_asks_for_an_upgrade(tmp_path):
    path = write(tmp_path / "b.parquet", schema=2)
    for read in (read_boxes, t.read_meta):
        with pytest.raises(CxrError, match="Upgrade"):
            read(path)


@pytest.mark.parametrize("name", ["b.parquet", "b.csv"])
def test_what_is_not_there_or_not_a_table(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(CxrError, match="no boxes table"):
        read_boxes(path)
    for garbage in (b"", b"PAR1", bytes(range(256)) * 20):
        path.write_bytes(garbage)
        with pytest.raises(CxrError):
            read_boxes(path)


def test_a_cut_off_file_is_an_error(tmp_path):
    path = write(tmp_path / "b.parquet")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CxrError, match="Parquet"):
        read_boxes(path)
    with pytest.raises(CxrError, match="Parquet"):
        t.read_meta(path)


def test_missing_columns_name_the_nearest():
    columns = {"image_id": ["a"], "finding": ["Mass"], "xmin": [1.0], "y_min": [2.0], "x_max": [3.0]}
    with pytest.raises(CxrError, match=r"mine.csv lacks x_min \(is it 'xmin'\?\), y_max"):
        checked(pa.table(columns), where="mine.csv")


def test_what_is_not_given_is_filled():
    table = checked(pa.table(GOOD), where="here", source="me")
    assert table.schema.equals(t.SCHEMA)
    assert table["rank"].to_pylist() == [1]
    assert table["source"].to_pylist() == ["me"]
    assert table["patient_id"].null_count == 1


def test_a_missing_rank_is_the_order_of_the_scores_else_of_the_rows():
    twice = {name: values * 3 for name, values in GOOD.items()} | {"x_min": [0.0, 1.0, 2.0]}
    assert checked(pa.table(twice), where="here")["x_min"].to_pylist() == [0, 1, 2]
    assert checked(pa.table(twice | {"score": [0.1, 0.9, 0.5]}), where="here")["x_min"].to_pylist() == [1, 2, 0]


FAULTS = [
    ({"x_min": [float("nan")]}, "x_min is not a finite number: row 1"),
    ({"y_max": [float("inf")]}, "y_max is not a finite number: row 1"),
    ({"y_max": [1e300]}, "y_max is not a finite number: row 1"),  # not in float32
    ({"x_max": [None]}, "x_max is empty: row 1"),
    ({"x_max": ["wide"]}, "x_max is not a finite number: row 1"),
    ({"x_max": [1.0]}, "x_max is not above x_min: row 1"),
    ({"y_min": [6.0]}, "y_max is not above y_min: row 1"),
    ({"x_min": [-1.0]}, "x_min is negative: row 1"),
    ({"image_width": [2]}, "x_max is beyond image_width: row 1"),
    ({"image_height": [4]}, "y_max is beyond image_height: row 1"),
    ({"rank": [0]}, "rank is not a whole number from 1: row 1"),
    ({"rank": [1.5]}, "rank is not a whole number from 1: row 1"),
    ({"rank": [40000]}, "rank is not a whole number from 1: row 1"),
    ({"score": [float("nan")]}, "score is not a finite number: row 1"),
    ({"finding": ["Infiltrate"]}, "'Infiltrate' is unknown, did you mean 'Infiltration'?: row 1"),
    ({"finding": [""]}, "finding is empty: row 1"),
    ({"image_id": [None]}, "image_id is empty: row 1"),
]


@pytest.mark.parametrize(("change", "said"), FAULTS)
def test_each_fault_is_told_with_its_row(change, said):
    with pytest.raises(CxrError) as error:
        checked(pa.table(GOOD | change), where="here", findings=["Mass", "Infiltration"])
    assert said in error.value.what
    assert error.value.what.startswith("here has 1 faulty of 1 rows")


def test_all_faults_are_told_at_once(tmp_path):
    lines = ["image_id,finding,x_min,y_min,x_max,y_max", "0001,Mass,1,1,2,2", "0002,Mas,9,1,2,2", "0003,Mass,?,1,2,2"]
    lines += [f"1{i:03},Mass,-3,1,2,2" for i in range(7)]
    with pytest.raises(CxrError) as error:
        read_boxes(csv(tmp_path / "b.csv", "\n".join(lines)), findings=["Mass", "Nodule"])
    text = error.value.what
    assert "9 faulty of 10 rows" in text
    assert "'Mas' is unknown, did you mean 'Mass'?: row 2" in text
    assert "x_max is not above x_min: row 2" in text
    assert "x_min is not a finite number: row 3" in text
    assert "x_min is negative: rows 4, 5, 6, 7, 8 and 2 more" in text


def test_rounding_beyond_the_edge_is_no_fault_and_a_pixel_is():
    size = {"image_width": [3], "image_height": [5]}
    checked(pa.table(GOOD | size | {"x_max": [3.0001]}), where="here")
    with pytest.raises(CxrError, match="beyond image_width"):
        checked(pa.table(GOOD | size | {"x_max": [3.5]}), where="here")


def test_csv_names_stay_text_and_columns_may_be_more(tmp_path):
    path = csv(tmp_path / "b.csv", "finding,image_id,x_min,y_min,x_max,y_max,note\nMass,00001,1,2,3,4,hello\n")
    assert read_boxes(path).table["image_id"].to_pylist() == ["00001"]
    assert read_truth(path)["source"].to_pylist() == ["truth"]
    assert read_boxes(path).images is None


def test_csv_with_a_short_row_is_an_error(tmp_path):
    with pytest.raises(CxrError, match="cannot be read as CSV"):
        read_boxes(csv(tmp_path / "b.csv", "image_id,finding,x_min,y_min,x_max,y_max\na,Mass,1,2\n"))


def test_a_column_of_a_strange_type_is_an_error():
    with pytest.raises(CxrError, match="x_min cannot be read"):
        checked(pa.table(GOOD | {"x_min": [[1.0, 2.0]]}), where="here")


def test_neither_pandas_nor_torch():
    code = "import sys, cxrmine.boxes.shards; sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
