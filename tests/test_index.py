"""The index of ChestX-ray14: the published counts from the real files, and every trap in a miniature dataset."""

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxrmine.data.datasets import open_dataset
from cxrmine.data.index import UNMENTIONED, Dropped, Index, corners, is_validation, split_by_patient
from cxrmine.errors import CxrError, UsageError

NIH = Path(__file__).parents[2] / "shared" / "data" / "nih"
REAL = ("Data_Entry_2017_v2020.csv.gz", "train_val_list.txt.gz", "test_list.txt.gz", "BBox_List_2017.csv")
needs_real_files = pytest.mark.skipif(not NIH.is_dir(), reason="the published NIH tables are not on this machine")
IMAGES = {
    "Atelectasis": 11559, "Cardiomegaly": 2776, "Consolidation": 4667, "Edema": 2303, "Effusion": 13317,
    "Emphysema": 2516, "Fibrosis": 1686, "Hernia": 227, "Infiltration": 19894, "Mass": 5782, "Nodule": 6331,
    "Pleural_Thickening": 3385, "Pneumonia": 1431, "Pneumothorax": 5302,
}  # fmt: skip
BOXES = {
    "Atelectasis": 180, "Cardiomegaly": 146, "Effusion": 153, "Infiltration": 123, "Mass": 85, "Nodule": 79,
    "Pneumonia": 120, "Pneumothorax": 98,
}  # fmt: skip
HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"


# --- the real files


@pytest.fixture(scope="module")
def nih(tmp_path_factory: pytest.TempPathFactory) -> Index:
    root = tmp_path_factory.mktemp("nih")
    for name in REAL:
        (root / name).symlink_to(NIH / name)
    return open_dataset(root)


@needs_real_files
def test_real_counts(nih: Index) -> None:
    table = nih.table
    assert len(nih) == 112_120
    assert len(set(table["patient_id"].to_pylist())) == 30_805
    assert len(nih.select("train,val")) == 86_524
    assert len(nih.select("test")) == 25_596
    assert len(nih.select("boxed")) == 880
    assert dict(zip(nih.findings, (nih.labels() == 1).sum(axis=0).tolist(), strict=True)) == IMAGES
    assert int((nih.labels() == 0).all(axis=1).sum()) == 60_361
    assert table["view"].to_pylist().count("PA") == 67_310
    assert nih.boxes.num_rows == 984
    assert {f: nih.boxes["finding"].to_pylist().count(f) for f in BOXES} == BOXES
    assert nih.dropped == ()
    assert table["path"].null_count == 112_120


@needs_real_files
def test_real_splits_are_by_patient(nih: Index) -> None:
    patients = {split: set(nih.select(split).table["patient_id"].to_pylist()) for split in ("train", "val", "test")}
    assert not patients["train"] & patients["val"]
    assert not (patients["train"] | patients["val"]) & patients["test"]
    assert len(patients["train"] | patients["val"]) == 28_008
    assert len(patients["test"]) == 2_797
    assert 0.09 < len(patients["val"]) / 28_008 < 0.11
    assert set(nih.select("boxed").table["split"].to_pylist()) == {"test"}


@needs_real_files
def test_every_real_box_is_labelled_and_inside(nih: Index) -> None:
    row = {image_id: i for i, image_id in enumerate(nih.table["image_id"].to_pylist())}
    labels = nih.labels()
    for image_id, finding in zip(nih.boxes["image_id"].to_pylist(), nih.boxes["finding"].to_pylist(), strict=True):
        assert labels[row[image_id], nih.findings.index(finding)] == 1
    boxes = corners(nih.boxes)
    assert (boxes >= 0).all()
    assert (boxes <= 1024).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()


@needs_real_files
def test_a_box_by_hand(nih: Index) -> None:
    """00013118_008.png,Atelectasis,225.084745762712,547.019216763771,86.7796610169491,79.1864406779661"""
    boxes = nih.boxes.filter(pa.compute.equal(nih.boxes["image_id"], "00013118_008.png"))
    box = corners(boxes)[boxes["finding"].to_pylist().index("Atelectasis")]
    assert box == pytest.approx([225.084745762712, 547.019216763771, 311.864406779661, 626.205657441737], abs=1e-9)


@needs_real_files
def test_both_box_lists_say_the_same(nih: Index, tmp_path: Path) -> None:
    for name in REAL[:3]:
        (tmp_path / name).symlink_to(NIH / name)
    (tmp_path / "BBox_List_2017.csv").symlink_to(NIH / "BBox_List_2017.variant.csv")
    other = open_dataset(tmp_path)
    assert other.boxes.select(["image_id", "finding"]) == nih.boxes.select(["image_id", "finding"])
    assert np.abs(corners(other.boxes) - corners(nih.boxes)).max() < 2e-7
    assert other.table == nih.table


