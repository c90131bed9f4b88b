"""MaxBoxAccV2 and chosen cuts, from maps of a few cells that a person can cut, and from mined ones."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from skimage.measure import label

from cxrmine.boxes import regions
from cxrmine.boxes.door import read_truth
from cxrmine.boxes.maps import FINAL, MapsWriter, index_path, maps_path, read_maps
from cxrmine.boxes.table import BOX_ORDER, SCHEMA, read_meta, truth_table
from cxrmine.data.images import fit_geometry
from cxrmine.errors import CxrError, UsageError
from cxrmine.scoring.from_maps import IOU, THRESHOLDS, component_overlaps, grouped, maxboxacc2, open_maps
from cxrmine.scoring.tuning import GRID, best_cut, half, halves, tune
from cxrmine.stages.mine import Mine, run
from cxrmine.tables import COORDINATES, with_meta

FIRST, SECOND = ("2", "4", "7"), ("1", "3", "5")  # patients by half


def recipe(size: int = 8, stride: int = 1, **mine: object) -> dict:
    return {
        "data": {"size": size},
        "network": {"stride": stride, "backbone": "small-resnet"},
        "mine": {"align": "centres", "way": "components", "top": 3, **mine},
    }


def written(folder: Path, maps: list[tuple], meta: dict | None = None, fit: str = "stretch") -> Path:
    """Rows of (image, finding, map), or (image, finding, map, width, height); grays of 0 to 255 are kept exactly."""
    meta = meta or {"recipe": recipe()}
    folder.mkdir(exist_ok=True)
    with MapsWriter(maps_path(folder, 1, 1), meta) as writer:
        for image, finding, map_, *film in maps:
            width, height = film or (8, 8)
            geometry = fit_geometry(width, height, meta["recipe"]["data"]["size"], fit)
            lies = {name: getattr(geometry, name) for name in ("scale_x", "scale_y", "offset_x", "offset_y")}
            size = {"image_width": width, "image_height": height}
            writer.add(np.asarray(map_, np.float32) / 255, image_id=image, finding=finding, round=FINAL, **size, **lies)
            writer.add(np.ones_like(map_), image_id=image, finding=finding, round=1, **size, **lies)  # not to be read
    return folder


def truth_of(rows: list[tuple], **more: object) -> pa.Table:
    """Rows of (image, finding, box), or (image, finding, box, width, height)."""
    columns = {name: [row[i] for row in rows] for i, name in enumerate(("image_id", "finding"))}
    columns |= {name: [float(row[2][i]) for row in rows] for i, name in enumerate(COORDINATES)}
    columns |= {"image_width": [row[3] if len(row) > 3 else 8 for row in rows]}
    columns |= {"image_height": [row[4] if len(row) > 4 else 8 for row in rows]}
    return truth_table(columns | more)


def blocks(*of: tuple[int, int, int, int, int], side: int = 8) -> np.ndarray:
    """Rectangles (x, y, x, y, gray) on black."""
    map_ = np.zeros((side, side), np.uint8)
    for left, top, right, bottom, gray in of:
        map_[top:bottom, left:right] = gray
    return map_


def overlaps(folder: Path, truth: tuple, thresholds: tuple[float, ...]) -> list[float]:
    """The best IoU of the folder's first map at each threshold."""
    return component_overlaps(*open_maps(folder).at_input(0), np.array(thresholds), np.array([truth], float)).tolist()


def test_every_component_counts_whichever_is_larger(tmp_path):
    """The weaker, larger block is the truth. At 0 the film is one component; at 0.5 the block is gone."""
    folder = written(tmp_path, [("a", "Mass", blocks((1, 1, 3, 3, 255), (5, 5, 8, 8, 102)))])
    assert overlaps(folder, (5, 5, 8, 8), (0, 0.2, 0.5, 0.9)) == [9 / 64, 1, 0, 0]
    assert overlaps(folder, (0, 1, 3, 3), (0, 0.2, 0.5, 0.9)) == pytest.approx([6 / 64, 4 / 6, 4 / 6, 4 / 6])


def test_a_pixel_at_the_threshold_is_above_it(tmp_path):
    folder = written(tmp_path, [("a", "Mass", blocks((0, 0, 8, 2, 255), (0, 2, 8, 4, 51)))])
    assert overlaps(folder, (0, 0, 8, 4), (0.19, 0.2, 0.21)) == [1, 1, 0.5]


