"""Boxes to learn from: the masks that a network is shown of them, which are used, and whose never are."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pytest

from cxrmine.boxes.regions import encode
from cxrmine.boxes.shards import read_boxes, shard_path
from cxrmine.boxes.table import SCHEMA, write_boxes
from cxrmine.data.datasets import open_dataset
from cxrmine.data.images import Geometry, fit_geometry
from cxrmine.data.index import BOX_SCHEMA, Index, in_share
from cxrmine.errors import CxrError
from cxrmine.recipe_files import load_recipe
from cxrmine.scoring.leakage import not_known
from cxrmine.stages.teaching import Lesson, Teaching, draw, makers
from cxrmine.stages.train import training_films
from cxrmine.tables import build

HAS, BOTH, HAS_NOT = (1, 0), (1, 1), (0, 0)  # of Mass and Nodule
Row = dict[str, Any]


def films(*rows: tuple[str, str, tuple[int, int]]) -> Index:
    """Rows of (split, patient, labels): 00.png, 01.png, …; a split that ends in + has a truth box of Mass."""
    names = [f"{i:02}.png" for i in range(len(rows))]
    boxed = [split.endswith("+") for split, _, _ in rows]
    labels = [pa.array([row[2][c] for row in rows], pa.int8()) for c in (0, 1)]
    table = pa.table(
        {
            "image_id": names,
            "path": pa.nulls(len(rows), pa.string()),
            "split": [split.rstrip("+") for split, _, _ in rows],
            "patient_id": [patient for _, patient, _ in rows],
            "view": pa.nulls(len(rows), pa.string()),
            "labels": pa.StructArray.from_arrays(labels, names=["Mass", "Nodule"]),
            "boxed": boxed,
        }
    )
    place = (1.0, 1.0, 3.0, 3.0)
    boxes = [
        dict(zip(BOX_SCHEMA.names, (n, "Mass", *place, None), strict=True))
        for n, b in zip(names, boxed, strict=True)
        if b
    ]
    return Index(Path("d"), "made up", ("Mass", "Nodule"), table, pa.Table.from_pylist(boxes, BOX_SCHEMA))


def box(image: int, finding: str = "Mass", **more: Any) -> Row:
    place = {"x_min": 1.0, "y_min": 1.0, "x_max": 3.0, "y_max": 3.0}
    return {"image_id": f"{image:02}.png", "finding": finding, "rank": 1, "score": 0.9, "source": "cam"} | place | more


def write(path: Path, *rows: Row) -> Path:
    write_boxes(path, build(SCHEMA, rows), {})
    return path


def taught(index: Index, source: object, *keys: str) -> Teaching:
    _, teaching = training_films(index, load_recipe("demo-ham", [f"boxes.source={source}", *keys]))
    assert teaching is not None
    return teaching


def whose(teaching: Teaching) -> list[str]:
    return sorted({lesson.image_id for lesson in teaching.lessons.values()})


# --- masks


def drawn(boxes: Sequence[Sequence[float]], frame: Geometry, regions: Sequence[Any] | None = None) -> list[str]:
    """A mask row by row: # inside."""
    mask = np.zeros((frame.size, frame.size), np.uint8)
    corners = np.array(boxes, np.float64)
    draw(Lesson("a", corners, list(regions or [None] * len(corners)), None), frame, mask)
    return ["".join(".#"[value] for value in row) for row in mask]


def test_a_mask_lies_where_the_box_is_on_the_input() -> None:
    wide, low = fit_geometry(4, 2, 4, "stretch"), fit_geometry(4, 2, 4, "pad")  # a film of 4 × 2, an input of 4 × 4
    assert drawn([(1, 0, 3, 1)], wide) == [".##.", ".##.", "....", "...."]
    assert drawn([(1, 0, 3, 1)], low) == ["....", ".##.", "....", "...."]
    assert drawn([(0, 0, 1, 1), (2, 1, 4, 2)], low) == ["....", "#...", "..##", "...."]
    large = fit_geometry(400, 800, 4, "stretch")
    assert drawn([(130, 20, 270, 180)], large) == [".##.", "....", "....", "...."]  # 1.3 to 2.7, 0.1 to 0.9
    assert drawn([(160, 20, 270, 380)], large) == ["..#.", "..#.", "....", "...."]  # it covers 0.4 of column 1


