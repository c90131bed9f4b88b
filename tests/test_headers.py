"""What the headers of DICOM films add to an index: where tables are silent, and nowhere else."""

import io
import json
import os
import struct
import threading
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cxrmine.console import progress_bar
from cxrmine.data import dicom as reader
from cxrmine.data import headers
from cxrmine.data.datasets import open_dataset
from cxrmine.data.dicom import Facts, dicom_facts
from cxrmine.data.encoded import Unreadable
from cxrmine.data.headers import header_facts
from cxrmine.data.images import decode_image
from cxrmine.data.index import Index
from cxrmine.data.reading import Reading
from cxrmine.stages import check, pack
from tests import test_coco_layout, test_mimic, test_rsna, test_vindr
from tests.films import DEFLATED, EXPLICIT, IMPLICIT, data_set_at, dicom
from tests.miniature import Case, cases, write_dicom, write_png

EIGHT = (3 * np.arange(64) + np.arange(40)[:, None]).astype(np.uint8)
SECRET = "ROE^RICHARD 1960-01-01"


def of_table(root: Path, *lines: str, views: str = "", archives: bool = False) -> Index:
    root.mkdir(parents=True, exist_ok=True)
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return open_dataset(root, Reading(views="all" if views else None), archives)


def column(index: Index, name: str) -> dict[str, object]:
    return dict(zip(index.table["image_id"].to_pylist(), index.table[name].to_pylist(), strict=True))


def careful(index: Index) -> list[str]:
    return [note for note in index.notes if note.startswith("CAREFUL")]