def test_components_join_at_corners_and_a_hole_is_none(tmp_path):
    folder = written(tmp_path, [("a", "Mass", blocks((0, 0, 2, 2, 255), (2, 2, 4, 4, 255)))])
    assert overlaps(folder, (0, 0, 4, 4), (0.5,)) == [1]
    ring = blocks((0, 0, 8, 8, 255), (1, 1, 7, 7, 0))
    assert overlaps(written(tmp_path, [("a", "Mass", ring)]), (1, 1, 7, 7), (0.5,)) == [36 / 64]
    inside = blocks((0, 0, 8, 8, 255), (1, 1, 7, 7, 0), (3, 3, 5, 5, 255))
    assert overlaps(written(tmp_path, [("a", "Mass", inside)]), (3, 3, 5, 5), (0.5,)) == [1]


def test_a_black_map_boxes_the_whole_film_at_0_and_nothing_above(tmp_path):
    assert overlaps(written(tmp_path, [("a", "Mass", blocks())]), (0, 0, 8, 4), (0, 0.01)) == [0.5, 0]


def test_only_the_film_counts_and_sets_the_scale(tmp_path):
    """A film of 8×4 in a padded square of 8: rows 2 to 5. The brightest cell lies on the padding."""
    map_ = blocks((0, 0, 8, 1, 255), (0, 2, 4, 4, 100), (4, 2, 8, 6, 40))
    folder = written(tmp_path, [("a", "Mass", map_, 8, 4)], fit="pad")
    assert overlaps(folder, (0, 0, 8, 4), (0, 0.3, 0.4)) == [1, 1, 1]
    assert overlaps(folder, (0, 0, 4, 2), (0.3, 0.41, 1)) == [8 / 32, 1, 1]


def test_boxes_are_in_pixels_of_the_film(tmp_path):
    """Of 16×24 pixels on 8×8: 2 across and 3 down to a cell."""
    folder = written(tmp_path, [("a", "Mass", blocks((1, 2, 3, 4, 255)), 16, 24)])
    assert overlaps(folder, (2, 6, 6, 12), (0.5,)) == [1]


@pytest.mark.parametrize(("meta", "corner"), [({}, 4), ({"cell_offset": 2.0}, 6)])
def test_cells_lie_where_the_network_looked(tmp_path, meta, corner):
    map_ = blocks((1, 1, 2, 2, 255), side=4)
    folder = written(tmp_path, [("a", "Mass", map_, 16, 16)], {"recipe": recipe(16, 4), **meta})
    assert overlaps(folder, (corner, corner, corner + 1, corner + 1), (1.0,)) == [1]


def test_the_figures_by_hand(tmp_path):
    """Three pairs of Mass, one of them without a map, and one of Nodule.

    a: IoU 0.5 at cuts to 0.4, then 1. b: IoU 0.4 to 0.4, then 0.2. So at 0.3 both are hit low and at 0.7 one high.
    """
    a = ("a", "Mass", blocks((0, 0, 8, 8, 102), (0, 0, 8, 4, 255)))
    b = ("b", "Mass", blocks((0, 0, 5, 8, 102), (0, 0, 5, 4, 255)))
    folder = written(tmp_path, [a, b, ("c", "Nodule", blocks((0, 0, 8, 8, 255)))])
    truth = [("a", "Mass", (0, 0, 8, 4)), ("b", "Mass", (0, 0, 2, 8)), ("z", "Mass", (0, 0, 8, 8))]
    scores = maxboxacc2(folder, truth_of([*truth, ("c", "Nodule", (0, 0, 8, 8)), ("b", "Mass", (7, 7, 8, 8))]))
    mass = scores["findings"]["Mass"]
    assert mass["0.3"] == {"acc": pytest.approx(2 / 3), "threshold": 0.01}
    assert mass["0.5"] == {"acc": pytest.approx(1 / 3), "threshold": 0.0}
    assert mass["0.7"] == {"acc": pytest.approx(1 / 3), "threshold": 0.41}
    assert mass["maxboxacc2"] == pytest.approx(4 / 9)
    assert (mass["pairs"], mass["missing"]) == (3, 1)
    assert scores["findings"]["Nodule"]["maxboxacc2"] == 1
    assert scores["mean"] == pytest.approx(13 / 18)
    assert scores["all"]["0.7"] == {"acc": 0.5, "threshold": 0.41}
    assert scores["all"]["maxboxacc2"] == pytest.approx((3 / 4 + 2 / 4 + 2 / 4) / 3)
    assert (scores["all"]["pairs"], scores["all"]["missing"]) == (4, 1)
    assert scores["threshold_choice"] == "oracle"


