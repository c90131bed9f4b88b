"""cxrmine severity, from reports in every form to its two tables."""

import csv
import gzip
import json
import re
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cxrmine.boxes.table import read_meta
from cxrmine.cli import app
from cxrmine.data.lexicon import builtin, load
from cxrmine.data.reports import open_reports
from cxrmine.files import sha256
from cxrmine.stages import phantom
from cxrmine.stages import severity as stage
from cxrmine.tables import SCHEMA_VERSION
from tests.test_openi import BOMB

Row = dict[str, object]
FILMS = 300


def run(*words: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["severity", *map(str, words)])
    assert done.exit_code == code, done.output
    return done.output


def rows(path: Path) -> list[Row]:
    return pq.ParquetFile(path).read().to_pylist()


def read(source: Path, tmp_path: Path, *more: object) -> list[Row]:
    run(source, "--out", tmp_path / "s.parquet", *more)
    return rows(tmp_path / "s.parquet")


def short(found: list[Row]) -> list[tuple[object, ...]]:
    return [tuple(row[key] for key in ("study_id", "image_id", "finding", "label", "severity")) for row in found]


def openi(number: int, findings: str, impression: str = "", images: tuple[str, ...] = (), head: str = "") -> str:
    parents = "".join(f'<parentImage id="{image}"/>' for image in images)
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n{head}<eCitation><uId id="CXR{number}"/><Abstract>'
        f'<AbstractText Label="INDICATION">Large mass</AbstractText><AbstractText Label="FINDINGS">{findings}'
        f'</AbstractText><AbstractText Label="IMPRESSION">{impression}</AbstractText></Abstract>{parents}</eCitation>'
    )


def write_openi(root: Path) -> Path:
    folder = root / "ecgen-radiology"
    folder.mkdir(parents=True)
    (folder / "1.xml").write_text(openi(1, "Small effusion. No mass.", "Moderate effusion.", ("a", "b")))
    (folder / "2.xml").write_text(openi(2, "", "Possible large nodule."))
    (folder / "3.xml").write_text(openi(3, "Clear.", "Normal.", ("c",)))
    (folder / "4.xml").write_text(openi(4, "", "", ("d",)))
    (folder / "5.xml").write_text(openi(5, "&b;", "", ("e",), BOMB))
    (folder / "6.xml").write_text(openi(6, "Edema.")[:-9])
    return root


OPENI = [
    ("CXR1", "a", "Effusion", 1, 2),
    ("CXR1", "a", "Mass", 0, None),
    ("CXR1", "b", "Effusion", 1, 2),
    ("CXR1", "b", "Mass", 0, None),
    ("CXR2", None, "Nodule", -1, None),
]


# --- the forms of reports


def test_openi_as_folder_and_archive(tmp_path: Path) -> None:
    root = write_openi(tmp_path / "openi")
    assert short(read(root, tmp_path)) == OPENI
    assert short(read(root / "ecgen-radiology", tmp_path)) == OPENI
    packed = tmp_path / "packed"
    packed.mkdir()
    with tarfile.open(packed / "NLMCXR_reports.tgz", "w:gz") as tar:
        tar.add(root / "ecgen-radiology", "ecgen-radiology")
    (packed / "NLMCXR_png.tgz").write_bytes(b"no archive, and not looked into")
    assert short(read(packed / "NLMCXR_reports.tgz", tmp_path)) == OPENI
    assert short(read(packed, tmp_path)) == OPENI


def test_reports_that_are_left_out_are_counted(tmp_path: Path) -> None:
    document = json.loads(run(write_openi(tmp_path), "--out", tmp_path / "s.parquet", "--json", "-"))
    assert document["form"] == "Open-i"
    assert document["reports"] == {"read": 4, "without_a_finding": 2}
    assert document["rows"] == 5
    assert [(entry["reason"], entry["count"]) for entry in document["dropped"]] == [
        ("report that cannot be read", 2),
        ("report without a text that says what is seen", 1),
    ]
    assert document["findings"]["Effusion"] == {
        "present": 1, "possible": 0, "denied": 0, "mild": 0, "moderate": 1, "severe": 0, "without a word": 0,
    }  # fmt: skip
    assert document["findings"]["Nodule"]["possible"] == document["findings"]["Mass"]["denied"] == 1


