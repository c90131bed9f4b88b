"""`mine --organs`: gated maps, boxes that go and boxes that are marked, by organs that lie where we put them."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from cxrmine.boxes.door import checked
from cxrmine.boxes.erase import peak_component
from cxrmine.boxes.geometry import area, intersection_matrix
from cxrmine.boxes.maps import FINAL, index_path, maps_path, read_maps
from cxrmine.boxes.prior import make_prior
from cxrmine.boxes.shards import read_boxes
from cxrmine.boxes.table import BOX_ORDER, OUTSIDE, SCHEMA, images_path, read_meta
from cxrmine.data.datasets import open_dataset
from cxrmine.data.images import fit_geometry
from cxrmine.errors import CxrError, UsageError
from cxrmine.learn.organs import outlined
from cxrmine.methods.registry import load_organs
from cxrmine.runs import open_run
from cxrmine.scoring.tuning import tune
from cxrmine.stages import miner, score, train
from cxrmine.stages.boxer import Boxer, Cells
from cxrmine.stages.mine import Mine, MineResult, run, summary
from cxrmine.tables import COORDINATES
from tests.organ_runs import BESIDE, CELLS, RECTANGLES, SIDE, organs_run
from tests.test_cli import cxrmine, refused
from tests.test_mine_rounds import TINY_AM, contents, torchrun

FILM, STRIDE = 96, 8
MARK, DROP = "mine.organ_way=mark", "mine.organ_way=drop"

# Of a map of 8×8 cells, each of which looks at 8 of 64 pixels about its first one: which of them organs cover.
GATE = np.ones((8, 8), bool)
GATE[4:, :2] = GATE[6:, 6:] = False
GATE[6, 6] = True  # 4.5 of 8 pixels both ways lie beside them: 0.32 of the cell
HEART = np.zeros((8, 8), bool)
HEART[4:, 2:6] = True
HEART[4, 2] = False  # 4.5 of 8 pixels both ways: 0.32 of the cell


@pytest.fixture(scope="module")
def organs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return organs_run(tmp_path_factory.mktemp("organs") / "run")


@pytest.fixture(scope="module")
def am(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of attention mining with three rounds, very small."""
    folder = tmp_path_factory.mktemp("runs") / "am"
    train.run(train.Train(dataset, "demo-am", folder, TINY_AM, device="cpu", workers=1))
    return folder


class Base:
    """One small run and dataset; tables are made by `mine`."""

    def __init__(self, dataset: Path, trained: Path, organs: Path) -> None:
        self.dataset, self.trained, self.organs = dataset, trained, organs

    def config(self, out: Path, *overrides: str, **more: Any) -> Mine:
        asked: dict[str, Any] = {"split": "boxed", "device": "cpu", "workers": 1, "batch_size": 16}
        asked |= {"organs": self.organs, "overrides": overrides} | more
        return Mine(asked.pop("run", self.trained), asked.pop("data", self.dataset), out, **asked)

    def mine(self, out: Path, *overrides: str, **more: Any) -> MineResult:
        return run(self.config(out, *overrides, **more))


@pytest.fixture(scope="module")
def base(dataset: Path, trained: Path, organs: Path) -> Base:
    return Base(dataset, trained, organs)


class Tables:
    """The same pairs mined without organs and in each way, with their maps."""

    def __init__(self, base: Base, folder: Path) -> None:
        self.folder = folder
        ways = {"plain": {"organs": None}, "gate": {}, "drop": {}, "mark": {}}
        self.results = {
            name: base.mine(
                folder / f"{name}.parquet",
                *([f"mine.organ_way={name}"] if name != "plain" else []),
                maps=folder / name,
                **more,
            )
            for name, more in ways.items()
        }

    def boxes(self, name: str) -> pa.Table:
        return pq.ParquetFile(self.folder / f"{name}.parquet").read()

    def images(self, name: str) -> list[dict[str, Any]]:
        return pq.ParquetFile(images_path(self.folder / f"{name}.parquet")).read().to_pylist()