def test_a_box_smaller_than_a_pixel_takes_one() -> None:
    large = fit_geometry(400, 400, 4, "stretch")
    assert drawn([(110, 210, 120, 220)], large) == ["....", "....", ".#..", "...."]
    assert drawn([(395, 395, 400, 400)], large) == ["....", "....", "....", "...#"]  # its edges round to 4


def test_what_lies_beyond_the_input_is_cut_off() -> None:
    """A film of 72, an input of 32 out of 36, so halves, and 2 pixels less on each side."""
    frame = fit_geometry(72, 72, 32, "crop")

    def places(*corners: Sequence[float]) -> list[tuple[int, int]]:
        return [(x, y) for y, row in enumerate(drawn(corners, frame)) for x, value in enumerate(row) if value == "#"]

    assert places((0, 0, 8, 6)) == [(0, 0), (1, 0)]  # -2 to 2 across, -2 to 1 down
    assert places((64, 66, 72, 72)) == [(30, 31), (31, 31)]
    for outside in ((0, 0, 4, 72), (0, 0, 72, 4), (68, 0, 72, 72), (0, 68, 72, 72), (0, 30, 2, 40)):
        assert places(outside) == []
    assert places((30, 0, 34, 4), (20, 20, 22, 22)) == [(8, 8)]


def test_a_region_is_shown_in_place_of_its_box() -> None:
    frame = fit_geometry(8, 8, 4, "stretch")
    region = np.zeros((4, 4), bool)
    region[1, 1:4] = True
    boxes = [(0, 0, 8, 4), (0, 6, 2, 8)]
    assert drawn(boxes, frame, [(encode(region), 4, 4), None]) == ["....", ".###", "....", "#..."]


def test_boxes_of_another_film_are_refused() -> None:
    frame, mask = fit_geometry(8, 6, 4, "stretch"), np.zeros((4, 4), np.uint8)
    corners = np.array([[1.0, 1, 3, 3]])
    draw(Lesson("a", corners, [None], (8, 6)), frame, mask)
    with pytest.raises(CxrError, match="boxes of a are for a film of 6 × 8 pixels, and it has 8 × 6"):
        draw(Lesson("a", corners, [None], (6, 8)), frame, mask)
    for outside in ([1.0, 1, 8.1, 3], [1.0, 1, 3, 6.1], [-0.1, 1, 3, 3]):
        with pytest.raises(CxrError, match="A box of a lies outside its film of 8 × 6 pixels"):
            draw(Lesson("a", np.array([outside]), [None], None), frame, mask)
    draw(Lesson("a", np.array([[-0.001, 0, 8.001, 6.001]]), [None], None), frame, mask)  # rounding
    assert mask.all()


def test_the_masks_of_a_batch_say_whose_they_are(tmp_path: Path) -> None:
    index = films(("train", "a", BOTH), ("train", "b", HAS_NOT), ("train", "c", HAS))
    low: Row = {"y_min": 3.0, "y_max": 4.0}
    path = write(tmp_path / "b.parquet", box(0), box(0, "Nodule", **low), box(2), box(2, rank=2, **low))
    teaching, frame = taught(index, path, "boxes.ranks=[1, 2]"), fit_geometry(4, 4, 4, "stretch")
    masks, of = teaching.masks(np.array([2, 1, 0]), [frame] * 3)
    assert of.tolist() == [[0, 0], [2, 0], [2, 1]]
    assert masks.dtype == np.uint8
    assert masks.sum((1, 2)).tolist() == [6, 4, 2]
    masks, of = teaching.masks(np.array([1]), [frame])
    assert (masks.shape, of.shape) == ((0, 4, 4), (0, 2))