MIMIC = """                                 FINAL REPORT
 INDICATION:  Mass.

 FINDINGS:  There is a small left
 pleural effusion.

 IMPRESSION:  No pneumothorax.
"""


def test_mimic_as_folder_and_zip(tmp_path: Path) -> None:
    note = tmp_path / "mimic" / "files/p10/p10000032/s50414267.txt"
    note.parent.mkdir(parents=True)
    note.write_text(MIMIC)
    note.with_name("s50414268.txt").write_bytes(b"Edema \xff")
    (tmp_path / "mimic" / "README.txt").write_text("Large mass.")
    expected = [("50414267", None, "Effusion", 1, 1), ("50414267", None, "Pneumothorax", 0, None)]
    assert short(read(tmp_path / "mimic", tmp_path)) == expected
    assert "report that cannot be read: 1 (files/p10/p10000032/s50414268.txt)" in run(
        tmp_path / "mimic", "--out", tmp_path / "s.parquet"
    )
    whole = tmp_path / "physionet"
    whole.mkdir()
    with zipfile.ZipFile(whole / "mimic-cxr-reports.zip", "w") as archive:
        archive.write(note, "files/p10/p10000032/s50414267.txt")
    assert short(read(whole, tmp_path)) == expected
    assert short(read(whole / "mimic-cxr-reports.zip", tmp_path)) == expected


def test_text_files(tmp_path: Path) -> None:
    folder = tmp_path / "notes" / "2020"
    folder.mkdir(parents=True)
    (folder / "A-17.txt").write_text("Severe edema.")
    (folder.parent / "test_list.txt").write_text("Mass.png")
    assert short(read(tmp_path / "notes", tmp_path)) == [("A-17", None, "Edema", 1, 3)]
    (folder.parent / "A-17.txt").write_text("Mild edema.")
    assert short(read(tmp_path / "notes", tmp_path)) == [
        ("2020/A-17", None, "Edema", 1, 3),
        ("A-17", None, "Edema", 1, 1),
    ]


TABLE = """Study ID,Image,Report
7,x.png,Mild edema.
7,y.png,Mild edema.
,z.png,No mass.
8,,
,,Nodule.
7,x.png,Mass.
"""


def test_tables(tmp_path: Path) -> None:
    expected = [("7", "x.png", "Edema", 1, 1), ("7", "y.png", "Edema", 1, 1), ("z.png", "z.png", "Mass", 0, None)]
    table = tmp_path / "mine.csv"
    table.write_text(TABLE)
    assert short(read(table, tmp_path)) == expected
    found = open_reports(table)
    assert {entry.reason: entry.count for entry in found.dropped} == {
        "row without a study or image": 1,
        "second report of a study or image": 1,
        "report without a text that says what is seen": 1,
    }
    (tmp_path / "mine.csv.gz").write_bytes(gzip.compress(TABLE.encode()))
    assert short(read(tmp_path / "mine.csv.gz", tmp_path)) == expected
    columns = {"Study ID": ["7", "7", None], "Image": ["x.png", "y.png", "z.png"]}
    pq.write_table(pa.table({**columns, "Report": ["Mild edema."] * 2 + ["No mass."]}), tmp_path / "mine.parquet")
    assert short(read(tmp_path / "mine.parquet", tmp_path)) == expected


def test_a_table_with_findings_and_impression(tmp_path: Path) -> None:
    table = tmp_path / "mine.csv"
    table.write_text("study_id,findings,impression,note\n7,Small effusion.,No mass.,HISTORY: x FINDINGS: Edema.\n")
    assert [(row["finding"], row["section"]) for row in read(table, tmp_path)] == [
        ("Effusion", "FINDINGS"),
        ("Mass", "IMPRESSION"),
    ]
    assert [row["finding"] for row in read(table, tmp_path, "--columns", "text=note")] == ["Edema"]
    assert [row["finding"] for row in read(table, tmp_path, "--columns", "findings=note")] == ["Edema", "Mass"]


# --- the two tables