def slow_overlaps(map_: np.ndarray, meta: dict, film: tuple[int, int], fit: str, truth: np.ndarray) -> np.ndarray:
    """The best IoU at each of THRESHOLDS[::4], from the definition: float64, one pixel and one box after another."""
    size, stride = meta["recipe"]["data"]["size"], meta["recipe"]["network"]["stride"]
    width, height = film
    long = max(film)
    inner = (
        (size, size) if fit == "stretch" else (max(1, round(width * size / long)), max(1, round(height * size / long)))
    )
    left, top = (size - inner[0]) // 2, (size - inner[1]) // 2
    pixel = np.arange(size)
    resize = meta["recipe"]["mine"]["align"] == "resize"
    place = (pixel + 0.5) / stride - 0.5 if resize else (pixel - meta.get("cell_offset", 0)) / stride
    cells = np.arange(len(map_))
    wide = np.stack([np.interp(place, cells, row) for row in map_.astype(float)])
    at_input = np.stack([np.interp(place, cells, column) for column in wide.T], axis=1)
    seen = at_input[top : top + inner[1], left : left + inner[0]]
    score = seen / seen.max() if seen.max() > 0 else seen
    best = []
    for threshold in THRESHOLDS[::4]:
        named, most = label(score >= threshold, connectivity=2, return_num=True)
        found = [0.0]
        for k in range(1, most + 1):
            y, x = np.nonzero(named == k)
            across, down = width / inner[0], height / inner[1]
            box = (x.min() * across, y.min() * down, (x.max() + 1) * across, (y.max() + 1) * down)
            for drawn in truth:
                w = min(box[2], drawn[2]) - max(box[0], drawn[0])
                h = min(box[3], drawn[3]) - max(box[1], drawn[1])
                shared = max(w, 0) * max(h, 0)
                areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, drawn)]
                found.append(shared / (sum(areas) - shared))
        best.append(max(found))
    return np.array(best)


@pytest.mark.parametrize("align", ["centres", "resize"])
@pytest.mark.parametrize("fit", ["stretch", "pad"])
def test_as_the_slow_way_from_the_paper(tmp_path, align, fit):
    """256 maps of 12×12 brought to 24×24, each with one or two truth boxes, on films of many shapes."""
    chance = np.random.default_rng(len(align + fit))
    meta = {"recipe": recipe(24, 2, align=align), "cell_offset": 1.0}
    films = chance.integers(20, 90, (256, 2)).tolist()
    maps = [np.maximum(chance.integers(-200, 256, (12, 12)), 0) for _ in films]
    for map_ in maps[::2]:  # some with a few large blocks
        map_[:] = np.kron(map_[:4, :4], np.ones((3, 3), int))
    maps[5][:] = 0
    rows = [(f"{i:03}", "AB"[i % 2], map_, *film) for i, (map_, film) in enumerate(zip(maps, films, strict=True))]
    drawn = []
    for image, finding, _, *film in rows:
        for _ in range(chance.integers(1, 3)):
            low, high = np.sort(chance.random((2, 2)), axis=0)
            drawn.append((image, finding, (*(low * film), *(high * film)), *film))
    folder, truth = written(tmp_path, rows, meta, fit), truth_of(drawn)
    index, arrays = read_maps(folder)
    grays = dict(zip(index["image_id"].to_pylist()[::2], arrays[0][::2], strict=True))
    pairs, boxes = grouped(truth)
    images, findings = (pairs[name].to_pylist() for name in ("image_id", "finding"))
    slow = np.stack(
        [
            slow_overlaps(grays[image], meta, tuple(films[int(image)]), fit, own)
            for image, own in zip(images, boxes, strict=True)
        ]
    )
    opened = open_maps(folder)
    for i, row in enumerate(opened.rows(pairs)):
        quick = component_overlaps(*opened.at_input(row), np.array(THRESHOLDS[::4]), boxes[i])
        np.testing.assert_allclose(quick, slow[i], atol=1e-9)
    scores = maxboxacc2(folder, truth, THRESHOLDS[::4])
    for name, of in (("A", np.array(findings) == "A"), ("B", np.array(findings) == "B"), ("all", slice(None))):
        theirs = scores["all"] if name == "all" else scores["findings"][name]
        for delta in IOU:
            shares = [(slow[of][:, k] >= delta).mean() for k in range(slow.shape[1])]
            assert theirs[f"{delta:g}"] == {"acc": max(shares), "threshold": THRESHOLDS[4 * int(np.argmax(shares))]}
    assert 0 < scores["mean"] < 1


