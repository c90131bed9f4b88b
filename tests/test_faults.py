"""Each kind of fault, planted in a sound dataset, is found, named and counted; the real tables have their counts."""

import csv
import gzip
import io
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxrmine.stages.check import Check, CheckReport, run
from cxrmine.stages.look import oddity

SHARED = Path(__file__).parents[2] / "shared" / "data"
needs_real_files = pytest.mark.skipif(not SHARED.is_dir(), reason="the real tables and films are not on this machine")
SIDE = 64


def chest(seed: int, side: int = SIDE) -> np.ndarray:
    """Noise, darker to both sides of a bright spine."""
    pixels = np.random.default_rng(seed).integers(60, 100, (side, side), dtype=np.uint8)
    pixels[:, side * 3 // 8 : side * 5 // 8] += 100
    return pixels


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


@dataclass
class Dataset:
    """Twenty films of as many patients, sixteen for training; film 0 and 16 have a Mass and its box."""

    films: dict[str, bytes] = field(default_factory=lambda: {f"{i:02}.png": png(chest(i)) for i in range(20)})
    rows: list[list[str]] = field(
        default_factory=lambda: [
            [f"{i:02}.png", "No Finding" if i % 16 else "Mass", "0", str(i), "PA"] for i in range(20)
        ]
    )
    boxes: list[str] = field(default_factory=lambda: ["00.png,Mass,10,10,20,20", "16.png,Mass,5,5,8,30"])
    train: list[str] = field(default_factory=lambda: [f"{i:02}.png" for i in range(16)])
    test: list[str] = field(default_factory=lambda: [f"{i:02}.png" for i in range(16, 20)])

    def write(self, root: Path) -> Path:
        (root / "images").mkdir(parents=True)
        for name, content in self.films.items():
            (root / "images" / name).write_bytes(content)
        text = io.StringIO()
        csv.writer(text).writerows(
            [["Image Index", "Finding Labels", "Follow-up #", "Patient ID", "View Position"], *self.rows]
        )
        (root / "Data_Entry_2017.csv").write_text(text.getvalue())
        (root / "BBox_List_2017.csv").write_text(
            "\n".join(["Image Index,Finding Label,Bbox [x,y,w,h],,,", *self.boxes])
        )
        (root / "train_val_list.txt").write_text("\n".join(self.train))
        (root / "test_list.txt").write_text("\n".join(self.test))
        return root


Plant = Callable[[Dataset], None]


def missing(d: Dataset) -> None:
    del d.films["03.png"]


def cut_off(d: Dataset) -> None:
    d.films["03.png"] = d.films["03.png"][:-30]


def another_size(d: Dataset) -> None:
    d.films["03.png"] = png(chest(3, 32))


def another_size_with_boxes(d: Dataset) -> None:
    d.films["16.png"] = png(chest(16, 48))


def the_same_film(d: Dataset) -> None:
    d.films["04.png"] = d.films["03.png"]


def the_same_film_in_two_splits(d: Dataset) -> None:
    d.films["18.png"] = png(chest(3))


def without_label(d: Dataset) -> None:
    d.films["stranger.png"] = png(chest(99))


def patient_twice(d: Dataset) -> None:
    d.rows[17][3] = "3"


def row_twice(d: Dataset) -> None:
    d.rows.append(d.rows[3])


def no_patient(d: Dataset) -> None:
    d.rows[3][3] = ""
    del d.films["03.png"]


def leads_out(d: Dataset) -> None:
    d.rows.append(["../../03.png", "Mass", "0", "77", "PA"])


def in_no_list(d: Dataset) -> None:
    d.train.remove("03.png")


def box_beyond(d: Dataset) -> None:
    d.boxes[1] = "16.png,Mass,40,40,30,10"


def box_before(d: Dataset) -> None:
    d.boxes[1] = "16.png,Mass,-4,4,30,10"


def box_flat(d: Dataset) -> None:
    d.boxes[1] = "16.png,Mass,4,4,0,10"


def box_twice(d: Dataset) -> None:
    d.boxes.append(d.boxes[1])


def box_of_nobody(d: Dataset) -> None:
    d.boxes.append("99.png,Mass,4,4,10,10")


def box_of_another_word(d: Dataset) -> None:
    d.boxes.append("16.png,Masss,4,4,10,10")


def box_without_label(d: Dataset) -> None:
    d.boxes.append("17.png,Mass,4,4,10,10")


def black(d: Dataset) -> None:
    film = np.zeros((SIDE, SIDE), np.uint8)
    film[0, 0] = 200
    d.films["03.png"] = png(film)


def constant(d: Dataset) -> None:
    d.films["03.png"] = png(np.full((SIDE, SIDE), 90, np.uint8))


def inverted(d: Dataset) -> None:
    d.films["03.png"] = png(255 - chest(3))


PLANTS: list[tuple[Plant, str, str, str]] = [
    (missing, "no file for this image", "error", "03.png"),
    (cut_off, "unreadable image: cut off before its end", "error", "images/03.png"),
    (another_size, "image of another size than nearly all, 64×64", "warning", "03.png 32×32"),
    (another_size_with_boxes, "image with boxes of another size than nearly all, 64×64", "error", "16.png 48×48"),
    (the_same_film, "same pixels under two names", "warning", "03.png = 04.png"),
    (the_same_film_in_two_splits, "same pixels in two splits", "error", "03.png = 18.png"),
    (without_label, "file without a row", "warning", "images/stranger.png"),
    (patient_twice, "patient in two splits", "error", "3"),
    (row_twice, "second row of an image", "error", "03.png"),
    (no_patient, "no patient", "error", "03.png"),
    (leads_out, "unsafe image name", "error", "'../../03.png'"),
    (in_no_list, "in neither split list", "warning", "03.png"),
    (box_beyond, "box outside the image", "error", "16.png Mass 40.0,40.0..70.0,50.0"),
    (box_before, "box negative", "error", "16.png Mass -4.0,4.0..26.0,14.0"),
    (box_flat, "box without an area", "error", "row 2: 16.png Mass 4,4,4,14"),
    (box_twice, "box duplicated", "warning", "16.png Mass 5.0,5.0..13.0,35.0"),
    (box_of_nobody, "box of an image without a row", "error", "row 3: 99.png Mass 4,4,14,14"),
    (box_of_another_word, "box of a finding that no image is labelled with", "error", "row 3: 16.png Masss 4,4,14,14"),
    (box_without_label, "box of a finding that its image is not labelled with", "error",
     "17.png Mass 4.0,4.0..14.0,14.0"),
    (black, "black image: hardly a pixel above black", "warning", "images/03.png"),
    (constant, "constant image: one gray value", "warning", "images/03.png"),
    (inverted, "image that looks inverted: the spine is darker than both lungs", "warning", "images/03.png"),
]  # fmt: skip


def test_a_sound_dataset_has_no_fault(tmp_path: Path) -> None:
    assert run(Check(Dataset().write(tmp_path / "d"), strict=True)).faults == ()


@pytest.mark.parametrize(("plant", "kind", "level", "example"), PLANTS, ids=[plant[0].__name__ for plant in PLANTS])
def test_a_planted_fault_is_found_and_is_the_only_one(
    tmp_path: Path, plant: Plant, kind: str, level: str, example: str
) -> None:
    dataset = Dataset()
    plant(dataset)
    report = run(Check(dataset.write(tmp_path / "d")))
    assert [(fault.kind, fault.level, fault.count, fault.examples) for fault in report.faults] == [
        (kind, level, 1, (example,))
    ]
    assert report.ok == (level == "warning")


def test_several_processes_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cxrmine.stages import look

    dataset = Dataset()
    for plant in (cut_off, without_label, another_size, the_same_film_in_two_splits, box_twice):
        plant(dataset)
    root = dataset.write(tmp_path / "d")
    one = run(Check(root, workers=1))
    monkeypatch.setattr(look, "FEW", 0)
    monkeypatch.setattr(look, "PORTION", 3)
    two = run(Check(root, workers=2))
    assert two.document == one.document


@pytest.mark.parametrize("fast", [True, False])
def test_films_in_an_archive_are_looked_at_where_they_lie(tmp_path: Path, fast: bool) -> None:
    """A box beyond its film is found in a .zip as in a folder; with --fast, from the header alone."""
    dataset = Dataset()
    box_beyond(dataset)
    root = dataset.write(tmp_path / "d")
    shutil.make_archive(str(root / "images_01"), "zip", root, "images")
    shutil.rmtree(root / "images")
    report = run(Check(root, fast=fast))
    assert [(fault.kind, fault.count) for fault in report.faults] == [("box outside the image", 1)]


def test_real_and_made_up_films_do_not_look_inverted(dataset: Path) -> None:
    """And their negatives do, but for a film whose lungs are as white as its spine."""
    films = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in sorted((dataset / "images").iterdir())]
    assert not [film for film in films if oddity(film)]
    assert np.mean([bool(oddity(255 - film)) for film in films]) > 0.9