def ledger(index: Index) -> dict[str, int]:
    return {entry.reason: entry.count for entry in index.dropped}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the films whose header is read."""
    names: list[str] = []

    def counted(film: Path) -> Facts | None:
        names.append(film.name)
        return header_facts(film)

    monkeypatch.setattr(headers, "header_facts", counted)
    return names


# --- one guarded reader


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.dcm")
    found: list[Index] = []
    opened = threading.Thread(target=lambda: found.append(of_table(tmp_path, "image,Mass", "a.dcm,1")), daemon=True)
    opened.start()
    opened.join(30)
    assert column(found[0], "patient_id") == {"a.dcm": "a.dcm"}
    with pytest.raises(Unreadable, match="not a regular file"):
        dicom_facts(tmp_path / "a.dcm")


def deflated(*more: bytes) -> bytes:
    """A film of 64 × 40 with more elements before its own."""
    data = dicom(EIGHT, DEFLATED)
    start = data_set_at(data)
    own = zlib.decompress(data[start:], -zlib.MAX_WBITS)
    engine = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return data[:start] + engine.compress(b"".join(more) + own) + engine.flush()


def test_a_deflated_header_takes_no_more_memory_than_a_header_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """24 MiB of zeros before what the film is of; with 1 MiB for a header, no more than that and its copies."""
    assert reader.HEADER_AT_MOST == 64 * 2**20
    monkeypatch.setattr(reader, "HEADER_AT_MOST", 2**20)
    zeros = b"\x07\0\x10\0OB\0\0" + struct.pack("<I", 24 * 2**20) + bytes(24 * 2**20)
    bomb = deflated(zeros)
    assert len(bomb) < 2**16
    tracemalloc.start()
    assert header_facts(bomb) is None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 2**20
    for read in (dicom_facts, decode_image):
        with pytest.raises(Unreadable, match="a DICOM header of unlikely size"):
            read(bomb)
    monkeypatch.undo()
    assert dicom_facts(bomb)[:2] == (64, 40)
    assert (decode_image(bomb) == EIGHT).all()


def test_a_deflated_film_s_header_is_read_without_its_pixels(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(dicom(EIGHT, DEFLATED, PatientID="7", ViewPosition="pa")[:-20])
    assert dicom_facts(tmp_path / "a.dcm") == Facts(64, 40, "PA", "7", None)


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT])
def test_a_film_without_a_preamble_has_a_header_too(tmp_path: Path, syntax: str) -> None:
    for number in range(3):
        data = dicom(EIGHT, syntax, PatientID="p-17" if number else "q", ViewPosition="LL" if number else "PA")
        (tmp_path / f"{number}.dcm").write_bytes(data[132:])
    index = of_table(tmp_path, "image,Mass", "0.dcm,1", "1.dcm,1", "2.dcm,0", views="all")
    assert column(index, "patient_id") == {"0.dcm": "0.dcm", "1.dcm": "1.dcm", "2.dcm": "1.dcm"}
    assert column(index, "view") == {"0.dcm": "PA", "1.dcm": "LL", "2.dcm": "LL"}


def test_what_a_damaged_value_says_is_nothing() -> None:
    """The kind of ViewPosition is spoilt; the film is as it was."""
    data = dicom(EIGHT, ViewPosition="PA", PatientID="7").replace(b"\x18\0\x01\x51CS", b"\x18\0\x01\x51C\xcd")
    assert dicom_facts(data) == Facts(64, 40, None, "7", None)
    assert (decode_image(data) == EIGHT).all()


# --- what is let through


@pytest.mark.parametrize("view", ["AP", "pa", " LL ", "RL", "Lateral", "LLD", "RLD", "LLO", "RLO", "RPO"])
def test_a_view_is_a_known_code(view: str) -> None:
    assert dicom_facts(dicom(EIGHT, ViewPosition=view)).view == view.strip().upper()


@pytest.mark.parametrize("view", [SECRET, "PA ROE", "PAT", "", None])
def test_or_nothing(view: str | None) -> None:
    assert dicom_facts(dicom(EIGHT, ViewPosition=view)).view is None


def test_no_free_text_of_a_header_comes_out(tmp_path: Path) -> None:
    root = tmp_path / "d"
    for number in range(3):
        write_dicom(root / f"{number}.dcm", cases(1)[0].pixels, patient=SECRET + "12"[number > 1], view=SECRET)
    of_table(root, "image,Mass", "0.dcm,1", "1.dcm,0", "2.dcm,0")
    said = json.dumps(check.run(check.Check(root)).document)
    pack.run(pack.Pack(root, tmp_path / "pack", size=32))
    for file in (tmp_path / "pack").iterdir():
        said += file.read_bytes().decode("latin-1")
    assert '"unknown": 3' in said
    assert "1.dcm" in said
    assert "ROE" not in said


# --- which layouts ask, and for what


def test_rsna_side_views_are_left_out(tmp_path: Path) -> None:
    made = cases(8)
    test_rsna.write(tmp_path, made)
    for case in made:
        path = tmp_path / "stage_2_train_images" / f"{test_rsna.name_of(case)}.dcm"
        write_dicom(path, case.pixels, patient="x", view=("AP", "PA", "PA", "LATERAL")[case.number % 4])
    index = open_dataset(tmp_path)
    assert len(index) == 6
    assert sorted(column(index, "view").values()) == ["AP"] * 2 + ["PA"] * 4
    assert ledger(index)["lateral view, and frontal ones are asked for"] == 2
    assert "views: from the headers of 8 DICOM films" in index.notes
    assert column(index, "patient_id") == {name: name for name in column(index, "view")}, "patientId is in its table"
    assert len(open_dataset(tmp_path, Reading(views="all"))) == 8


def put_again(root: Path, made: list[Case], name_of: Callable[[Case], str]) -> None:
    """Patients of two films, and a side view."""
    films = {path.stem: path for path in root.rglob("*.*") if path.suffix in (".dcm", ".dicom")}
    for case in made:
        write_dicom(films[name_of(case)], case.pixels, f"p{case.number // 2}", "LL" if case.number == 1 else "PA")


def test_vindr_patients_and_views(tmp_path: Path) -> None:
    made = cases(8)
    test_vindr.write(tmp_path, made)
    put_again(tmp_path, made, test_vindr.name_of)
    index = open_dataset(tmp_path)
    assert len(index) == 7
    names = sorted(test_vindr.name_of(case) for case in made)
    assert len({*column(index, "patient_id").values()}) == 4
    assert {*column(index, "patient_id").values()} <= {*names}
    assert not careful(index)


def test_mimic_views_where_there_are_no_metadata(tmp_path: Path, asked: list[str]) -> None:
    made = cases(8)
    test_mimic.write(tmp_path, made, form="dicom")
    films = sorted(tmp_path.rglob("*.dcm"))
    for number, path in enumerate(films):
        write_dicom(path, made[0].pixels, view="LATERAL" if number == 3 else "PA")
    whole = open_dataset(tmp_path)
    assert asked == [], "its metadata are these headers"
    for path in [*tmp_path.rglob("mimic-cxr-2.0.0-metadata*")]:
        path.unlink()
    index = open_dataset(tmp_path)
    assert sorted(asked) == [path.name for path in sorted(films, key=lambda path: path.name)]
    assert (len(index), {*column(index, "view").values()}) == (8, {"PA"}), "one of nine is a side view"
    assert {*column(index, "patient_id").values()} <= {*column(whole, "patient_id").values()}


def test_coco_patients(tmp_path: Path) -> None:
    made = cases(4)
    root = test_coco_layout.write(tmp_path / "d", made, own_patients=False)
    films = sorted(path for path in root.rglob("*") if path.suffix in (".png", ".jpg", ".dcm"))
    lists = list(root.rglob("*.json"))
    for number, film in enumerate(films):
        film.unlink()
        write_dicom(film.with_suffix(""), made[0].pixels, patient=f"p{number // 2}", view="AP")
        for path in lists:
            path.write_text(path.read_text().replace(film.name, film.stem))
    index = open_dataset(root)
    assert len({*column(index, "patient_id").values()}) == 2
    assert {*column(index, "view").values()} == {"AP"}
    assert not careful(index)


def test_only_films_of_which_something_is_missing_are_read_and_each_once(tmp_path: Path, asked: list[str]) -> None:
    for number in range(4):
        write_dicom(tmp_path / f"{number}.dcm", EIGHT, patient="p", view="LL" if number == 2 else "PA")
    index = of_table(
        tmp_path, "image,patient,view,Mass", "0.dcm,a,AP,1", "1.dcm,a,,1", "2.dcm,b,,0", "3.dcm,b,PA,1", "3.dcm,b,,0",
        views="all",
    )  # fmt: skip
    assert sorted(asked) == ["1.dcm", "2.dcm"]
    assert column(index, "view") == {"0.dcm": "AP", "1.dcm": "PA", "2.dcm": "LL", "3.dcm": "PA"}
    assert column(index, "patient_id") == {"0.dcm": "a", "1.dcm": "a", "2.dcm": "b", "3.dcm": "b"}
    asked.clear()
    of_table(tmp_path, "image,patient,view,Mass", *(f"{number}.dcm,a,AP,1" for number in range(4)))
    assert asked == []
    of_table(tmp_path, "image,Mass", *(f"{number}.dcm,1" for number in range(4)))
    assert sorted(asked) == ["0.dcm", "1.dcm", "2.dcm", "3.dcm"]


def test_headers_of_films_in_archives(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "films.zip", "w") as archive:
        for number in range(4):
            archive.writestr(f"{number}.dcm", dicom(EIGHT, PatientID=f"p{number // 2}", ViewPosition="PA"))
        archive.writestr("4.dcm", b"junk")
    index = of_table(tmp_path, "image,Mass", *(f"{number}.dcm,1" for number in range(5)), archives=True)
    assert [*column(index, "patient_id").values()] == ["0.dcm", "0.dcm", "2.dcm", "2.dcm", "4.dcm"]
    assert [*column(index, "view").values()] == ["PA"] * 4 + [None]


def test_spacing_comes_along_and_a_pack_keeps_it(tmp_path: Path) -> None:
    """From row to row is y. One film tells it, one does not, and one is no DICOM."""
    root = tmp_path / "d"
    write_dicom(root / "a.dcm", EIGHT, patient="1", PixelSpacing=[0.2, 0.3])
    write_dicom(root / "b.dcm", EIGHT, patient="2")
    write_png(root / "c.png", EIGHT)
    index = of_table(root, "image,Mass", "a.dcm,1", "b.dcm,1", "c.png,0")
    assert column(index, "spacing_x") == {"a.dcm": 0.3, "b.dcm": None, "c.png": None}
    pack.run(pack.Pack(root, tmp_path / "pack", size=32))
    packed = open_dataset(tmp_path / "pack")
    assert column(packed, "spacing_y") == {"a.dcm": 0.2, "b.dcm": None, "c.png": None}
    assert packed.fingerprint == index.fingerprint
    assert "spacing_x" not in of_table(root, "image,patient,view,Mass", "a.dcm,1,PA,1").table.column_names


def test_a_film_without_an_ending(tmp_path: Path) -> None:
    """By its path from the top; not by its name alone, and what is no film is said to be none."""
    for number in range(3):
        write_dicom(tmp_path / "f" / f"IM{number:06}", np.roll(EIGHT, 9 * number), patient=f"p{number}", view="PA")
    (tmp_path / "f" / "notes").write_text("no film at all")
    lines = [*(f"f/IM{number:06},1" for number in range(2)), "IM000002,0", "f/notes,0"]
    index = of_table(tmp_path, "image,Mass", *lines)
    paths = {"f/IM000000": "f/IM000000", "f/IM000001": "f/IM000001", "IM000002": None, "f/notes": "f/notes"}
    assert column(index, "path") == paths
    assert column(index, "view") == {"f/IM000000": "PA", "f/IM000001": "PA", "IM000002": None, "f/notes": None}
    faults = {fault.kind: fault.count for fault in check.run(check.Check(tmp_path)).faults}
    assert faults == {"no file for this image": 1, "unreadable image: not a PNG, JPEG or DICOM file": 1}


# --- who is nobody


def people(tmp_path: Path, *patients: str) -> Index:
    for number, patient in enumerate(patients):
        write_dicom(tmp_path / f"{number:02}.dcm", EIGHT, patient=patient)
    return of_table(tmp_path, "image,Mass", *(f"{number:02}.dcm,1" for number in range(len(patients))))


def test_one_name_for_nearly_all_is_no_patient(tmp_path: Path) -> None:
    index = people(tmp_path, *["Q-1"] * 30, "")
    assert column(index, "patient_id") == {f"{number:02}.dcm": f"{number:02}.dcm" for number in range(31)}
    assert len({*column(index, "split").values()}) > 1
    assert [note.split(",")[0] for note in careful(index)] == [
        "CAREFUL: the PatientID in the headers of 30 DICOM films is no person's",
        "CAREFUL: nobody says who the patient of 31 images is",
    ]
    assert not any("Q-1" in note for note in index.notes)


@pytest.mark.parametrize("word", ["ANONYMIZED", "anonymous", "De-Identified", "XXXX", "unknown", "n/a", "---"])
def test_words_that_stand_for_nobody(tmp_path: Path, word: str) -> None:
    index = people(tmp_path, "a", " a", word, word, "b")
    assert [*column(index, "patient_id").values()] == [f"{number:02}.dcm" for number in (0, 0, 2, 3, 4)]
    assert "patients: from the headers of 3 DICOM films" in index.notes
    assert len(careful(index)) == 2


def test_a_person_may_have_many_films(tmp_path: Path) -> None:
    """10 of 15 are one person's; 11 of 55, a fifth of them, too, and 11 of 54 are nobody's."""
    assert len({*column(people(tmp_path / "a", *["a"] * 10, *"bcdef"), "patient_id").values()}) == 6
    others = [f"p{number}" for number in range(44)]
    assert len({*column(people(tmp_path / "b", *["a"] * 11, *others), "patient_id").values()}) == 45
    assert len({*column(people(tmp_path / "c", *["a"] * 11, *others[1:]), "patient_id").values()}) == 54


# --- progress


def test_a_bar_is_shown_only_where_it_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for after, shown in ((0.0, True), (60.0, False)):
        screen = Terminal()
        monkeypatch.setattr("sys.stderr", screen)
        with progress_bar(3, "reading headers", after=after) as bar:
            bar.advance(3)
        assert ("reading headers" in screen.getvalue()) == shown