# --- a miniature


def entry(image_id: str, labels: str, patient: str, view: str = "PA") -> str:
    return f"{image_id},{labels},0,{patient},50,M,{view},2682,2749,0.143,0.143"


ENTRIES = (
    entry("b.png", "Mass|Infiltration", "2", "AP"),
    entry("a.png", "Mass", "1"),
    entry("c.png", "No Finding", "3"),
    entry("d.png", "", "4"),
)
LISTED = ("b.png,Infiltrate,10.5,20,30,40", "a.png,Mass,0,0,8,8")


def dataset(root: Path, entries: tuple[str, ...] = ENTRIES, boxes: tuple[str, ...] = LISTED, **texts: str) -> Path:
    """A folder in ChestX-ray14's layout; `texts` are other files, with __ for the dot."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "Data_Entry_2017_v2020.csv").write_text("\n".join((HEADER, *entries)) + "\n")
    (root / "BBox_List_2017.csv").write_text("\n".join((BOX_HEADER, *boxes)) + "\n")
    for name, text in texts.items():
        (root / name.replace("__", ".")).write_text(text)
    return root


def reasons(index: Index) -> dict[str, int]:
    return {entry.reason: entry.count for entry in index.dropped}


def test_rows_are_sorted_and_labels_keep_silence_apart(tmp_path: Path) -> None:
    index = open_dataset(dataset(tmp_path))
    assert index.layout == "ChestX-ray14"
    assert index.findings == ("Infiltration", "Mass")
    assert index.table["image_id"].to_pylist() == ["a.png", "b.png", "c.png", "d.png"]
    assert index.table["view"].to_pylist() == ["PA", "AP", "PA", "PA"]
    assert index.labels().tolist() == [[0, 1], [1, 1], [0, 0], [UNMENTIONED, UNMENTIONED]]
    assert index.labels(["Mass"]).tolist() == [[1], [1], [0], [UNMENTIONED]]
    assert index.table["boxed"].to_pylist() == [True, True, False, False]
    assert index.boxes["finding"].to_pylist() == ["Mass", "Infiltration"]
    assert corners(index.boxes).tolist() == [[0, 0, 8, 8], [10.5, 20, 40.5, 60]]


def test_lists_without_a_last_newline_gzip_and_crlf(tmp_path: Path) -> None:
    root = dataset(tmp_path, test_list__txt="c.png\r\nb.png")
    (root / "train_val_list.txt.gz").write_bytes(gzip.compress(b"a.png\nd.png"))
    index = open_dataset(root)
    assert [s == "test" for s in index.table["split"].to_pylist()] == [False, True, True, False]
    assert any("official" in note for note in index.notes)
    assert index.dropped == ()


def test_an_image_in_neither_list_is_counted(tmp_path: Path) -> None:
    index = open_dataset(dataset(tmp_path, train_val_list__txt="a.png\nb.png", test_list__txt="c.png"))
    assert index.dropped == (Dropped("in neither split list", 1, ("d.png",)),)
    assert index.table["image_id"].to_pylist() == ["a.png", "b.png", "c.png"]


def test_an_image_in_both_lists_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CxrError, match=r"b\.png is in both train_val_list"):
        open_dataset(dataset(tmp_path, train_val_list__txt="a.png\nb.png", test_list__txt="b.png\nc.png"))


def test_one_list_alone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CxrError, match=r"test_list\.txt and not the other"):
        open_dataset(dataset(tmp_path, test_list__txt="b.png"))


def test_without_lists_the_split_is_by_patient(tmp_path: Path) -> None:
    entries = tuple(entry(f"{p:03}_{i}.png", "Mass", str(p)) for p in range(200) for i in range(2))
    index = open_dataset(dataset(tmp_path, entries, ()))
    splits: dict[str, set[str]] = {}
    for patient, split in zip(index.table["patient_id"].to_pylist(), index.table["split"].to_pylist(), strict=True):
        splits.setdefault(patient, set()).add(split)
    assert all(len(found) == 1 for found in splits.values())
    assert 20 < sum(found == {"test"} for found in splits.values()) < 60
    assert sum(found == {"val"} for found in splits.values()) > 5
    assert any("no official lists" in note for note in index.notes)


def test_the_draw_of_patients_never_changes() -> None:
    assert [p for p in range(60) if is_validation(str(p))] == VALIDATION_OF_60
    assert [p for p in range(30) if split_by_patient(str(p)) == "test"] == TEST_OF_30
    share = np.mean([is_validation(str(p)) for p in range(20_000)])
    assert share == pytest.approx(0.10, abs=0.01)


VALIDATION_OF_60 = [20, 35, 46, 48, 49, 55]
TEST_OF_30 = [3, 4, 8, 9, 12, 15, 18, 20]


def test_rows_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    bad = (
        entry("../../secret.png", "Mass", "5"),
        entry("/etc/passwd", "Mass", "5"),
        entry("sub\\e.png", "Mass", "5"),
        entry("..", "Mass", "5"),
        entry("e.png", "Mass", ""),
        entry("a.png", "Hernia", "1"),
        "f.png,Mass,0,6",
    )
    index = open_dataset(dataset(tmp_path, ENTRIES + bad))
    assert index.table["image_id"].to_pylist() == ["a.png", "b.png", "c.png", "d.png"]
    assert index.findings == ("Infiltration", "Mass")
    assert reasons(index) == {
        "Data_Entry_2017_v2020.csv: another number of fields than its header": 1,
        "unsafe image name": 4,
        "no patient": 1,
        "second row of an image": 1,
    }


def test_boxes_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    bad = (
        "x.png,Mass,1,1,5,5",
        "a.png,Hernia,1,1,5,5",
        "a.png,Mass,1,1,0,5",
        "a.png,Mass,1,1,5,-5",
        "a.png,Mass,1,1,nan,5",
        "a.png,Mass,1,one,5,5",
        "a.png,Mass",
        "",
    )
    index = open_dataset(dataset(tmp_path, boxes=LISTED + bad))
    assert index.boxes.num_rows == 2
    assert reasons(index) == {
        "box of an image without a row": 1,
        "box of a finding that no image is labelled with": 1,
        "box without an area": 2,
        "box without four numbers": 3,
    }


def test_box_rows_with_empty_fields_and_no_header(tmp_path: Path) -> None:
    root = dataset(tmp_path)
    (root / "BBox_List_2017.csv").write_text("a.png,Mass,1,2,3,4,,,\r\n")
    assert corners(open_dataset(root).boxes).tolist() == [[1, 2, 4, 6]]
    (root / "BBox_List_2017.csv").unlink()
    index = open_dataset(root)
    assert index.boxes.num_rows == 0
    assert corners(index.boxes).shape == (0, 4)
    with pytest.raises(CxrError, match="no images in split boxed"):
        index.select("boxed")


def test_films_are_found_in_every_known_place(tmp_path: Path) -> None:
    places = ("images", "images_001/images", "images_002", ".")
    for place, name in zip(places, ("a.png", "b.png", "c.png", "d.png"), strict=True):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / place / name).touch()
    (tmp_path / "images" / "stranger.png").touch()
    (tmp_path / "images_002" / "a.png").touch()
    (tmp_path / "images" / "Thumbs.db").touch()
    index = open_dataset(dataset(tmp_path))
    assert index.table["path"].to_pylist() == ["images/a.png", "images_001/images/b.png", "images_002/c.png", "d.png"]
    assert reasons(index) == {"file without a row": 1, "second file of an image": 1}
    assert index.present() == (index, None)


def test_present_leaves_out_and_counts_missing_films(tmp_path: Path) -> None:
    root = dataset(tmp_path)
    (root / "images").mkdir()
    (root / "images" / "b.png").touch()
    present, missing = open_dataset(root).present()
    assert present.table["image_id"].to_pylist() == ["b.png"]
    assert present.boxes["image_id"].to_pylist() == ["b.png"]
    assert missing == Dropped("no file for this image", 3, ("a.png", "c.png", "d.png"))


def test_select(tmp_path: Path) -> None:
    index = open_dataset(dataset(tmp_path, train_val_list__txt="a.png\nd.png", test_list__txt="b.png\nc.png"))
    assert index.select("test").table["image_id"].to_pylist() == ["b.png", "c.png"]
    assert index.select("test").boxes["image_id"].to_pylist() == ["b.png"]
    assert index.select("boxed, test").table["image_id"].to_pylist() == ["a.png", "b.png", "c.png"]
    assert len(index.select("all")) == 4
    with pytest.raises(UsageError, match=r"'tset'\. Did you mean test"):
        index.select("train,tset")


def test_restrict(tmp_path: Path) -> None:
    index = open_dataset(dataset(tmp_path))
    mass = index.restrict(["Mass"])
    assert mass.findings == ("Mass",)
    assert mass.labels().tolist() == [[1], [1], [0], [UNMENTIONED]]
    assert mass.boxes["finding"].to_pylist() == ["Mass"]
    assert mass.table["boxed"].to_pylist() == [True, False, False, False]
    assert index.restrict(["Mass", "Infiltration"]).labels()[0].tolist() == [1, 0]
    with pytest.raises(CxrError, match=r"Infiltrations\. Did you mean Infiltration\?.*Infiltration, Mass"):
        index.restrict(["Infiltrations"])
    wider = index.restrict(["Hernia", "Mass"], absent_as_null=True)
    assert wider.labels()[:, 0].tolist() == [UNMENTIONED] * 4
    assert wider.labels()[:, 1].tolist() == [1, 1, 0, UNMENTIONED]


def test_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    index = open_dataset(dataset(tmp_path / "one"))
    turned = open_dataset(dataset(tmp_path / "two", ENTRIES[::-1], LISTED[::-1]))
    assert turned.fingerprint == index.fingerprint
    (tmp_path / "two" / "a.png").touch()
    assert open_dataset(tmp_path / "two").fingerprint == index.fingerprint
    shuffled = Index(
        Path("elsewhere"), index.layout, index.findings, index.table.take([2, 0, 3, 1]), index.boxes.take([1, 0])
    )
    assert shuffled.fingerprint == index.fingerprint
    assert index.restrict(["Mass", "Infiltration"]).fingerprint == index.fingerprint
    changes = (
        open_dataset(dataset(tmp_path / "label", (*ENTRIES[:3], entry("d.png", "No Finding", "4")))),
        open_dataset(dataset(tmp_path / "patient", (*ENTRIES[:3], entry("d.png", "", "5")))),
        open_dataset(dataset(tmp_path / "box", boxes=(LISTED[0], "a.png,Mass,0,0,8,9"))),
        open_dataset(dataset(tmp_path / "split", train_val_list__txt="b.png", test_list__txt="a.png\nc.png\nd.png")),
        index.restrict(["Mass"]),
    )
    assert len({index.fingerprint, *(changed.fingerprint for changed in changes)}) == 6


def test_the_table_goes_through_parquet(tmp_path: Path) -> None:
    index = open_dataset(dataset(tmp_path))
    pq.write_table(index.table, tmp_path / "index.parquet")
    assert pq.ParquetFile(tmp_path / "index.parquet").read() == index.table


def test_notes_on_unusual_labels(tmp_path: Path) -> None:
    index = open_dataset(dataset(tmp_path, (*ENTRIES, entry("e.png", "No Finding|Massive", "7"))))
    assert "findings beyond the published 14: Massive" in index.notes
    assert any("No Finding beside a finding" in note and note.endswith(": 1") for note in index.notes)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "empty: zero bytes"),
        (
            HEADER.replace("Patient ID", "Person").encode() + b"\na.png,Mass,0,1,50,M,PA,1,1,1,1\n",
            "no column Patient ID",
        ),
        (HEADER.encode() + b"\n", "Nothing is left"),
        (HEADER.encode() + b"\na.png,No Finding,0,1,50,M,PA,1,1,1,1\n", "No image of .* has a finding"),
        (b"\xff\xfe\x00junk\n\xff\xff", "is not UTF-8 text"),
    ],
)
def test_a_broken_data_entry_says_so(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "Data_Entry_2017.csv").write_bytes(content)
    with pytest.raises(CxrError, match=sentence):
        open_dataset(tmp_path)


def test_broken_gzip_two_releases_and_unknown_folders_say_so(tmp_path: Path) -> None:
    entries = tmp_path / "Data_Entry_2017.csv.gz"
    entries.write_bytes(gzip.compress(HEADER.encode())[:-9])
    with pytest.raises(CxrError, match="damaged or cut off"):
        open_dataset(tmp_path)
    entries.write_bytes(b"plain")
    with pytest.raises(CxrError, match="is not a table"):
        open_dataset(tmp_path)
    (tmp_path / "Data_Entry_2017_v2020.csv").write_text(HEADER)
    with pytest.raises(CxrError, match="2 files Data_Entry_2017"):
        open_dataset(tmp_path)
    with pytest.raises(CxrError, match="no dataset folder"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(CxrError, match="is a file, not a dataset folder"):
        open_dataset(entries)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CxrError, match=r"no layout.* at its top: nothing.*docs/data"):
        open_dataset(tmp_path / "empty")