@pytest.fixture(scope="module")
def tables(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    return Tables(base, tmp_path_factory.mktemp("ways"))


def places(table: pa.Table) -> np.ndarray:
    return np.stack([table[name].to_numpy() for name in COORDINATES], axis=1).reshape(-1, 4)


def shares_beside(boxes: np.ndarray, side: float = FILM) -> np.ndarray:
    """What of boxes on a film of `side` lies in the quarters that no organ covers."""
    return intersection_matrix(boxes, np.array(BESIDE) * side / CELLS).sum(axis=1) / area(boxes)


def gate(cells: int, stride: float, offset: float, size: int = 64) -> np.ndarray:
    """Cells of which no more than half lies beside the organs."""
    starts = np.arange(cells) * stride + offset + 0.5 - stride / 2
    y_min, x_min = (part.ravel() for part in np.meshgrid(starts, starts, indexing="ij"))
    seen = np.stack([x_min, y_min, x_min + stride, y_min + stride], axis=1).clip(0, size)
    return (shares_beside(seen, size) <= 0.5).reshape(cells, cells)


def final_maps(folder: Path) -> tuple[list[tuple[str, str]], np.ndarray]:
    """Pairs, and their final maps n×h×w, 0 to 1 of each map's own maximum."""
    index, (array,) = read_maps(folder)
    final = index["round"].to_numpy() == FINAL
    names = index.filter(pa.array(final))
    return list(zip(names["image_id"].to_pylist(), names["finding"].to_pylist(), strict=True)), array[final] / 255


# --- what stands in for a trained network


@pytest.mark.parametrize("size", [SIDE, 64])
def test_the_made_run_outlines_the_same_rectangles_on_any_film(organs: Path, size: int) -> None:
    net = load_organs(open_run(organs)).eval().net
    films = torch.randint(0, 255, (3, 1, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        masks = outlined(net, films, SIDE).numpy()
    drawn = np.zeros((len(RECTANGLES), SIDE, SIDE), bool)
    for mask, rectangle in zip(drawn, RECTANGLES.values(), strict=True):
        x_min, y_min, x_max, y_max = np.array(rectangle) * SIDE // CELLS
        mask[y_min:y_max, x_min:x_max] = True
    for film in masks:
        np.testing.assert_array_equal(film, drawn)


def test_the_cells_that_organs_cover_are_those_counted_by_hand() -> None:
    np.testing.assert_array_equal(gate(8, STRIDE, 0), GATE)


# --- without organs


def test_without_organs_tables_are_as_they_were(tables: Tables) -> None:
    plain = pq.ParquetFile(tables.folder / "plain.parquet")
    assert plain.schema_arrow.names == SCHEMA.names
    assert (tables.results["plain"].outside, tables.results["plain"].without_organs) == (0, 0)
    assert read_meta(tables.folder / "plain.parquet")["organs_sha256"] == ""
    assert len(read_meta(tables.folder / "gate.parquet")["organs_sha256"]) == 64
    said = summary(Mine(Path("r"), Path("d"), Path("b")), tables.results["plain"])
    assert "organ" not in said


# --- mark


def test_marked_boxes_are_the_plain_ones_and_say_how_much_lies_outside(tables: Tables) -> None:
    plain, marked = tables.boxes("plain"), tables.boxes("mark")
    assert marked.schema.field("outside").type == OUTSIDE.type
    assert marked.drop(["outside"]).equals(plain)
    shares = shares_beside(places(plain))
    np.testing.assert_allclose(marked["outside"].to_numpy(), shares, atol=1e-4)
    assert 0 < (shares > 0.5).sum() < len(shares)  # so there is something to be tested here
    assert tables.images("mark") == tables.images("plain")
    np.testing.assert_array_equal(final_maps(tables.folder / "mark")[1], final_maps(tables.folder / "plain")[1])
    assert replace(tables.results["mark"], out=Path()) == replace(tables.results["plain"], out=Path())


# --- drop


def test_boxes_that_lie_outside_go_and_the_others_close_up(tables: Tables) -> None:
    marked, dropped = tables.boxes("mark"), tables.boxes("drop")
    left = marked.filter(pa.array(marked["outside"].to_numpy() <= 0.5))
    others = [name for name in marked.column_names if name != "rank"]
    assert dropped.select(others).equals(left.select(others))
    result = tables.results["drop"]
    assert result.outside == len(marked) - len(dropped) > 0
    ranks: dict[tuple[str, str], list[int]] = {}
    for row in dropped.select(BOX_ORDER).to_pylist():
        ranks.setdefault((row["image_id"], row["finding"]), []).append(row["rank"])
    assert all(of == list(range(1, len(of) + 1)) for of in ranks.values())
    for row in tables.images("drop"):
        assert row["boxes"] == len(ranks.get((row["image_id"], row["finding"]), []))
        assert row["finding"] is None or row["status"] == ("ok" if row["boxes"] else "no box")
    assert result.without_box == sum(row["status"] == "no box" for row in tables.images("drop"))
    said = summary(Mine(Path("r"), Path("d"), Path("b")), result)
    assert f"\n{result.outside} more boxes lie outside the organs and were dropped." in said


def test_how_much_may_lie_outside_can_be_said(base: Base, tables: Tables, tmp_path: Path) -> None:
    result = base.mine(tmp_path / "b.parquet", DROP, "mine.outside=0")
    shares = tables.boxes("mark")["outside"].to_numpy()
    assert result.boxes == (shares == 0).sum() < tables.results["drop"].boxes
    assert result.boxes + result.outside == len(shares)


# --- gate


def test_gated_maps_are_the_plain_ones_inside_and_0_outside(tables: Tables) -> None:
    pairs, plain = final_maps(tables.folder / "plain")
    again, maps = final_maps(tables.folder / "gate")
    assert pairs == again
    assert not maps[:, ~GATE].any()
    inside = np.where(GATE, plain, 0)
    peaks = inside.max(axis=(1, 2), keepdims=True)
    there = peaks[:, 0, 0] > 0.1  # of 255 grays: below, one of them is too much
    np.testing.assert_allclose(maps[there], (inside / np.maximum(peaks, 1e-9))[there], atol=0.03)
    assert (peaks[:, 0, 0] < 1).any()  # normalised after: a peak outside sets no scale
    assert set(maps[there].max(axis=(1, 2)).tolist()) == {1}


def test_gated_boxes_are_cut_from_gated_maps(tables: Tables) -> None:
    boxes = tables.boxes("gate")
    assert boxes.column_names == [*SCHEMA.names, "outside"]
    np.testing.assert_allclose(boxes["outside"].to_numpy(), shares_beside(places(boxes)), atol=1e-4)
    plain = tables.boxes("mark")
    assert boxes["outside"].to_numpy().mean() < plain["outside"].to_numpy().mean()
    assert tables.results["gate"].outside == tables.results["gate"].without_organs == 0
    assert tables.results["gate"].pairs == tables.results["plain"].pairs


def test_gate_is_the_way_if_none_is_said(base: Base, tables: Tables, tmp_path: Path) -> None:
    base.mine(tmp_path / "b.parquet")
    assert (tmp_path / "b.parquet").read_bytes() == (tables.folder / "gate.parquet").read_bytes()


def test_a_finding_with_its_own_organs_is_gated_by_these(base: Base, tables: Tables, tmp_path: Path) -> None:
    base.mine(tmp_path / "b.parquet", 'mine.organs_of.Cardiomegaly=["heart"]', maps=tmp_path / "maps")
    pairs, maps = final_maps(tmp_path / "maps")
    _, before = final_maps(tables.folder / "gate")
    own = np.array([finding == "Cardiomegaly" for _, finding in pairs])
    assert own.any()
    assert not maps[own][:, ~HEART].any()
    assert maps[own].any()
    assert before[own][:, ~HEART].any()
    np.testing.assert_array_equal(maps[~own], before[~own])


def test_a_finding_with_its_own_margin_reaches_further(base: Base, tables: Tables, tmp_path: Path) -> None:
    """A quarter of the film more is the whole film, but for a corner beyond the heart's."""
    base.mine(tmp_path / "b.parquet", "mine.margin_of.Mass=0.25", maps=tmp_path / "maps")
    pairs, maps = final_maps(tmp_path / "maps")
    own = np.array([finding == "Mass" for _, finding in pairs])
    for name, which in (("plain", own), ("gate", ~own)):
        np.testing.assert_array_equal(maps[which], final_maps(tables.folder / name)[1][which])
    boxes = pq.ParquetFile(tmp_path / "b.parquet").read()
    of_mass = np.array([name == "Mass" for name in boxes["finding"].to_pylist()])
    assert of_mass.any()
    assert not boxes["outside"].to_numpy()[of_mass].any()


# --- one film by hand


def boxer(base: Base, *overrides: str, keep: bool = False) -> Boxer:
    from cxrmine.stages.mine import _recipe

    opened = open_run(base.trained)
    recipe = _recipe(base.config(Path("b.parquet"), *overrides), opened.recipe)
    prior = make_prior(recipe.mine, recipe.data.findings, ("left_lung", "heart"))
    index = open_dataset(base.dataset).select("boxed")
    return Boxer(recipe, index, "all", np.zeros(8), Cells(STRIDE, 0), "cam", keep, prior)


def one_film(made: Boxer, spots: dict[tuple[int, int], float], outlines: np.ndarray) -> Any:
    """The same map of 8×8 cells for every finding, 0 but for some cells (row, column)."""
    raw = np.zeros((1, len(made.findings), 8, 8), np.float32)
    for (row, column), value in spots.items():
        raw[:, :, row, column] = value
    return made.image(0, raw, np.full(len(made.findings), 0.5), fit_geometry(FILM, FILM, 64, "stretch"), outlines)


def test_a_peak_outside_is_gone_before_the_map_is_normalised(base: Base) -> None:
    """A peak of 9 outside and one of 1 inside: without organs the second is below every cut."""
    left = np.zeros((2, 64, 64), bool)
    left[0, :, 32:] = True
    spots = {(3, 1): 9.0, (3, 6): 1.0}
    for way, boxes, middle in (("gate", 1, 6 * STRIDE), ("mark", 1, STRIDE), ("drop", 0, 0)):
        mined = one_film(boxer(base, f"mine.organ_way={way}"), spots, left)
        assert [row["boxes"] for row in mined.images] == [boxes] * 8
        assert mined.outside == (8 if way == "drop" else 0)
        for box in mined.boxes:
            assert (box["x_min"] + box["x_max"]) / 2 * 64 / FILM == pytest.approx(middle + 0.5, abs=0.51)
            assert box["outside"] == pytest.approx(float(way == "mark"))


def test_without_any_organ_a_film_is_as_without_organs_and_counted(base: Base) -> None:
    nothing = np.zeros((2, 64, 64), bool)
    speck = nothing.copy()
    speck[0, 20:22, 20:22] = True  # of no cell the half
    for outlines in (nothing, speck):
        for way in ("gate", "drop", "mark"):
            mined = one_film(boxer(base, f"mine.organ_way={way}"), {(3, 1): 9.0}, outlines)
            assert (len(mined.boxes), mined.without_organs, mined.outside) == (8, 8, 0)
            assert {box["outside"] for box in mined.boxes} == {None}


def test_a_finding_whose_own_organ_is_not_there_is_counted(base: Base) -> None:
    no_heart = np.zeros((2, 64, 64), bool)
    no_heart[0, :, 32:] = True
    mined = one_film(boxer(base, MARK, 'mine.organs_of.Cardiomegaly=["heart"]'), {(3, 1): 9.0}, no_heart)
    assert mined.without_organs == 1
    assert [box["finding"] for box in mined.boxes if box["outside"] is None] == ["Cardiomegaly"]


# --- films on which nothing is outlined


def test_films_without_organs_are_null_and_their_pairs_are_told(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One film is black, and there the network is made to find nothing."""
    data = tmp_path / "data"
    shutil.copytree(base.dataset, data)
    plain = base.mine(tmp_path / "plain.parquet", data=data, organs=None, findings="all")
    image = pq.ParquetFile(tmp_path / "plain.parquet").read()["image_id"][0].as_py()
    cv2.imwrite(str(data / "images" / image), np.zeros((FILM, FILM), np.uint8))
    base.mine(tmp_path / "plain.parquet", data=data, organs=None, findings="all", overwrite=True)

    def found(net: Any, films: torch.Tensor, size: int) -> torch.Tensor:
        return outlined(net, films, size) & (films.amax((1, 2, 3)) > 0)[:, None, None, None]

    monkeypatch.setattr(miner, "outlined", found)
    config = base.config(tmp_path / "b.parquet", data=data, findings="all")
    result = run(config)
    assert (result.pairs, result.without_organs) == (plain.pairs, 8)
    assert "Of 8 pairs no organ was outlined, or less than a cell: their boxes are as without --organs." in summary(
        config, result
    )
    mine, without = (pq.ParquetFile(tmp_path / name).read() for name in ("b.parquet", "plain.parquet"))
    null = np.array(mine["outside"].is_null())
    assert set(mine.filter(pa.array(null))["image_id"].to_pylist()) <= {image}
    of_image = without.filter(pa.array([name == image for name in without["image_id"].to_pylist()]))
    assert mine.filter(pa.array(null)).drop(["outside"]).to_pylist() == of_image.to_pylist()


def test_a_run_that_finds_nothing_says_so(base: Base, tables: Tables, tmp_path: Path) -> None:
    blank = organs_run(tmp_path / "blank", {"heart": None, "left_lung": None})
    for way in ("gate", "drop"):
        config = base.config(tmp_path / f"{way}.parquet", f"mine.organ_way={way}", organs=blank)
        result = run(config)
        assert (result.without_organs, result.outside) == (result.pairs, 0)
        assert f"Of {result.pairs} pairs no organ was outlined" in summary(config, result)
        table = pq.ParquetFile(config.out).read()
        assert table["outside"].null_count == len(table)
        assert table.drop(["outside"]).equals(tables.boxes("plain"))


# --- the same bytes


def test_shards_read_together_are_the_whole(base: Base, tmp_path: Path) -> None:
    whole = tmp_path / "whole" / "b.parquet"
    base.mine(whole, DROP)
    for i in (3, 1, 2):
        base.mine(tmp_path / "shards" / "b.parquet", DROP, shard=(i, 3))
    together, one = read_boxes(tmp_path / "shards"), read_boxes(whole)
    assert together.table.equals(one.table)
    assert together.images is not None
    assert together.images.equals(one.images)
    shards = [pq.ParquetFile(path).read() for path in sorted((tmp_path / "shards").glob("b-*of-00003.parquet"))]
    outside = np.concatenate([shard["outside"].to_numpy() for shard in shards])
    np.testing.assert_array_equal(outside, pq.ParquetFile(whole).read()["outside"].to_numpy())


def test_two_processes_write_the_bytes_of_one_and_count_the_same(base: Base, tmp_path: Path) -> None:
    one, two = tmp_path / "one" / "b.parquet", tmp_path / "two" / "b.parquet"
    result = base.mine(one, DROP, batch_size=11)
    words = ["mine", "--run", base.trained, "--data", base.dataset, "--split", "boxed", "--device", "cpu"]
    words += ["--workers", 1, "--batch-size", 11, "--organs", base.organs, "--set", DROP, "--out", two]
    done = torchrun("-m", "--", "cxrmine", *words)
    assert done.returncode == 0, done.stderr
    assert contents(one.parent) == contents(two.parent)
    assert done.stdout == summary(base.config(two), replace(result, out=two)) + "\n"


def test_threads_and_the_batch_size_change_nothing(base: Base, tables: Tables, tmp_path: Path) -> None:
    """Other batches are other kernels, and the last bits of a map may differ, with organs and without."""
    base.mine(tmp_path / "b.parquet", workers=3)
    assert (tmp_path / "b.parquet").read_bytes() == (tables.folder / "gate.parquet").read_bytes()
    base.mine(tmp_path / "c.parquet", MARK, batch_size=5)
    other, one = pq.ParquetFile(tmp_path / "c.parquet").read(), tables.boxes("mark")
    assert other.select(BOX_ORDER).equals(one.select(BOX_ORDER))
    same = (places(other) == places(one)).all(axis=1)
    assert same.mean() > 0.9
    np.testing.assert_array_equal(other["outside"].to_numpy()[same], one["outside"].to_numpy()[same])


def test_the_organs_too_are_outlined_in_batches_of_one_shape(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A film's outline must not depend on how many films lie beside it, as its map does not."""
    shapes = []

    def seen(net: Any, films: torch.Tensor, size: int) -> torch.Tensor:
        shapes.append(tuple(films.shape))
        return outlined(net, films, size)

    monkeypatch.setattr(miner, "outlined", seen)
    result = base.mine(tmp_path / "b.parquet", batch_size=7)
    assert result.images % 7 > 0
    assert shapes == [(7, 1, 64, 64)] * -(-result.images // 7)


# --- read back


def figures(path: Path, dataset: Path) -> dict[Any, float]:
    return dict(score.run(score.Score((path,), dataset, samples=0, controls=False)).rows[0].values)


def test_score_reads_them_with_the_column_more(base: Base, tables: Tables) -> None:
    plain, marked = (figures(tables.folder / f"{name}.parquet", base.dataset) for name in ("plain", "mark"))
    assert marked == pytest.approx(plain, nan_ok=True)
    gated = figures(tables.folder / "gate.parquet", base.dataset)
    assert gated != pytest.approx(plain, nan_ok=True)


def test_the_door_takes_them_and_leaves_the_column(tables: Tables) -> None:
    for name in ("gate", "drop", "mark"):
        table = tables.boxes(name)
        through = checked(table, where=name)
        assert through.column_names == SCHEMA.names
        assert len(through) == len(table)
        assert read_boxes(tables.folder / f"{name}.parquet").table.equals(through)


def test_maps_that_are_gated_give_the_boxes_that_were_mined(base: Base, tables: Tables) -> None:
    """With the recipe's own cut as the only one, as `score --tune` makes them; a map has 256 grays."""
    truth = score.run(score.Score((tables.folder / "gate.parquet",), base.dataset, samples=0, controls=False))
    assert truth.rows
    drawn = open_dataset(base.dataset).boxes
    cut, said = tune(tables.folder / "gate", checked(drawn, where="truth"), grid=(0.3,))
    assert said["without_map"] == 0
    mined = {
        tuple(row[name] for name in BOX_ORDER): [row[name] for name in COORDINATES]
        for row in tables.boxes("gate").to_pylist()
    }
    moved = [
        np.abs(np.array([row[name] for name in COORDINATES]) - mined[key]).max()
        for row in cut.to_pylist()
        if (key := tuple(row[name] for name in BOX_ORDER)) in mined
    ]
    assert len(moved) >= 0.98 * len(cut) > 10
    assert np.mean(np.array(moved) <= FILM / 64 + 1e-3) > 0.95
    assert shares_beside(places(cut)).max() <= tables.boxes("gate")["outside"].to_numpy().max() + 0.05


def test_score_tunes_on_gated_maps(base: Base, tables: Tables, tmp_path: Path) -> None:
    words = ["score", "--truth", base.dataset, "--maps", tables.folder / "gate", "--tune", "held-out"]
    done = cxrmine(*words, "--bootstrap", "0", tables.folder / "gate.parquet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "held-out cuts" in done.stdout


# --- what is done, and what was done otherwise


def test_what_was_mined_with_other_organs_is_not_replaced(base: Base, tmp_path: Path) -> None:
    out, maps = tmp_path / "b.parquet", tmp_path / "maps"
    base.mine(out, maps=maps)
    assert base.mine(out, maps=maps).already_done
    before = {path: path.read_bytes() for path in (out, images_path(out), index_path(maps_path(maps, 1, 1)))}
    with pytest.raises(CxrError, match=r"mined otherwise \(its organs_sha256 differs\).*--overwrite"):
        base.mine(out, organs=None)
    other = organs_run(tmp_path / "other", {"heart": (1, 1, 3, 3), "left_lung": (2, 0, 4, 4)})
    with pytest.raises(CxrError, match=r"mined otherwise \(its organs_sha256 differs\)"):
        base.mine(out, organs=other)
    with pytest.raises(CxrError, match=r"mined otherwise \(its recipe differs\)"):
        base.mine(out, DROP)
    with pytest.raises(CxrError, match=r"maps-00001-of-00001\.parquet exists and was mined otherwise.*organs_sha256"):
        base.mine(tmp_path / "c.parquet", maps=maps, organs=None)
    assert {path: path.read_bytes() for path in before} == before
    base.mine(out, organs=None, overwrite=True)
    assert "outside" not in pq.ParquetFile(out).schema_arrow.names
    with pytest.raises(CxrError, match=r"mined otherwise \(its organs_sha256 differs\)"):
        base.mine(out)


def test_the_same_organs_from_another_folder_are_the_same_work(base: Base, tmp_path: Path) -> None:
    out = tmp_path / "b.parquet"
    base.mine(out)
    assert str(base.organs.parent) not in str(read_meta(out))
    shutil.copytree(base.organs, tmp_path / "copy")
    assert base.mine(out, organs=tmp_path / "copy").already_done


def test_shards_of_other_organs_are_not_joined(base: Base, tmp_path: Path) -> None:
    base.mine(tmp_path / "b.parquet", shard=(1, 2))
    base.mine(tmp_path / "b.parquet", shard=(2, 2), organs=None)
    with pytest.raises(CxrError, match="differ in organs_sha256"):
        read_boxes(tmp_path)


# --- what is refused


def test_what_cannot_be_is_refused_with_its_cure(base: Base, tmp_path: Path) -> None:
    out, lungs = tmp_path / "b.parquet", organs_run(tmp_path / "lungs", {"left_lung": (2, 0, 4, 3)})
    heart = 'mine.organs_of.Mass=["heart"]'
    for said, more, *overrides in (
        (r"organ_way=drop does nothing without organs.*--organs", {"organs": None}, DROP),
        (r"outside=0\.3 does nothing without organs", {"organs": None}, "mine.outside=0.3"),
        (r"margin=0\.1 does nothing without organs", {"organs": None}, "mine.margin=0.1"),
        (r"margin_of\.Mass=0\.1 does nothing without organs", {"organs": None}, "mine.margin_of.Mass=0.1"),
        (r"organs_of\.Mass=\[.*does nothing without organs", {"organs": None}, heart),
        (r"outside=0\.3 does nothing here\. It is for --set mine\.organ_way=drop", {}, "mine.outside=0.3"),
        (r"outside=0\.3 does nothing here", {}, MARK, "mine.outside=0.3"),
        (r"organs_of\.Mass names heart, which.*outlines left_lung: name", {"organs": lungs}, heart),
        (r"none is no run.*recipe organs", {"organs": tmp_path / "none"}),
    ):
        with pytest.raises(UsageError, match=said):
            base.mine(out, *overrides, **more)
    with pytest.raises(CxrError, match=r"tiny is of method cam, and outlines no organs.*recipe organs"):
        base.mine(out, organs=base.trained)
    with pytest.raises(CxrError, match=r"is not finished.*recipe organs"):
        half = shutil.copytree(base.organs, tmp_path / "half")
        (half / "model.safetensors").unlink()
        base.mine(out, organs=half)
    with pytest.raises(CxrError, match="outlines organs, and knows no findings"):
        base.mine(out, run=base.organs)
    assert not list(tmp_path.glob("*.parquet"))


def test_organs_and_films_that_do_not_fit_are_told(
    base: Base, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    padded = organs_run(tmp_path / "padded", {"left_lung": (2, 0, 4, 3), "right_lung": (0, 0, 2, 2)}, "data.fit=pad")
    base.mine(tmp_path / "b.parquet", organs=padded)
    said = capsys.readouterr().err
    assert "CAREFUL: organs were learned on films with data.fit = pad." in said
    assert "outlines no heart: what lies there counts as outside." in said
    base.mine(tmp_path / "c.parquet")
    assert "CAREFUL" not in capsys.readouterr().err


# --- rounds of erasure


def test_rounds_erase_gated_maps(base: Base, am: Path, tmp_path: Path) -> None:
    result = base.mine(tmp_path / "b.parquet", run=am, maps=tmp_path / "maps")
    plain = base.mine(tmp_path / "plain.parquet", run=am, maps=tmp_path / "plain", organs=None)
    assert (len(result.rounds), result.pairs) == (3, plain.pairs)
    index, (maps,) = read_maps(tmp_path / "maps")
    round_ = index["round"].to_numpy()
    meta = read_meta(tmp_path / "b.parquet")
    beside = ~gate(maps.shape[1], meta["cell_stride"], meta["cell_offset"])
    assert not maps[:, beside].any()
    ungated = read_maps(tmp_path / "plain")[1][0]
    assert ungated[:, beside].any()
    first, second = (maps[round_ == t].astype(np.float32) for t in (1, 2))
    before = ungated[round_ == 1].astype(np.float32)
    elsewhere = 0
    for gated_, next_, without in zip(first, second, before, strict=True):
        erased = peak_component(gated_, 128)  # of 255: from 0.5 on
        assert not next_[erased].any()
        elsewhere += bool((erased & ~peak_component(without, 128)).any())
    assert elsewhere  # on some film another place is erased than without organs
    boxes = pq.ParquetFile(tmp_path / "b.parquet").read()
    assert set(boxes["source"].to_pylist()) == {"am/3"}
    np.testing.assert_allclose(boxes["outside"].to_numpy(), shares_beside(places(boxes)), atol=1e-4)


def test_rounds_count_the_boxes_that_stay(base: Base, am: Path, tmp_path: Path) -> None:
    marked = base.mine(tmp_path / "m.parquet", MARK, run=am)
    dropped = base.mine(tmp_path / "d.parquet", DROP, run=am)
    assert dropped.outside > 0
    assert dropped.boxes + dropped.outside == marked.boxes
    assert sum(peaks for _, peaks in dropped.rounds) <= dropped.boxes
    assert [erased for erased, _ in dropped.rounds] == [erased for erased, _ in marked.rounds]


# --- as it is typed


def test_as_it_is_typed(base: Base, tables: Tables, tmp_path: Path) -> None:
    words = ["mine", "--run", base.trained, "--data", base.dataset, "--split", "boxed", "--batch-size", "16"]
    words += ["--device", "cpu", "--workers", "1", "--out", tmp_path / "b.parquet"]
    refused(cxrmine(*words, "--set", DROP), 2, "does nothing without organs", "--organs")
    done = cxrmine(*words, "--organs", base.organs, "--set", DROP)
    assert done.returncode == 0, done.stderr
    assert (
        done.stdout
        == summary(base.config(tmp_path / "b.parquet"), replace(tables.results["drop"], out=tmp_path / "b.parquet"))
        + "\n"
    )
    assert (tmp_path / "b.parquet").read_bytes() == (tables.folder / "drop.parquet").read_bytes()
