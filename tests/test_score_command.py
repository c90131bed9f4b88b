"""`cxrmine score` as it is typed: every option does what its help says, and settings come from where they should."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cxrmine.scoring.protocols import PROTOCOLS
from cxrmine.stages import mine as mining
from tests.test_score import IMAGES, draw, mine


@pytest.fixture(scope="module")
def boxed(dataset, trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("mined") / "boxed.parquet"
    mining.run(mining.Mine(trained, dataset, out, split="boxed", device="cpu", workers=1))
    return out


def command(*words: object, cwd: Path, code: int = 0, **settings: object) -> str:
    """What `cxrmine score` says; `settings` are its environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CXRMINE_")}
    environment |= {name: str(value) for name, value in settings.items()}
    done = subprocess.run(
        [sys.executable, "-m", "cxrmine", "score", *map(str, words)],
        capture_output=True, text=True, check=False, cwd=cwd, env={**environment, "COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return " ".join((done.stdout if code == 0 else done.stderr).split())


def test_the_command_has_controls_where_truth_is_a_dataset(dataset, boxed, tmp_path):
    document = json.loads(command(boxed, "--truth", dataset, "--json", "-", cwd=tmp_path))
    assert all(at["mean"]["acc_afp"]["0.1"]["acc"] > 0 for at in document["controls"].values())
    assert document["counts"]["judged_pairs_without_box"] < document["counts"]["judged_pairs"]


def test_the_command_says_what_the_run_has_seen(dataset, trained, boxed, tmp_path):
    asked = (boxed, "--truth", dataset)
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
    told = re.search(r"The run was trained on (\d+) of the (\d+) judged patients: these", command(cwd=tmp_path))
    assert told is not None
    assert told[1] == told[2]


def test_where_the_command_takes_its_truth_from(dataset, boxed, tmp_path):
    assert "No truth is named" in command(boxed, cwd=tmp_path, code=2)
    (tmp_path / "cxrmine.toml").write_text('data = "d"\n')
    assert "no boxes table at d" in command(boxed, cwd=tmp_path, code=1)
    (tmp_path / "cxrmine.toml").write_text('data = "d"\ntruth = "t"\n')
    assert "no boxes table at t" in command(boxed, cwd=tmp_path, code=1)
    assert "no boxes table at e" in command(boxed, cwd=tmp_path, code=1, CXRMINE_DATA="e")
    assert "no boxes table at f" in command(boxed, "--truth", "f", cwd=tmp_path, code=1, CXRMINE_DATA="e")
    assert "Protocol" in command(boxed, cwd=tmp_path, CXRMINE_DATA=dataset)


def test_the_command_judges_the_splits_and_findings_that_are_asked_for(tmp_path):
    drawn = draw(tmp_path / "truth.parquet")
    path = mine(tmp_path / "b.parquet", IMAGES)

    def judged(*words: str) -> list[int]:
        document = json.loads(command(path, "--truth", drawn, *words, "--json", "-", cwd=tmp_path))
        return [document["counts"][name] for name in ("judged_pairs", "findings")]

    assert judged() == [21, 2]
    assert judged("--split", "val") == [5, 1]
    assert judged("--split", "val, test") == [21, 2]
    assert judged("--finding", "Nodule") == [1, 1]
    assert judged("--finding", "Nodule", "--finding", "Mass", "--split", "test") == [16, 2]
    assert "Did you mean test?" in command(path, "--truth", drawn, "--split", "tset", cwd=tmp_path, code=2)


def test_the_help_names_every_protocol(tmp_path):
    words = set(re.findall(r"[\w-]+", command("--help", cwd=tmp_path)))
    assert set(PROTOCOLS) <= words


def test_the_command_follows_the_protocol(tmp_path):
    drawn = draw(tmp_path / "truth.parquet")
    path = mine(tmp_path / "b.parquet", IMAGES)
    for name, rules in PROTOCOLS.items():
        text = command(path, "--truth", drawn, "--protocol", name, "--afp-per", "rows", cwd=tmp_path)
        assert f"Protocol {name}: a truth box is hit at IoU {rules.rule} T" in text
        assert "truth boxes of all findings" in text
    assert "Did you mean 'cai2018'?" in command(path, "--truth", drawn, "--protocol", "cai", cwd=tmp_path, code=2)


def test_the_command_does_not_vouch_for_a_run_that_did_not_make_the_boxes(dataset, trained, boxed, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    weights = other / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    told = command(boxed, "--truth", dataset, "--run", other, cwd=tmp_path)
    assert "cam was not mined with this run" in told
    assert "trained or validated on" not in told


def test_the_command_says_when_truth_is_another_dataset(dataset, boxed, tmp_path):
    assert "CAREFUL" not in command(boxed, "--truth", dataset, cwd=tmp_path)
    other = tmp_path / "other"
    shutil.copytree(dataset, other)
    entry = other / "Data_Entry_2017_v2020.csv"
    entry.write_text(entry.read_text().replace("No Finding", "Hernia", 1))
    assert "CAREFUL: the boxes of cam were mined from another dataset" in command(boxed, "--truth", other, cwd=tmp_path)


def test_the_command_takes_the_shells_own_glob_of_shards(dataset, trained, boxed, tmp_path):
    for i in (1, 2):
        mining.run(mining.Mine(trained, dataset, tmp_path / "b.parquet", "boxed", shard=(i, 2), device="cpu"))
    named = sorted(tmp_path.glob("b-*.parquet"))
    assert len(named) == 4
    figures = [command(*some, "--truth", dataset, "--csv", "-", cwd=tmp_path) for some in (named, [boxed])]
    assert figures[0] == figures[1]