def test_regions_are_learned_where_the_recipe_says_so(tmp_path: Path) -> None:
    region = np.eye(32, dtype=bool)
    row = box(0, region=encode(region), region_height=32, region_width=32, image_width=4, image_height=4)
    path, frame = write(tmp_path / "b.parquet", row, box(1)), fit_geometry(4, 4, 32, "stretch")
    index = films(("train", "a", HAS), ("train", "b", HAS))
    learned = taught(index, path, "boxes.masks=regions", "data.size=32")
    masks, _ = learned.masks(np.array([0, 1]), [frame] * 2)
    square = np.zeros((32, 32))
    square[8:24, 8:24] = 1
    assert masks.tolist() == [region.tolist(), square.tolist()]
    masks, _ = taught(index, path).masks(np.array([0, 1]), [frame] * 2)
    assert masks.tolist() == [square.tolist()] * 2
    with pytest.raises(CxrError, match=r"for an input of 32 × 32 pixels.*boxes\.masks = boxes, or data\.size = 32"):
        taught(index, path, "boxes.masks=regions", "data.size=64")


# --- which boxes are used


def test_every_box_that_is_not_used_is_counted_with_its_first_reason(tmp_path: Path) -> None:
    names = [str(i) for i in range(99)]
    far = next(p for p in names if not in_share("trained", p, 0.9) and in_share("annotated", p, 0.5))
    here = [p for p in names if in_share("trained", p, 0.9)]
    near, beyond = (next(p for p in here if in_share("annotated", p, 0.5) is known) for known in (True, False))
    index = films(
        ("train", near, HAS), ("train", beyond, HAS), ("train", far, HAS), ("val", "v", HAS), ("test", "t", HAS)
    )
    rows = [box(0, rank=rank, score=1 - rank / 10) for rank in range(1, 9)]  # 3, 4, 5, 8: other ranks; 6, 7: too low
    rows += [box(7), box(8, "Hernia"), box(9, score=0.1)]  # unknown, whatever else
    rows += [box(3), box(4, "Hernia"), box(4, rank=2)]
    rows += [box(2)]
    rows += [box(0, "Hernia", rank=rank) for rank in (1, 2)]
    rows += [box(0, "Nodule", score=0.1)]
    rows += [box(1), box(1, rank=2, score=0.1)]
    path = write(tmp_path / "b.parquet", *rows)
    keys = ("train.share=0.9", "boxes.annotated=0.5", "boxes.min_score=0.45", "boxes.ranks=[1, 2, 6, 7]")
    teaching = taught(index, path, *keys)
    assert teaching.notes == (
        "2 of 20 boxes teach 1 pairs; not used: 3 of images that the dataset does not have; "
        "3 of patients that validate or test; 1 of films that are not trained on; 2 of findings that are not learned; "
        "1 of findings that their film's label does not have; 4 of other ranks than boxes.ranks; "
        "3 with a score below 0.45; 1 of patients beyond boxes.annotated.",
    )
    assert teaching.table["rank"].to_pylist() == [1, 2]
    assert [len(lesson.boxes) for lesson in teaching.lessons.values()] == [2]


def test_of_truth_every_rank_is_used(tmp_path: Path) -> None:
    index = films(("train", "a", BOTH))
    of = (("Mass", "truth"), ("Nodule", "am/3"))
    path = write(tmp_path / "b.parquet", *[box(0, f, rank=rank, source=s) for f, s in of for rank in (1, 2, 3)])
    assert [len(lesson.boxes) for lesson in taught(index, path).lessons.values()] == [3, 1]
    assert [len(lesson.boxes) for lesson in taught(index, path, "boxes.ranks=[2, 3]").lessons.values()] == [3, 2]
    assert [len(lesson.boxes) for lesson in taught(index, path, "boxes.ranks=[]").lessons.values()] == [3, 3]