def test_the_threads_change_nothing(tmp_path):
    chance = np.random.default_rng(1)
    rows = [(f"{i:02}", "Mass", np.maximum(chance.integers(-300, 256, (8, 8)), 0)) for i in range(40)]
    folder, truth = written(tmp_path, rows), truth_of([(row[0], "Mass", (1, 1, 6, 5)) for row in rows])
    assert maxboxacc2(folder, truth, workers=1) == maxboxacc2(folder, truth, workers=4)


def test_best_cut_by_hand():
    grid = (0.2, 0.4, 0.6)
    assert best_cut(np.array([[0.2, 0.6, 0.5], [0.4, 0.6, 0.6]]), grid) == 0.4
    assert best_cut(np.array([[0.2, 0.1, 0.5], [0.4, 0.6, 0.2]]), grid) == 0.4  # means 0.3, 0.35, 0.35
    assert best_cut(np.array([[0.1, 0.2, 0.3], [0.2, 0.1, 0.0], [0.3, 0.3, 0.3]]), grid) == 0.2  # all 0.6: the lowest
    assert best_cut(np.zeros((1, 3)), grid) == 0.2


def test_the_halves_are_the_same_for_ever():
    assert [half(str(i)) for i in range(1, 13)] == [1, 0, 1, 0, 1, 1, 0, 1, 0, 0, 0, 0]
    assert abs(sum(half(f"patient {i}") for i in range(1000)) - 500) < 50
    drawn = truth_of([(i, "Mass", (0, 0, 1, 1)) for i in "abcd"], patient_id=["2", "1", None, "2"])
    first, second = halves(drawn)
    own = half("c")  # an image of an unknown patient stands for its own
    assert (len(first), len(second)) == (2 + (own == 0), 1 + (own == 1))
    assert set(first["image_id"].to_pylist()) >= {"a", "d"}


NEST = blocks((0, 0, 8, 8, 51), (1, 1, 7, 7, 128), (3, 3, 5, 5, 255))  # whole to 0.2, block to 0.5, core to 1
BLOCK, CORE = (1, 1, 7, 7), (3, 3, 5, 5)


def nested(tmp_path: Path, second: tuple = CORE, **mine: object) -> tuple[Path, list[tuple], list[str]]:
    """The same map for six patients: in the first half the truth is the block, in the other `second`."""
    names = [*FIRST, *SECOND]
    folder = written(tmp_path, [(f"i{n}", "Mass", NEST) for n in names], {"recipe": recipe(**mine)})
    return folder, [(f"i{n}", "Mass", BLOCK if n in FIRST else second) for n in names], names


def test_held_out_and_oracle_by_hand(tmp_path):
    """On the first half every cut from 0.25 to 0.5 is right, on the second every one above: the lowest is taken."""
    folder, rows, patients = nested(tmp_path)
    drawn = truth_of(rows, patient_id=patients)
    held, said = tune(folder, drawn)
    assert said == {
        "choice": "held-out",
        "objective": "mean IoU of the first box",
        "grid": list(GRID),
        "cuts": {"Mass": 0.25},
        "fallback": [],
        "picked_on": 3,
        "scored_on": 3,
        "without_map": 0,
        "patients": {"picked_on": 3, "scored_on": 3},
    }
    assert held.schema.equals(SCHEMA)
    assert held["image_id"].to_pylist() == ["i1", "i3", "i5"]
    row = held.to_pylist()[0]
    assert tuple(row[name] for name in COORDINATES) == BLOCK
    assert (row["rank"], row["patient_id"], row["image_width"], row["image_height"]) == (1, "1", 8, 8)
    assert row["threshold"] == 0.25
    assert row["score"] == pytest.approx((32 * 128 / 255 + 4) / 36)
    assert regions.decode(row["region"], row["region_height"], row["region_width"]).sum() == 36
    assert set(held["source"].to_pylist()) == {"held-out cuts"}
    oracle, said = tune(folder, drawn, "oracle")
    assert (said["cuts"], said["picked_on"], said["scored_on"]) == ({"Mass": 0.55}, 3, 3)
    assert tuple(oracle.to_pylist()[0][name] for name in COORDINATES) == CORE
    assert set(oracle["source"].to_pylist()) == {"oracle cuts"}