@needs_real_files
def test_the_real_films(tmp_path: Path) -> None:
    seen = [oddity(film) for film in _real_films()]
    assert seen == [""] * 6
    assert sum(bool(oddity(255 - film)) for film in _real_films()) >= 4


def _real_films() -> Iterator[np.ndarray]:
    for path in sorted((SHARED / "images").glob("*.png")):
        yield cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """NIH's own tables and the five films of them that are here."""
    root = tmp_path_factory.mktemp("nih")
    for name in ("Data_Entry_2017_v2020.csv.gz", "train_val_list.txt.gz", "test_list.txt.gz", "BBox_List_2017.csv"):
        shutil.copy(SHARED / "nih" / name, root)
    (root / "images").mkdir()
    for path in (SHARED / "images").glob("*.png"):
        if "512px" not in path.name:
            shutil.copy(path, root / "images")
    return root


@needs_real_files
def test_the_counts_of_the_real_tables(real: Path) -> None:
    report = run(Check(real))
    document = report.document
    assert document["images"] == {**document["images"], "test": 25_596, "all": 112_120}
    assert document["images"]["train"] + document["images"]["val"] == 86_524
    assert document["patients"]["all"] == 30_805
    assert document["patients"]["test"] == 2_797
    assert document["boxes"] == {"boxes": 984, "images": 880}
    assert document["views"] == {"PA": 67_310, "AP": 44_810}
    assert document["sizes"] == {"1024x1024": 5}
    finding = document["findings"]["Infiltration"]
    assert sum(finding[split] for split in ("train", "val", "test")) == 19_894
    assert (finding["boxes"], finding["boxed_images"]) == (123, 123)
    assert [(fault.kind, fault.count) for fault in report.faults] == [("no file for this image", 112_115)]


