"""`cxrmine score` as it is typed: options do what the help says, and what cannot be done is said in two sentences."""

import csv
import io
import json
import re
import shutil
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxrmine import console
from cxrmine.data.datasets import open_dataset
from cxrmine.scoring.classification import auc_interval, delong_test
from cxrmine.scoring.protocols import PROTOCOLS
from cxrmine.stages import mine as mining
from cxrmine.stages import predict, score
from tests.score_cases import BOX, HEADER, IMAGES, SIZED, coco, command, draw, lines, mine, typed

FAST = ("--bootstrap", "0")


@pytest.fixture(scope="module")
def boxed(dataset, trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("mined") / "boxed.parquet"
    mining.run(mining.Mine(trained, dataset, out, split="boxed", device="cpu", workers=1))
    return out


@pytest.fixture(scope="module")
def probable(dataset, trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("predicted") / "ours.parquet"
    predict.run(predict.Predict(trained, dataset, out, device="cpu", workers=1))
    return out


@pytest.fixture
def case(tmp_path):
    """(boxes, truth)"""
    return mine(tmp_path / "b.parquet"), draw(tmp_path / "truth.parquet")


# --- what is judged, and who was trained on


def test_the_command_has_controls_where_truth_is_a_dataset(dataset, boxed, tmp_path):
    document = json.loads(command(boxed, "--truth", dataset, *FAST, "--json", "-", cwd=tmp_path))
    assert all(at["mean"]["acc_afp"]["0.1"]["acc"] > 0 for at in document["controls"].values())
    assert document["counts"]["judged_pairs_without_box"] < document["counts"]["judged_pairs"]


def test_the_command_says_what_the_run_has_seen(dataset, trained, boxed, tmp_path):
    asked = (boxed, "--truth", dataset, *FAST)
    said = "judged patients was trained or validated on."
    assert said not in command(*asked, cwd=tmp_path)
    assert said in command(*asked, "--run", trained, cwd=tmp_path)
    assert said in command(*asked, cwd=tmp_path, CXRMINE_RUN=trained)
    assert "no run in none" in command(*asked, "--run", "none", cwd=tmp_path, code=1)
    assert said not in command(*asked, cwd=tmp_path, CXRMINE_RUN="none")
    (tmp_path / "none").mkdir()
    assert "patients.parquet" in command(*asked, cwd=tmp_path, code=1, CXRMINE_RUN="none")
    mining.run(mining.Mine(trained, dataset, tmp_path / "boxes.parquet", device="cpu", workers=1))
    (tmp_path / "cxrmine.toml").write_text(f'truth = "{dataset / "truth.parquet"}"\nrun = "{trained}"\n')
    told = re.search(r"The run was trained on (\d+) of the (\d+) judged patients: these", command(*FAST, cwd=tmp_path))
    assert told is not None
    assert told[1] == told[2]


def test_strict_as_it_is_typed(dataset, trained, boxed, tmp_path):
    asked = (boxed, "--truth", dataset, *FAST, "--strict")
    assert "no run is named that made these boxes. Name it with --run." in command(*asked, cwd=tmp_path, code=1)
    assert "None of the" in command(*asked, "--run", trained, cwd=tmp_path)


def test_where_the_command_takes_its_truth_from(dataset, boxed, tmp_path):
    assert "No truth is named" in command(boxed, cwd=tmp_path, code=2)
    (tmp_path / "cxrmine.toml").write_text('data = "d"\n')
    assert "no truth at d" in command(boxed, cwd=tmp_path, code=1)
    (tmp_path / "cxrmine.toml").write_text('data = "d"\ntruth = "t"\n')
    assert "no truth at t" in command(boxed, cwd=tmp_path, code=1)
    assert "no truth at e" in command(boxed, cwd=tmp_path, code=1, CXRMINE_DATA="e")
    assert "no truth at f" in command(boxed, "--truth", "f", cwd=tmp_path, code=1, CXRMINE_DATA="e")
    assert "Protocol" in command(boxed, *FAST, cwd=tmp_path, CXRMINE_DATA=dataset)


def test_the_command_judges_the_splits_and_findings_that_are_asked_for(case, tmp_path):
    def judged(*words: str) -> list[int]:
        document = json.loads(command(case[0], "--truth", case[1], *words, *FAST, "--json", "-", cwd=tmp_path))
        return [document["counts"][name] for name in ("judged_pairs", "findings")]

    assert judged() == [21, 2]
    assert judged("--split", "val") == [5, 1]
    assert judged("--split", "val, test") == [21, 2]
    assert judged("--finding", "Nodule") == [1, 1]
    assert judged("--finding", "Nodule", "--finding", "Mass", "--split", "test") == [16, 2]


def test_the_command_does_not_vouch_for_a_run_that_did_not_make_the_boxes(dataset, trained, boxed, probable, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    weights = other / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    for made, name, more in ((boxed, "cam", FAST), (probable, "ours", ())):
        told = command(made, "--truth", dataset, "--run", other, *more, cwd=tmp_path)
        assert f"{name} was not made with this run: whom its network has seen is not known." in told
        assert "trained or validated on" not in told
        assert "no run is named" in command(
            made, "--truth", dataset, "--run", other, "--strict", *more, cwd=tmp_path, code=1
        )


def test_the_command_says_when_truth_is_another_dataset(dataset, boxed, probable, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(dataset, other)
    entry = other / "Data_Entry_2017_v2020.csv"
    entry.write_text(entry.read_text().replace("No Finding", "Hernia", 1))
    for made, said, more in (
        (boxed, "CAREFUL: the boxes of cam were mined from another dataset", FAST),
        (probable, "CAREFUL: the probabilities of ours are of another dataset", ()),
    ):
        assert "CAREFUL" not in command(made, "--truth", dataset, *more, cwd=tmp_path)
        assert said in command(made, "--truth", other, *more, cwd=tmp_path)


def test_the_command_takes_the_shells_own_glob_of_shards(dataset, trained, boxed, tmp_path):
    for i in (1, 2):
        mining.run(mining.Mine(trained, dataset, tmp_path / "b.parquet", "boxed", shard=(i, 2), device="cpu"))
    named = sorted(tmp_path.glob("b-*.parquet"))
    assert len(named) == 4
    figures = [command(*some, "--truth", dataset, *FAST, "--csv", "-", cwd=tmp_path) for some in (named, [boxed])]
    assert figures[0] == figures[1]


# --- protocols and help


def test_the_help_names_every_protocol(tmp_path):
    words = set(re.findall(r"[\w-]+", command("--help", cwd=tmp_path)))
    assert set(PROTOCOLS) <= words


def test_the_command_follows_the_protocol(case, tmp_path):
    for name, rules in PROTOCOLS.items():
        if name == "maxboxacc2":
            continue  # which is of maps
        asked = (case[0], "--truth", case[1], "--protocol", name, "--afp-per", "rows", *FAST)
        text = command(*asked, cwd=tmp_path)
        assert f"Protocol {name} ({rules.source}): " in text
        assert ("truth boxes of all findings" in text) == (name in ("cai2018", "wang2017")), "whose tables have an AFP"


def test_more_is_shown_where_it_is_asked_for(case, tmp_path):
    asked = (case[0], "--truth", case[1], *FAST)
    for flag, title in (("--findings", "Acc (AFP) > 0.1, by finding"), ("--sizes", "Acc by the truth's size")):
        assert title not in command(*asked, cwd=tmp_path)
        assert title in command(*asked, flag, cwd=tmp_path)


# --- documents


def tables_of(markdown: str) -> dict[str, list[list[str]]]:
    """Title → rows of cells, the header first."""
    tables: dict[str, list[list[str]]] = {}
    title = ""
    for line in markdown.splitlines():
        if line.startswith("**"):
            title = line.strip("*")
        elif line.startswith("|"):
            tables.setdefault(title, []).append([cell.strip() for cell in line.strip("|").split("|")])
    return tables


def test_json_csv_and_markdown_have_the_same_figures(case, tmp_path):
    other = mine(tmp_path / "moved.parquet", shift=3)
    targets = {name: tmp_path / f"s.{name}" for name in ("json", "csv", "markdown")}
    outs = [word for name, path in targets.items() for word in (f"--{name}", path)]
    command(case[0], other, "--truth", case[1], "--bootstrap", "50", "--against", "cai2018:2", *outs, cwd=tmp_path)
    document = json.loads(targets["json"].read_text(), parse_constant=lambda word: pytest.fail(word))
    tables = tables_of(targets["markdown"].read_text())
    assert all(len({len(row) for row in rows}) == 1 for rows in tables.values())
    header, rule, *rows = tables["Boxes against truth, mean over 2 findings"]
    assert rule == ["---"] + ["---:"] * 4
    by_name = {row[0]: row for row in rows}
    with targets["csv"].open(newline="") as file:
        flat = {(r["method"], r["measure"], r["finding"], r["threshold"], r["figure"]): r for r in csv.DictReader(file)}
    for name, of in (("cam (b)", document), ("cam (moved)", document["others"]["cam (moved)"])):
        for at in ("0.1", "0.3", "0.5"):
            mean = of["mean"]["acc_afp"][at]
            low, high = of["intervals"]["mean"]["acc_afp"][at]["acc"]
            text = f"{mean['acc']:.3f} ({mean['afp']:.2f}) [{low:.3f}, {high:.3f}]"
            assert by_name[name][header.index(f"Acc (AFP) > {at}")] == text
            row = flat[name, "acc_afp", "mean", at, "acc"]
            assert [float(row[key]) for key in ("value", "low", "high")] == [mean["acc"], low, high]
    assert by_name["AM+KP, cai2018:2"][1] == "0.510 (0.62)"
    differs = document["differences"]["cam (moved)"]["mean"]["top1"]["mean_iou"]
    told = {row[0]: row for row in tables["Difference: cam (moved) minus cam (b)"]}["mean"][-1]
    assert told == (
        f"{differs['difference']:+.3f} p={differs['p']:.3f} [{differs['low']:+.3f}, {differs['high']:+.3f}]"
    )
    assert {"Acc (AFP) > 0.1, by finding", "Acc by the truth's size, mean over findings"} <= set(tables)
    text = targets["markdown"].read_text()
    assert "\nProtocol cai2018 (" in text
    assert "\n- In brackets: 95 % interval by bootstrap over patients, 50 samples.\n" in text


def test_no_bootstrap_no_intervals_and_a_seed_repeats(case, tmp_path):
    (tmp_path / "b.images.parquet").unlink()
    asked = (case[0], "--truth", case[1], "--json", "-")
    boxes = lines(tmp_path / "half.csv", HEADER, *(f"{name},Mass,0,0,20,20,1" for name in IMAGES[:12]))
    assert json.loads(command(*asked, *FAST, cwd=tmp_path))["intervals"] == {}
    drawn = [command(boxes, *asked[1:], "--bootstrap", "30", "--seed", seed, cwd=tmp_path) for seed in (4, 4, 5)]
    assert drawn[0] == drawn[1]
    assert json.loads(drawn[0])["intervals"] != json.loads(drawn[2])["intervals"]
    assert json.loads(drawn[0])["bootstrap"] == {
        "samples": 30, "seed": 4, "unit": "patient", "interval": "percentile, 95 %",
    }  # fmt: skip


def test_a_document_on_stdout_is_nothing_but_itself(case, tmp_path):
    for flag, start in (("--json", "{"), ("--csv", "method,"), ("--markdown", "**Boxes")):
        assert typed(case[0], "--truth", case[1], *FAST, flag, "-", cwd=tmp_path)[1].startswith(start)


# --- probabilities


def test_probabilities_have_areas_with_delongs_interval(dataset, trained, probable, tmp_path):
    asked = (probable, "--truth", dataset)
    document = json.loads(command(*asked, "--json", "-", cwd=tmp_path))
    assert (document["kind"], document["method"]) == ("probabilities", "ours")
    assert document["counts"]["splits"] == ["test"]
    index = open_dataset(dataset).select("test")
    table = pq.ParquetFile(probable).read()
    assert table["image_id"].cast(pa.string()).to_pylist() == index.table["image_id"].to_pylist()
    for c, finding in enumerate(index.findings):
        area, low, high = auc_interval(index.labels()[:, c], table[finding].cast(pa.float64()).to_numpy())
        figures = document["auc"].get(finding)
        if area == area:
            assert [figures[name] for name in ("auc", "low", "high")] == [area, low, high]
            printed = f"{finding} {area:.3f} [{low:.3f}, {high:.3f}]"
            assert printed in command(*asked, cwd=tmp_path), "by finding, unasked: only there is an interval"
    told = command(*asked, "--run", trained, "--against", "cai2018:4", cwd=tmp_path)
    assert "Probabilities against labels, mean over" in told
    assert "Protocol auc (DeLong et al. 1988)" in told
    assert "ResNet-MSA, cai2018:4" in told
    assert "of 20 patients, split test." in told
    assert "None of the 20 judged patients was trained or validated on." in told


def users(dataset: Path, path: Path, turned: int) -> Path:
    """A classifier that knows every Mass of the test films, but for the first `turned` of them."""
    index = open_dataset(dataset).select("test")
    label = index.labels(("Mass",))[:, 0]
    left = turned
    rows = []
    for k, (name, has) in enumerate(zip(index.table["image_id"].to_pylist(), label, strict=True)):
        wrong = has == 1 and left > 0
        left -= wrong
        rows.append(f"{name},{0 if wrong else has * 0.5 + k / 1000}")
    return lines(path, "image_id,Mass", *rows)


def test_two_classifiers_are_compared_other_minus_first(dataset, tmp_path):
    good, worse = (users(dataset, tmp_path / f"{n}.csv", n) for n in (0, 1))
    asked = (good, worse, "--truth", dataset, "--finding", "Mass")
    document = json.loads(command(*asked, "--json", "-", cwd=tmp_path))
    index = open_dataset(dataset).select("test")
    label = index.labels(("Mass",))[:, 0]
    scores = [[float(line.split(",")[1]) for line in path.read_text().splitlines()[1:]] for path in (good, worse)]
    first, second = (pa.array(values).to_numpy() for values in scores)
    expected = delong_test(label, second, first)
    found = document["differences"]["1"]["Mass"]
    assert document["auc"]["Mass"]["auc"] == 1
    assert found["difference"] == expected.difference < 0
    assert (found["p"], found["p_holm"]) == (expected.p, expected.p)
    printed = command(*asked, cwd=tmp_path)
    assert "Difference: 1 minus 0" in printed
    row = f"Mass {expected.difference:+.3f} p={expected.p:.3f} [{expected.low:+.3f}, {expected.high:+.3f}]"
    assert f"{row} Difference [95 % interval] and p by DeLong's paired test" in printed, "of one finding no mean"


def test_a_users_table_against_that_of_a_run(dataset, probable, tmp_path):
    """Turned round, every area is 1 minus what it was; the mean's difference is said, and not tested."""
    table = pq.ParquetFile(probable).read()
    rows = zip(*(table[name].to_pylist() for name in ("image_id", "Mass", "Nodule")), strict=True)
    turned = lines(tmp_path / "turned.csv", "image_id,Mass,Nodule", *(f"{i},{1 - m},{1 - n}" for i, m, n in rows))
    asked = (probable, turned, "--truth", dataset, "--finding", "Mass", "--finding", "Nodule")
    document = json.loads(command(*asked, "--json", "-", cwd=tmp_path))
    for finding in ("Mass", "Nodule"):
        ours, theirs = (at["auc"][finding]["auc"] for at in (document, document["others"]["turned"]))
        assert theirs == pytest.approx(1 - ours)
        assert document["differences"]["turned"][finding]["difference"] == pytest.approx(theirs - ours)
    mean = document["mean_differences"]["turned"]["difference"]
    assert f"mean {mean:+.3f} Difference [95 % interval]" in command(*asked, cwd=tmp_path)


def test_two_classifiers_of_one_file_name_are_told_apart(dataset, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    paths = [users(dataset, tmp_path / folder / "p.csv", n) for n, folder in enumerate("ab")]
    document = json.loads(command(*paths, "--truth", dataset, "--json", "-", cwd=tmp_path))
    assert [document["method"], *document["others"]] == [f"p ({path.with_suffix('')})" for path in paths]


def test_boxes_and_probabilities_do_not_mix(dataset, boxed, probable, tmp_path):
    for pair in ((boxed, probable), (probable, boxed)):
        said = command(*pair, "--truth", dataset, cwd=tmp_path, code=2)
        assert f"{probable} has probabilities, and {boxed} has none. Score boxes and probabilities apart." in said
    assert "has no labels. Name the dataset's folder" in command(
        probable, "--truth", dataset / "truth.parquet", cwd=tmp_path, code=1
    )


@pytest.mark.parametrize(
    "words",
    [
        "--protocol coco", "--afp-per all", "--order score", "--bounds wang2017", "--readers union", "--by-reader",
        "--skip-faulty", "--columns image_id=a", "--name a=b", "--maps m", "--tune oracle", "--bootstrap 5", "--seed 1",
    ],
)  # fmt: skip
def test_options_of_boxes_are_refused_for_probabilities(dataset, probable, tmp_path, words):
    said = command(probable, "--truth", dataset, *words.split(), cwd=tmp_path, code=2)
    assert f"has probabilities, and these are for boxes: {words.split()[0]}. Leave them out." in said


def test_sizes_are_of_truth_boxes(dataset, probable, tmp_path):
    said = command(probable, "--truth", dataset, "--sizes", cwd=tmp_path, code=2)
    assert "--sizes is of truth boxes, and none are judged here" in said


# --- mistakes


def mistaken(folder: Path) -> None:
    """Files that someone may name by mistake; b.parquet and truth.parquet are good."""
    mine(folder / "b.parquet")
    draw(folder / "truth.parquet")
    (folder / "empty").mkdir()
    (folder / "none.csv").write_text("")
    (folder / "none.parquet").write_bytes(b"")
    (folder / "note.txt").write_text("see the other folder\n")
    (folder / "cut.parquet").write_bytes((folder / "b.parquet").read_bytes()[:2000])
    (folder / "half.json").write_text('{"images": [')
    (folder / "other.json").write_text('{"images": []}')
    pq.write_table(pa.table({"a": [1]}), folder / "other.parquet")
    pq.write_table(pq.ParquetFile(folder / "b.parquet").read().slice(0, 0), folder / "norows.parquet")
    corners = ",".join(BOX)
    plain = f"image_id,finding,{corners}"
    lines(folder / "header.csv", plain)
    lines(folder / "strange.csv", plain, "z.png,Mass,1,1,9,9")
    lines(folder / "text.csv", plain, "000.png,Mass,1,1,9,wide")
    lines(folder / "turned.csv", plain, "000.png,Mass,9,9,1,1")
    lines(folder / "twice.csv", plain, *["000.png,Mass,1,1,9,9"] * 2)
    lines(folder / "mas.csv", plain, "000.png,Mas,1,1,9,9")
    lines(folder / "large.csv", plain, "000.png,Mass,1,1,900,900")
    lines(folder / "semicolons.csv", plain.replace(",", ";"), "000.png;Mass;1;1;9;9")
    lines(folder / "named.csv", "file,what,a,b,c,d", "000.png,Mass,1,1,9,9")
    lines(folder / "resized.csv", SIZED, "000.png,Mass,1,1,9,9,1,64,64")
    coco(folder / "resized.json", [("000.png", "Mass", 1, 1, 9, 9)], ["000.png"], 64)
    (folder / "latin.csv").write_bytes(f"{plain}\n000.png,Maß,1,1,9,9\n".encode("latin-1"))
    shutil.copy(folder / "b.parquet", folder / "s-00001-of-00002.parquet")


T = "--truth truth.parquet"
MISTAKES = [
    (f"empty {T}", 1, "no boxes table at empty"),
    (f"missing.parquet {T}", 1, "no boxes table at missing.parquet"),
    (f"missing*.parquet {T}", 1, "no boxes table at missing*.parquet"),
    (f"none.csv {T}", 1, "cannot be read as CSV"),
    (f"none.parquet {T}", 1, "cannot be read as Parquet"),
    (f"note.txt {T}", 1, "cannot be read as Parquet"),
    (f"cut.parquet {T}", 1, "cannot be read as Parquet"),
    (f"other.parquet {T}", 1, "lacks image_id, finding"),
    (f"b.images.parquet {T}", 1, "lacks x_min"),
    (f"norows.parquet {T}", 1, "has no boxes, and no table beside it of the images"),
    (f"header.csv {T}", 1, "has no boxes, and no table beside it"),
    (f"strange.csv {T}", 1, "None of the 1 images of these boxes has a truth box (for instance z.png"),
    (f"text.csv {T}", 1, "1 faulty of 1 rows: y_max is not a finite number: row 1"),
    (f"mas.csv {T}", 1, "The truth has boxes of Mass, which mas does not know. Did you mean Mas?"),
    (f"semicolons.csv {T}", 1, "lacks image_id"),
    (f"latin.csv {T}", 1, "cannot be read as CSV"),
    (f"resized.csv {T}", 1, "000.png has image_width 64 here and 128 in the truth"),
    (f"large.csv {T}", 1, "large has 1 of 1 boxes outside their image, the first: 000.png, Mass: x_max is beyond"),
    (f"s-00001-of-00002.parquet {T}", 1, "1 of 2 shards are missing"),
    (f"b.parquet b.parquet {T}", 2, "b.parquet is named twice"),
    ("b.parquet --truth missing", 1, "no truth at missing"),
    ("b.parquet --truth empty", 1, "in no layout that is known"),
    ("b.parquet --truth note.txt", 1, "in no form that is known"),
    ("b.parquet --truth none.csv", 1, "it is empty"),
    ("b.parquet --truth header.csv", 1, "has no truth boxes"),
    ("b.parquet --truth half.json", 1, "damaged JSON"),
    ("b.parquet --truth other.json", 1, "in no form that is known"),
    ("b.parquet --truth cut.parquet", 1, "damaged Parquet"),
    ("b.parquet --truth strange.csv", 1, "No image of cam has a truth box"),
    ("b.parquet --truth text.csv", 1, "1 not a number y_max: row 1"),
    ("b.parquet --truth turned.csv", 1, "1 faulty of 1 rows"),
    ("b.parquet --truth turned.csv --skip-faulty", 1, "has no truth boxes"),
    ("b.parquet --truth twice.csv", 1, "1 duplicated: row 2"),
    ("b.parquet --truth mas.csv", 1, "Did you mean Mass?"),
    ("b.parquet --truth mas.csv --name Mas=Mass,Mas=X", 2, "Mas is given twice"),
    ("b.parquet --truth large.csv", 1, "boxes outside their image, the first: 000.png, Mass: x_max is beyond"),
    ("b.parquet --truth resized.json", 1, "image_width 128 here and 64 in the truth"),
    ("b.parquet --truth named.csv", 1, "can be named: --columns"),
    ("b.parquet --truth named.csv --columns image_id=files", 2, "no column 'files' for image_id. Did you mean file?"),
    ("b.parquet --truth named.csv --columns image=file", 2, "no column 'image' to be named. Did you mean image_id?"),
    ("b.parquet --truth named.csv --columns file", 2, "'file' is not of the form name=value"),
    (f"b.parquet {T} --protocol cai", 2, "Did you mean 'cai2018'?"),
    (f"b.parquet {T} --afp-per findings", 2, "Did you mean 'finding'?"),
    (f"b.parquet {T} --order scores --bounds wang2017", 2, "Did you mean 'score'?"),
    (f"b.parquet {T} --order score", 2, "there is no bound. Add --bounds, or leave --order out"),
    (f"b.parquet {T} --bounds wang", 2, "Did you mean wang2017?"),
    (f"b.parquet {T} --bounds note.txt", 1, "is no table of bounds"),
    (f"b.parquet {T} --against cai:2", 2, "Did you mean 'cai2018'?"),
    (f"b.parquet {T} --readers fuse", 2, "Did you mean fused?"),
    (f"b.parquet {T} --by-reader", 1, "does not have boxes of several readers"),
    (f"{T} --maps empty --protocol maxboxacc2 --by-reader", 2, "--by-reader judges boxes, and none are named"),
    (f"b.parquet {T} --split tset", 2, "Did you mean test?"),
    (f"b.parquet {T} --split train", 1, "no truth boxes of train"),
    (f"b.parquet {T} --finding mass", 1, "Did you mean Mass?"),
    (f"b.parquet {T} --name Hernia=Mass", 2, "No box is of 'Hernia'"),
    (f"b.parquet {T} --name Hernia", 2, "'Hernia' is not of the form name=value"),
    (f"b.parquet {T} --bootstrap few", 2, "--bootstrap"),
    (f"b.parquet {T} --seeds 1", 2, "No such option: --seeds"),
    (f"b.parquet {T} --run empty", 1, "There is no run in empty"),
    (f"b.parquet {T} --json empty", 2, "--json empty cannot be written: it is a folder"),
    (f"b.parquet {T} --json note.txt/s.json", 1, "note.txt is a file"),
    (f"b.parquet {T} --csv b.parquet", 2, "--csv b.parquet cannot be written: b.parquet is to be scored"),
    (f"b.parquet {T} --markdown ./truth.parquet", 2, "truth.parquet is to be scored"),
    (f"b.parquet {T} --json s --csv ./s", 2, "--csv ./s cannot be written: it takes what --json writes"),
    (f"b.parquet {T} --json - --csv -", 2, "--json and --csv both go to stdout"),
    (f"b.parquet {T} --json /proc/s.json", 1, "/proc/s.json cannot be written"),
    ("b.parquet", 2, "No truth is named"),
    (T, 1, "no boxes table at boxes.parquet"),
]


@pytest.fixture(scope="module")
def mess(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mistakes")
    mistaken(folder)
    return folder


@pytest.mark.parametrize(("words", "code", "said"), MISTAKES, ids=[words for words, _, _ in MISTAKES])
def test_a_mistake_is_one_sentence_of_what_and_one_of_what_to_do(mess, words, code, said):
    before = {path: path.read_bytes() for path in mess.rglob("*") if path.is_file()}
    exit_code, out, told = typed(*words.split(), *FAST if "--bootstrap" not in words else (), cwd=mess)
    assert exit_code == code, told
    assert out == ""
    text = " ".join(told.split())
    assert said in text
    assert "Traceback" not in told
    assert "fault of cxrmine" not in told
    if not told.startswith("Usage:"):
        lines_ = told.splitlines()
        assert (len(lines_), lines_[0][:7], lines_[1][:7]) == (2, "error: ", " " * 7), told
    assert {path: path.read_bytes() for path in mess.rglob("*") if path.is_file()} == before


def test_a_place_that_is_not_there_is_made(case, tmp_path):
    command(case[0], "--truth", case[1], *FAST, "--json", "some/where/s.json", cwd=tmp_path)
    assert json.loads((tmp_path / "some" / "where" / "s.json").read_text())["kind"] == "boxes"


def test_a_place_that_cannot_be_written_is_told_before_the_work(case, tmp_path, monkeypatch):
    monkeypatch.setattr(score, "run", lambda _: pytest.fail("it was scored first"))
    assert "cannot be written" in command(case[0], "--truth", case[1], "--json", "/proc/s", cwd=tmp_path, code=1)


def test_a_signal_ends_with_a_sentence(case, tmp_path, monkeypatch):
    def stopped(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(score, "run", stopped)
    assert "error: Stopped." in command(case[0], "--truth", case[1], cwd=tmp_path, code=75)


def test_a_truth_in_a_dataset_takes_no_options_of_files(dataset, boxed, tmp_path):
    for words in (("--columns", "image_id=a"), ("--skip-faulty",)):
        said = command(boxed, "--truth", dataset, *words, cwd=tmp_path, code=2)
        assert f"{words[0]} is for truth in a file, and {dataset} is a dataset" in said


# --- on a terminal


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, columns: int, *table: object, **more: str) -> str:
    """What console.table shows on a terminal of so many columns, without its colours; 0: in a pipe."""
    screen = Terminal() if columns else io.StringIO()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", str(columns or 80))
    console.table(*table, **more)  # type: ignore[arg-type]
    monkeypatch.undo()
    return re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue())


def test_a_table_is_never_cut_off(monkeypatch, tmp_path):
    header = ["finding", *(f"method {k}" for k in range(6))]
    rows = [["Mass", *("0.123 (0.45)\n[0.111, 0.222]" for _ in range(6))], ["mean", *(f"cell {k}" for k in range(6))]]
    for columns, parts in ((80, 2), (40, 6), (200, 1), (0, 1)):
        text = shown(monkeypatch, columns, "Title", header, rows)
        assert all(len(line) <= (columns or 200) for line in text.splitlines())
        assert all(text.count(f"{word} {k}") == 1 for word in ("method", "cell") for k in range(6))
        assert text.count("[0.111, 0.222]") == 6
        assert text.count("Mass") == text.count("finding") == parts
    assert max(map(len, shown(monkeypatch, 0, "T", ["", *["x" * 40] * 9], [["r", *["y"] * 9]]).splitlines())) > 360


def test_what_the_figures_are_stands_above_them_and_the_notes_below(monkeypatch):
    table = ("Title", ["", "a"], [["row", "1"]], "first note " * 12 + "\nsecond note")
    piped = shown(monkeypatch, 0, *table, above="what it is " * 12)
    assert len(piped.splitlines()) == 10, "a pipe has every line as it is"
    text = shown(monkeypatch, 60, *table, above="what it is " * 12)
    assert all(len(line) <= 60 for line in text.splitlines())
    assert "\n  " in text, "what goes on is indented"
    places = [text.index(word) for word in ("Title", "what it is", "row", "first note", "\nsecond note")]
    assert places == sorted(places)


def test_the_default_tables_fit_a_terminal_of_80_columns(monkeypatch, case):
    result = score.run(score.Score((case[0],), case[1], samples=20))
    text = shown(monkeypatch, 80, *result.tables()["summary"])
    assert all(len(line) <= 80 for line in text.splitlines())
    assert text.count("top-1 IoU") == 1
    assert len(re.findall("^ typical box", text, re.MULTILINE)) == 1, "in one part"