def test_held_out_never_reads_the_truth_it_is_scored_on(tmp_path):
    (folder, rows, patients), (_, others, _) = nested(tmp_path), nested(tmp_path, second=(0, 0, 8, 8))
    one, other = truth_of(rows, patient_id=patients), truth_of(others, patient_id=patients)
    held, said = tune(folder, one)
    again, said_again = tune(folder, other)
    assert said == said_again
    assert held.equals(again)
    assert tune(folder, one, "oracle")[1]["cuts"] != tune(folder, other, "oracle")[1]["cuts"]


def test_the_recipes_way_and_number_of_boxes_are_kept(tmp_path):
    """Two peaks; the way `peak` boxes the first one only, `components` both, and one where `top` is 1."""
    map_ = blocks((0, 0, 2, 2, 255), (4, 4, 8, 8, 204))
    rows = [(f"i{n}", "Mass", map_) for n in (FIRST[0], SECOND[0])]
    drawn = truth_of([(row[0], "Mass", (0, 0, 2, 2)) for row in rows], patient_id=[FIRST[0], SECOND[0]])
    for mine, boxes in (({"way": "peak"}, 1), ({}, 2), ({"top": 1}, 1)):
        table, _ = tune(written(tmp_path, rows, {"recipe": recipe(**mine)}), drawn)
        assert table["rank"].to_pylist() == list(range(1, boxes + 1))


def test_cuts_are_on_the_maps_own_scale(tmp_path):
    """A map whose brightest place is 0.6 has no box at 0.65: of cuts 0.3 and 0.65 only the lower finds anything."""
    weak = blocks((1, 1, 7, 7, 153))
    rows = [(f"i{n}", "Mass", weak) for n in (FIRST[0], SECOND[0])]
    drawn = truth_of([(row[0], "Mass", BLOCK) for row in rows], patient_id=[FIRST[0], SECOND[0]])
    table, said = tune(written(tmp_path, rows), drawn, grid=(0.65, 0.3))
    assert said["cuts"] == {"Mass": 0.3}
    assert table["score"].to_pylist() == [pytest.approx(0.6)]
    table, _ = tune(tmp_path, drawn, grid=(0.65,))
    assert len(table) == 0
    assert table.schema.equals(SCHEMA)


def test_a_finding_that_the_first_half_lacks_gets_the_best_cut_of_the_others(tmp_path):
    """The mean of the findings decides, not that of the pairs: of two pairs of Mass and one of Nodule.

    Whole, block and core. Mass, whose truth lacks the block's last row: 30/64, 30/36, 4/30. Nodule: 4/64, 4/36, 1. The
    findings' mean is 0.27, 0.47, 0.57; that of the pairs 0.33, 0.59, 0.42.
    """
    one, two, new, most = FIRST[0], FIRST[1], SECOND[0], (1, 1, 7, 6)
    found = [(one, "Mass", most), (one, "Nodule", CORE), (two, "Mass", most), (new, "Effusion", CORE)]
    maps = [(f"i{n}", finding, NEST) for n, finding, _ in found]
    drawn = [(f"i{n}", finding, box) for n, finding, box in found]
    drawn += [(f"i{new}", "Mass", BLOCK), (f"i{new}", "Nodule", CORE)]
    patients = [n for n, _, _ in found] + [new, new]
    table, said = tune(written(tmp_path, maps), truth_of(drawn, patient_id=patients))
    assert said["cuts"] == {"Effusion": 0.55, "Mass": 0.25, "Nodule": 0.55}
    assert said["fallback"] == ["Effusion"]
    assert (said["picked_on"], said["scored_on"], said["without_map"]) == (3, 3, 2)
    assert table["finding"].to_pylist() == ["Effusion"]


def test_nothing_is_cut_beside_the_film(tmp_path):
    """Films of 8×4 in a padded square, rows 2 to 5, with a bright row on the padding above."""
    map_ = blocks((0, 0, 8, 2, 255), (0, 2, 4, 4, 128))
    rows = [(f"i{n}", "Mass", map_, 8, 4) for n in (FIRST[0], SECOND[0])]
    drawn = truth_of([(row[0], "Mass", (0, 0, 4, 2), 8, 4) for row in rows], patient_id=[FIRST[0], SECOND[0]])
    table, _ = tune(written(tmp_path, rows, fit="pad"), drawn, grid=(0.4,))
    assert [tuple(row[name] for name in COORDINATES) for row in table.to_pylist()] == [(0, 0, 4, 2)]
    assert table["score"].to_pylist() == [pytest.approx(128 / 255)]