def test_a_larger_share_of_patients_has_the_smaller_one_and_is_of_whole_patients(tmp_path: Path) -> None:
    index = films(*[("train", f"p{i // 2}", HAS) for i in range(80)])
    path = write(tmp_path / "b.parquet", *map(box, range(80)))
    tenth, third, everyone = (set(whose(taught(index, path, f"boxes.annotated={share}"))) for share in (0.1, 0.3, 1.0))
    assert 0 < len(tenth) < len(third) < len(everyone) == 80
    assert tenth < third
    patients = [{f"{i:02}.png", f"{i + 1:02}.png"} for i in range(0, 80, 2)]
    assert all(len(share & patient) != 1 for share in (tenth, third) for patient in patients)


def test_not_one_box_is_an_error_that_says_why(tmp_path: Path) -> None:
    index = films(("train", "a", HAS), ("test", "t", HAS))
    path = write(tmp_path / "b.parquet", box(1), box(0, score=0.2))
    why = r"1 of patients that validate or test; 1 with a score below 0\.5\."
    with pytest.raises(CxrError, match=rf"Not one of the 2 boxes of \S+b\.parquet can be learned from: {why}"):
        taught(index, path, "boxes.min_score=0.5")
    with pytest.raises(CxrError, match=r"Not one of the 0 boxes of .* there are none"):
        taught(index, write(tmp_path / "none.parquet"))
    with pytest.raises(CxrError, match="d has no boxes"):
        taught(index, "dataset")
    with pytest.raises(CxrError, match="no boxes table at nowhere"):
        taught(index, "nowhere")


# --- where they come from


def test_boxes_come_as_parquet_csv_or_shards(dataset: Path, tmp_path: Path) -> None:
    index, truth = open_dataset(dataset), read_boxes(dataset / "truth.parquet").table
    whole = taught(index, dataset / "truth.parquet")
    assert len(whole.table) == 96
    words, numbers = ["image_id", "finding", "source"], ["rank", "x_min", "y_min", "x_max", "y_max"]
    columns = {n: truth[n].cast(pa.string()) for n in words} | {n: truth[n] for n in numbers}
    pa.csv.write_csv(pa.table(columns), tmp_path / "b.csv")
    (tmp_path / "shards").mkdir()
    for i, part in ((1, truth.slice(0, 70)), (2, truth.slice(70))):
        write_boxes(shard_path(tmp_path / "shards" / "b.parquet", i, 2), part, {"shard": [i, 2]})
    for source in ("b.csv", "shards", "shards/*.parquet"):
        other = taught(index, tmp_path / source)
        assert other.notes == whole.notes
        assert other.table.select(list(columns)).to_pylist() == whole.table.select(list(columns)).to_pylist()
        assert other.sha256 != whole.sha256
    assert taught(index, tmp_path / "shards").sha256 == taught(index, tmp_path / "shards/*.parquet").sha256


def test_boxes_come_from_the_dataset_or_in_the_form_of_its_own_list(dataset: Path, tmp_path: Path) -> None:
    """All listed boxes are of test films, which the list of names lets join."""
    index, listed = open_dataset(dataset), tmp_path / "listed.txt"
    listed.write_text("\n".join(sorted(set(index.boxes["image_id"].to_pylist()))))
    found = []
    for source in ("dataset", dataset / "BBox_List_2017.csv"):
        with pytest.raises(CxrError, match=r"Not one of the 21 boxes .*: 21 of patients that validate or test"):
            taught(index, source)
        teaching = taught(index, source, f"boxes.listed={listed}")
        assert teaching.notes[1].startswith("21 of 21 boxes teach ")
        found.append({pair: sorted(lesson.boxes.tolist()) for pair, lesson in teaching.lessons.items()})
    assert found[0] == found[1]
    assert sum(map(len, found[0].values())) == 21


# --- never of patients that validate or test


def in_training(index: Index) -> set[str]:
    """The films of patients all of whose films are in training."""
    table = index.table
    elsewhere = table.filter(pc.not_equal(table["split"], "train"))["patient_id"].combine_chunks()
    return set(table.filter(pc.invert(pc.is_in(table["patient_id"], value_set=elsewhere)))["image_id"].to_pylist())