@needs_real_files
def test_the_real_films_with_the_rows_they_have(real: Path, tmp_path: Path) -> None:
    root = tmp_path / "d"
    shutil.copytree(real, root)
    here = {path.name for path in (root / "images").iterdir()}
    lines = gzip.decompress((root / "Data_Entry_2017_v2020.csv.gz").read_bytes()).decode().splitlines()
    (root / "Data_Entry_2017_v2020.csv.gz").unlink()
    rows = [lines[0], *(line for line in lines[1:] if line.split(",")[0] in here)]
    (root / "Data_Entry_2017_v2020.csv").write_text("\n".join(rows) + "\n")
    boxes = (root / "BBox_List_2017.csv").read_text().splitlines()
    (root / "BBox_List_2017.csv").write_text("\n".join([boxes[0], *(b for b in boxes[1:] if b.split(",")[0] in here)]))
    report = run(Check(root, strict=True))
    assert report.faults == ()
    assert report.document["images"]["all"] == 5
    assert report.document["boxes"] == {"boxes": 4, "images": 3}
    shutil.copy(SHARED / "images" / "00000001_000_512px.png", root / "images" / "00000001_000.png")
    report = run(Check(root))
    assert _kinds(report) == []  # one of five: no size is that of nearly all
    assert json.loads(json.dumps(report.document))["sizes"] == {"1024x1024": 4, "512x512": 1}


def _kinds(report: CheckReport) -> list[str]:
    return [fault.kind for fault in report.faults]