def test_what_cannot_be_is_refused(tmp_path):
    folder, rows, patients = nested(tmp_path)
    drawn = truth_of(rows, patient_id=patients)
    with pytest.raises(UsageError, match=r"named 'heldout'.*Did you mean held-out\? It is held-out or oracle"):
        tune(folder, drawn, "heldout")  # type: ignore[arg-type]
    with pytest.raises(CxrError, match="All 1 patients with truth fall into one half"):
        tune(folder, truth_of(rows, patient_id=["7"] * 6))
    other = truth_of([(*row, 16, 8) for row in rows], patient_id=patients)
    with pytest.raises(CxrError, match=r"of another size than the truth's: i1 has image_width 8 in .* and 16 in the"):
        maxboxacc2(folder, other)
    with pytest.raises(CxrError, match="None of the 1 pairs that have truth has a map"):
        maxboxacc2(folder, truth_of([("i1", "Nodule", BLOCK)]))
    with pytest.raises(CxrError, match="two final maps of one pair"):
        maxboxacc2(written(folder, [("a", "Mass", NEST)] * 2), truth_of([("a", "Mass", BLOCK)]))
    with pytest.raises(CxrError, match="None of the 1 pairs"):
        maxboxacc2(written(folder, []), truth_of([("a", "Mass", BLOCK)]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"recipe": {}}, "do not say how boxes are made"),
        ({}, "do not say how boxes are made"),
        ({"network": {"stride": 1, "backbone": "densenet121"}}, "where the cells of densenet121 lie"),
    ],
)
def test_maps_that_do_not_say_enough_are_refused(tmp_path, change, said):
    folder = written(tmp_path, [("a", "Mass", NEST)])
    path = index_path(maps_path(folder, 1, 1))
    if "network" in change:
        change = {"recipe": recipe() | change}
    table = pq.ParquetFile(path).read()
    pq.write_table(table.cast(with_meta(table.schema, change)), path)
    with pytest.raises(CxrError, match=said):
        maxboxacc2(folder, truth_of([("a", "Mass", BLOCK)]))


@pytest.fixture(scope="module")
def mined(dataset: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, pa.Table]:
    """(boxes, maps, truth) of the phantom's films."""
    folder = tmp_path_factory.mktemp("mined")
    config = Mine(trained, dataset, folder / "b.parquet", split="boxed", maps=folder / "maps", device="cpu", workers=1)
    run(config)
    return config.out, folder / "maps", read_truth(dataset / "truth.parquet")


def test_maps_give_the_boxes_that_were_mined(mined: tuple[Path, Path, pa.Table]) -> None:
    """With the recipe's own cut as the only one; the map has 256 levels, so an edge may lie a pixel off."""
    out, folder, truth = mined
    assert read_meta(out)["recipe"]["mine"]["way"] == "components"
    boxes = pq.ParquetFile(out).read()
    truth = truth.filter(
        pc.is_in(truth["image_id"].cast(pa.string()), value_set=pc.unique(boxes["image_id"]).cast(pa.string()))
    )
    cut, said = tune(folder, truth, grid=(0.3,))
    assert said["without_map"] == 0
    keys = [list(zip(*(t[name].to_pylist() for name in BOX_ORDER), strict=True)) for t in (boxes, cut)]
    places = [np.stack([t[name].to_numpy() for name in COORDINATES], axis=1) for t in (boxes, cut)]
    original = dict(zip(keys[0], places[0], strict=True))
    moved = [
        np.abs(original[key] - place).max() for key, place in zip(keys[1], places[1], strict=True) if key in original
    ]
    assert len(moved) >= 0.98 * len(cut) > 10
    assert np.mean(np.array(moved) <= 1.5 + 1e-3) > 0.95  # a pixel of the input is 1.5 of the film


def test_mined_maps_have_figures(mined: tuple[Path, Path, pa.Table]) -> None:
    _, folder, truth = mined
    scores = maxboxacc2(folder, truth)
    assert 0 < scores["mean"] <= 1
    assert scores["all"]["0.3"]["acc"] >= scores["all"]["0.5"]["acc"] >= scores["all"]["0.7"]["acc"]
    assert sum(of["pairs"] for of in scores["findings"].values()) == scores["all"]["pairs"]
    held, said = tune(folder, truth)
    oracle, best = tune(folder, truth, "oracle")
    assert said["scored_on"] == best["scored_on"] == best["picked_on"]
    assert set(held["image_id"].to_pylist()) | set(oracle["image_id"].to_pylist()) <= set(
        halves(truth)[1]["image_id"].to_pylist()
    )
    assert set(said["cuts"]) == set(best["cuts"])