def test_the_columns_and_the_mention_that_decides(tmp_path: Path) -> None:
    table = tmp_path / "mine.csv"
    report = "FINDINGS: Small effusion. Possible mass.\nIMPRESSION: Clear. Moderate effusion."
    table.write_text(f'study,report\n7,"{report}"\n')
    effusion, mass = read(table, tmp_path)
    assert effusion == {
        "study_id": "7", "image_id": None, "finding": "Effusion", "label": 1, "severity": 2, "section": "IMPRESSION",
        "sentence": 2, "words": "effusion", "severity_words": "Moderate", "start": 17, "end": 25,
        "text": "Moderate effusion.",
    }  # fmt: skip
    assert (mass["label"], mass["severity"], mass["severity_words"]) == (-1, None, None)
    mentions = rows(tmp_path / "s.mentions.parquet")
    assert [(row["finding"], row["status"], row["severity"], row["section"]) for row in mentions] == [
        ("Effusion", "present", 1, "FINDINGS"),
        ("Mass", "possible", None, "FINDINGS"),
        ("Effusion", "present", 2, "IMPRESSION"),
    ]
    assert [*mentions[0]] == ["study_id", "image_id", "finding", "status", *[*effusion][3:]]
    meta = read_meta(tmp_path / "s.parquet")
    assert (meta["schema"], meta["kind"], meta["form"]) == (SCHEMA_VERSION, "severity", "table mine.csv")
    assert meta["lexicon_sha256"] == builtin().sha256
    assert read_meta(tmp_path / "s.mentions.parquet")["reports_sha256"] == meta["reports_sha256"]
    types = pq.read_schema(tmp_path / "s.parquet")
    assert types.field("label").type == types.field("severity").type == pa.int8()


def test_words_lie_where_the_table_says(tmp_path: Path) -> None:
    note = tmp_path / "files/p10/p10000032/s1.txt"
    note.parent.mkdir(parents=True)
    note.write_text(MIMIC)
    write_openi(tmp_path / "openi")
    for source in (tmp_path / "files", tmp_path / "openi"):
        read(source, tmp_path)
        texts = {(r.study, name): text for r in open_reports(source).found for name, text in r.sections}
        mentions = rows(tmp_path / "s.mentions.parquet")
        assert mentions
        for row in mentions:
            assert texts[row["study_id"], row["section"]][row["start"] : row["end"]] == row["words"]  # type: ignore[index, misc]


def test_csv(tmp_path: Path) -> None:
    run(write_openi(tmp_path / "openi"), "--out", tmp_path / "s.csv")
    with (tmp_path / "s.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [(r["study_id"], r["image_id"], r["finding"], r["label"], r["severity"]) for r in found] == [
        tuple("" if value is None else str(value) for value in row) for row in OPENI
    ]
    assert (tmp_path / "s.mentions.csv").is_file()


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_the_same_reports_give_the_same_bytes(tmp_path: Path, ending: str) -> None:
    source = write_openi(tmp_path / "openi")
    digests = []
    for folder in ("a", "b"):
        run(source, "--out", tmp_path / folder / f"s.{ending}")
        digests.append([sha256(tmp_path / folder / f"s{more}.{ending}") for more in ("", ".mentions")])
    assert digests[0] == digests[1]


def test_no_report_and_no_finding_give_empty_tables(tmp_path: Path) -> None:
    table = tmp_path / "mine.csv"
    table.write_text("study,report\n7,Clear lungs.\n")
    assert read(table, tmp_path) == []
    table.write_text("study,report\n")
    assert read(table, tmp_path) == []
    assert pq.read_schema(tmp_path / "s.parquet").names == stage.SCHEMA.names


def test_a_table_of_ours_is_replaced_and_no_other(tmp_path: Path) -> None:
    source = write_openi(tmp_path / "openi")
    for ending in ("parquet", "csv"):
        for _ in range(2):
            run(source, "--out", tmp_path / f"s.{ending}")
    (tmp_path / "other.csv").write_text("a,b\n")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    for ending in ("parquet", "csv"):
        before = sha256(tmp_path / f"other.{ending}")
        said = run(source, "--out", tmp_path / f"other.{ending}", code=1)
        assert "no table that this command wrote" in said
        assert sha256(tmp_path / f"other.{ending}") == before


# --- a phantom