@pytest.mark.parametrize("keys", [(), ('train.include=["boxed"]',), ("train.share=0.5",)])
def test_planted_boxes_of_other_splits_do_not_teach(dataset: Path, tmp_path: Path, keys: tuple[str, ...]) -> None:
    """Neither as they are, nor where the table says that all are of train."""
    index, truth = open_dataset(dataset), read_boxes(dataset / "truth.parquet").table
    of_train = pa.array(["train"] * len(truth)).dictionary_encode()
    write_boxes(tmp_path / "forged.parquet", truth.set_column(truth.column_names.index("split"), "split", of_train), {})
    planted = set(truth["image_id"].to_pylist()) - in_training(index)
    assert len(planted) > 20
    for source in (dataset / "truth.parquet", tmp_path / "forged.parquet"):
        train, teaching = training_films(index, load_recipe("demo-ham", [f"boxes.source={source}", *keys]))
        assert teaching is not None
        assert not set(whose(teaching)) & planted
        assert not set(teaching.table["image_id"].to_pylist()) & planted
        assert any("44 of patients that validate or test" in note for note in teaching.notes)
        names = train.table["image_id"].to_pylist()
        assert all(names[row] == lesson.image_id for (row, _), lesson in teaching.lessons.items())
        assert ("test" in train.table["split"].to_pylist()) == ("boxed" in str(keys))  # those by their labels alone


def test_a_patient_with_a_film_in_another_split_does_not_teach(tmp_path: Path) -> None:
    index = films(
        ("train", "a", HAS), ("train", "b", HAS), ("test", "b", HAS), ("train", "c", HAS), ("val", "c", HAS_NOT)
    )
    path = write(tmp_path / "b.parquet", *map(box, range(4)))
    for keys in ((), ('train.include=["boxed"]',)):
        assert whose(taught(index, path, *keys)) == ["00.png"]
    together = replace(index, table=index.table.set_column(2, "split", pa.array(["train"] * 5)))
    assert len(whose(taught(together, path))) == 4


LISTED = films(
    ("train", "a", HAS),
    *(("test+", "b", HAS), ("test", "b", HAS_NOT)),  # joins, with both films
    *(("test+", "c", HAS), ("test+", "c", HAS)),  # has a boxed film that is not listed
    ("test+", "d", HAS),  # is not listed
    *(("val+", "e", HAS), ("test", "f", HAS_NOT)),  # validates; and one without a box
)


def test_who_is_listed_joins_training_whole(tmp_path: Path) -> None:
    listed = tmp_path / "listed.txt"
    listed.write_text("01.png\n03.png\n\n  06.png  \n07.png")
    path = write(tmp_path / "b.parquet", *map(box, range(8)))
    for source, images in (("dataset", ["01.png"]), (path, ["00.png", "01.png"])):
        recipe = load_recipe("demo-ham", [f"boxes.source={source}", f"boxes.listed={listed}"])
        train, teaching = training_films(LISTED, recipe)
        assert train.table["image_id"].to_pylist() == ["00.png", "01.png", "02.png", "07.png"]
        assert set(train.table["split"].to_pylist()) == {"train"}
        assert teaching is not None
        assert whose(teaching) == images
        assert teaching.notes[0] == (
            "2 patients of listed.txt join training; 2 listed films do not: their patients validate, or have boxed "
            "films that are not listed."
        )
    assert LISTED.table["split"].to_pylist().count("test") == 6  # the dataset itself is as it was