def test_a_phantom_is_read_exactly(tmp_path: Path) -> None:
    data = tmp_path / "data"
    phantom.run(phantom.Phantom(data, images=FILMS, size=64, seed=5, workers=1))
    found = {(row["image_id"], row["finding"]): row["severity"] for row in read(data, tmp_path) if row["label"] == 1}
    with (data / "severity.csv").open(newline="") as file:
        truth = {(row["image_id"], row["finding"]): int(row["severity"]) for row in csv.DictReader(file)}
    # its films of pneumonia have reports of a consolidation, for which it has no name of its own
    assert {pair: severity for pair, severity in found.items() if pair[1] != "Consolidation"} == truth
    with (data / "Data_Entry_2017_v2020.csv").open(newline="") as file:
        labels = {row["Image Index"]: row["Finding Labels"] for row in csv.DictReader(file)}
    assert len(labels) == FILMS
    assert {(name, finding) for name, words in labels.items() for finding in words.split("|")} == {
        *truth,
        *((name, "No Finding") for name, words in labels.items() if words == "No Finding"),
    }
    assert short(read(data / "reports.csv", tmp_path)) == short(read(data, tmp_path))


# --- the page about it


def test_the_report_on_the_page_is_read_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parent.parent / "docs" / "severity.md").read_text()
    report, printed, table, *_ = re.findall(r"^```\n(.+?)^```$", page, re.MULTILINE | re.DOTALL)
    Path("notes").mkdir()
    Path("notes/1042.txt").write_text(report)
    command, _, expected = printed.partition("\n")
    words = command.split()
    assert words[:3] == ["$", "cxrmine", "severity"]
    assert [line.rstrip() for line in run(*words[3:]).strip().splitlines()] == expected.splitlines()
    assert Path("severity.csv").read_text() == table


def test_the_lexicon_on_the_page_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent / "docs" / "severity.md").read_text()
    (example,) = re.findall(r"^```toml\n(.+?)^```$", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "own.toml").write_text(example)
    assert "Opacity" in load(tmp_path / "own.toml").findings


# --- what is refused


def test_what_is_refused_and_why(tmp_path: Path) -> None:
    out = tmp_path / "s.parquet"
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.csv").write_text("study,age\n7,50\n")
    (tmp_path / "b.csv").write_text("age,report\n50,Edema.\n")
    (tmp_path / "c.csv").write_text("study,report\n7,Edema.\n")
    (tmp_path / "d.jpg").write_bytes(b"x")
    (tmp_path / "e.zip").write_bytes(b"PK\x03\x04 and no more")
    folder = write_openi(tmp_path / "openi")
    for words, code, said in (
        ((tmp_path / "none",), 1, "There are no reports at"),
        ((tmp_path / "empty",), 1, "has no reports: no .xml, no .txt, and no reports.csv"),
        ((tmp_path / "a.csv",), 1, "no column that is known to be the text of reports; its columns are study, age"),
        ((tmp_path / "b.csv",), 1, "no column that is known to be the name of a study or image"),
        ((tmp_path / "c.csv", "--columns", "text=body"), 1, "has no column 'body' for text"),
        ((tmp_path / "c.csv", "--columns", "txt=report"), 2, "no column 'txt' to be named. Did you mean text?"),
        ((folder, "--columns", "text=report"), 2, "has no table of reports"),
        ((tmp_path / "d.jpg",), 1, "is no table of reports and no archive"),
        ((tmp_path / "e.zip",), 1, "damaged or cut off archive"),
        ((folder, "--lexicon", tmp_path / "none.toml"), 1, "There is no lexicon"),
    ):
        assert said in run(*words, "--out", out, code=code).replace("\n", " "), words
        assert not out.exists()
    for bad in (tmp_path, tmp_path / "s.json", tmp_path / "s.mentions.parquet"):
        assert "error:" in run(folder, "--out", bad, code=2)


def test_a_lexicon_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('[findings.Opacity]\nwords = ["opacit*"]\n')
    (tmp_path / "c.csv").write_text("study,report\n7,Small opacities.\n")
    assert short(read(tmp_path / "c.csv", tmp_path, "--lexicon", tmp_path / "own.toml")) == [
        ("7", None, "Opacity", 1, 1)
    ]