def test_a_list_that_cannot_be_followed_is_refused(tmp_path: Path) -> None:
    listed = tmp_path / "listed.txt"
    with pytest.raises(CxrError, match=r"boxes\.listed: there is no file \S+listed\.txt"):
        taught(LISTED, "dataset", f"boxes.listed={listed}")
    listed.write_text("01.png\n98.png\n99.png\n")
    with pytest.raises(CxrError, match=r"names 2 images that d does not have, for instance 98\.png"):
        taught(LISTED, "dataset", f"boxes.listed={listed}")
    listed.write_text("03.png\n06.png\n")  # neither may
    with pytest.raises(CxrError, match=r"Not one of the 5 boxes of dataset .* 5 of patients that validate or test"):
        taught(LISTED, "dataset", f"boxes.listed={listed}")


def test_boxes_for_a_film_of_another_size_are_refused_before_training(tmp_path: Path) -> None:
    index = films(("train", "a", HAS))
    sizes = {"width": pa.array([4], pa.int32()), "height": pa.array([4], pa.int32())}
    table = index.table
    for name, column in sizes.items():
        table = table.append_column(name, column)
    known = replace(index, table=table)
    same = write(tmp_path / "same.parquet", box(0, image_width=4, image_height=4))
    assert len(taught(known, same).lessons) == 1
    other = write(tmp_path / "other.parquet", box(0, image_width=8, image_height=4))
    assert len(taught(index, other).lessons) == 1, "nobody knows yet"
    with pytest.raises(CxrError, match="are for a film of 8 × 4 pixels, and it has 4 × 4"):
        taught(known, other)


def test_an_uncertain_label_is_present_where_the_recipe_takes_it_so(tmp_path: Path) -> None:
    index = films(("train", "a", (-1, 0)), ("train", "b", HAS))
    path = write(tmp_path / "b.parquet", box(0), box(1))
    assert set(taught(index, path).lessons) == {(1, 0)}
    assert set(taught(index, path, "data.uncertain=ones").lessons) == {(0, 0), (1, 0)}


def test_boxes_drawn_by_hand_are_used_whole(tmp_path: Path) -> None:
    """Without score and source a table is truth, and every box of a pair counts."""
    index = films(("train", "a", HAS))
    lines = ["image_id,finding,x_min,y_min,x_max,y_max", "00.png,Mass,0,0,1,1", "00.png,Mass,2,2,4,4"]
    path = tmp_path / "hand.csv"
    path.write_text("\n".join(lines) + "\n")
    assert len(taught(index, path).lessons[0, 0].boxes) == 2


def test_whose_networks_mined_the_boxes() -> None:
    """They count as known where they have seen nobody but the patients of the same dataset's training."""
    meta = {"weights_sha256": "b", "starts": ["a"], "trained_on": "x", "dataset": "x", "seen_others": False}
    made = {
        name: makers(Teaching({}, pa.table({}), "", {**meta, **more}, ()), "x")
        for name, more in {
            "ours": {},
            "by a network of another dataset": {"trained_on": "y"},
            "on another dataset": {"dataset": "y"},
            "by a network that has seen others": {"seen_others": True},
        }.items()
    }
    assert made.pop("ours") == ["b", "a"]
    assert set(made.values()) == {None}
    assert makers(Teaching({}, pa.table({}), "", {}, ()), "x") == [], "people drew them"


def test_a_list_that_has_changed_is_another_list(tmp_path: Path) -> None:
    index = films(("train", "a", HAS), ("test+", "b", HAS), ("test+", "c", HAS))
    source, listed = write(tmp_path / "b.parquet", box(0), box(1), box(2)), tmp_path / "fold.txt"
    sums = []
    for names in ("01.png\n", "01.png\n02.png\n"):
        listed.write_text(names)
        sums.append(taught(index, source, f"boxes.listed={listed}").sha256)
    assert sums[0] != sums[1] != taught(index, source).sha256 != sums[0]


def test_a_run_taught_by_a_stranger_does_not_say_whom_it_has_seen(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    for record, said in (("", []), ("strangers = true", [f"The run in {tmp_path} learned boxes that another network"])):
        (tmp_path / "recipe.toml").write_text(f"[provenance]\n{record}\n")
        found = not_known(tmp_path / "patients.parquet", [("hand", {})])
        assert [sentence[: len(said[0])] for sentence in found] == said
