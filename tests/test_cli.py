"""The command line as a person meets it: quick help, light imports, one sentence a fault, and the exit codes."""

import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxrmine.stages.mine import Mine, run
from tests.conftest import TINY

COMMANDS = ("demo", "phantom", "check", "train", "predict", "mine", "score", "severity")
SETS = [word for override in TINY for word in ("--set", override)]


def cxrmine(*words: object, cwd: Path | None = None, **more: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cxrmine", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, **more)  # type: ignore[call-overload]


def refused(done: subprocess.CompletedProcess[str], code: int, *parts: str) -> None:
    """The exit code, the parts in the message, no traceback, and a message of at most two sentences' lines."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr[done.stderr.rindex("error: ") :]
    assert len(last.strip().splitlines()) <= 2, last
    for part in parts:
        assert part in last, last


@pytest.fixture(scope="module")
def boxes(dataset: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("boxes") / "b.parquet"
    run(Mine(trained, dataset, out, split="boxed", device="cpu", workers=1))
    return out


def test_help_names_every_command() -> None:
    done = cxrmine("--help")
    assert done.returncode == 0
    assert all(f"\n  {command} " in done.stdout for command in COMMANDS)
    assert "..." not in done.stdout.partition("Commands:")[2], "a summary is cut off"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    done = cxrmine(command, "--help")
    assert done.returncode == 0
    assert f"cxrmine {command}" in done.stdout


def test_light_commands_start_without_torch(dataset: Path, boxes: Path, tmp_path: Path) -> None:
    watch = (
        "import sys; from cxrmine.cli import app\ntry: app(sys.argv[1:])\nexcept SystemExit as end: code = end.code\n"
    )
    watch += "heavy = {'torch', 'timm', 'pandas', 'accelerate'} & set(sys.modules); sys.exit(f'{heavy} {code}')"
    score = ["score", str(boxes), "--truth", str(dataset / "truth.parquet"), "--json", str(tmp_path / "s.json")]
    for words in (
        ["--help"],
        ["check", "--data", str(dataset)],
        score,
        ["phantom", str(tmp_path / "p"), "--images", "2"],
        ["severity", str(dataset), "--out", str(tmp_path / "severity.parquet")],
    ):
        done = subprocess.run([sys.executable, "-c", watch, *words], capture_output=True, text=True, check=False)
        assert done.stderr.strip().endswith("set() 0"), (words, done.stderr)


def test_what_is_wrong_with_the_dataset_is_said(dataset: Path, trained: Path, tmp_path: Path) -> None:
    refused(cxrmine("train", "--data", tmp_path / "none"), 1, "no dataset folder")
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(cxrmine("check", "--data", empty), 1, "no layout that is known", "docs/data.md")
    refused(cxrmine("train", cwd=empty), 2, "No data is named", "CXRMINE_DATA")
    finding = ("--set", 'data.findings=["Masss"]')
    refused(cxrmine("train", "--data", dataset, "--recipe", "demo", *finding), 1, "Masss", "Did you mean Mass?")
    split = cxrmine("mine", "--run", trained, "--data", dataset, "--split", "tests", "--out", tmp_path / "b.parquet")
    refused(split, 2, "tests", "Did you mean test?")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty"]
    assert list(empty.iterdir()) == []


def test_what_is_wrong_with_the_recipe_is_said(dataset: Path, tmp_path: Path) -> None:
    run_ = ("--run", tmp_path / "run")
    misspelt = cxrmine("train", "--data", dataset, "--recipe", "demo", "--set", "train.bach_size=3", *run_)
    refused(misspelt, 1, "no key train.bach_size", "Did you mean batch_size?")
    refused(
        cxrmine("train", "--data", dataset, "--recipe", "dem", *run_), 1, "no recipe named dem", "Did you mean demo?"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", ["truncated", "empty", "not an image", "missing"])
def test_images_that_cannot_be_read_are_named(dataset: Path, tmp_path: Path, how: str) -> None:
    data = tmp_path / "data"
    shutil.copytree(dataset, data)
    film = sorted((data / "images").iterdir())[0]
    content = {"truncated": film.read_bytes()[:-40], "empty": b"", "not an image": b"a letter", "missing": b""}[how]
    if how == "missing":
        film.unlink()
    else:
        film.write_bytes(content)
    done = cxrmine("check", "--data", data)
    assert done.returncode == 1
    assert film.name in done.stdout
    assert "Traceback" not in done.stderr


def test_a_misspelt_option_or_command_is_an_error_of_the_command_line() -> None:
    assert cxrmine("trian").returncode == 2
    assert cxrmine("train", "--reciep", "cam").returncode == 2
    assert cxrmine("mine").returncode == 2
    refused(cxrmine("mine", "--data", "d", "--run", "r", "--out", "b.parquet", "--shard", "4/3"), 2, "--shard 4/3")


def test_a_boxes_file_that_is_none_or_is_broken_is_refused(dataset: Path, boxes: Path, tmp_path: Path) -> None:
    def scored(table: pa.Table | None) -> subprocess.CompletedProcess[str]:
        path = tmp_path / "broken.parquet"
        if table is None:
            path.write_bytes(b"PAR1 no")
        else:
            pq.write_table(table, path)
        return cxrmine("score", path, "--truth", dataset / "truth.parquet")

    good = pq.ParquetFile(boxes).read()

    def changed(column: str, value: float) -> pa.Table:
        values = good[column].to_pylist()
        values[2] = value
        return good.set_column(good.column_names.index(column), column, pa.array(values, pa.float32()))

    refused(scored(None), 1, "broken.parquet")
    refused(scored(good.drop_columns(["x_max"])), 1, "x_max")
    refused(scored(changed("x_min", float("nan"))), 1, "row 3", "x_min")
    refused(scored(changed("x_max", 0.0)), 1, "row 3")
    refused(scored(changed("x_max", 4000.0)), 1, "row 3", "x_max is beyond image_width")
    refused(cxrmine("score", tmp_path / "none.parquet", "--truth", dataset), 1, "none.parquet")


def test_a_full_disk_leaves_no_half_file(dataset: Path, trained: Path, tmp_path: Path) -> None:
    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    out = tmp_path / "b.parquet"
    mine = ("mine", "--run", trained, "--data", dataset, "--out", out, "--device", "cpu")
    refused(cxrmine(*mine, preexec_fn=small), 1, "File too large")
    train = ("train", "--data", dataset, "--recipe", "demo", "--run", tmp_path / "run", "--device", "cpu", *SETS)
    refused(cxrmine(*train, preexec_fn=small), 1, "File too large")
    assert not out.exists()
    assert [p for p in tmp_path.rglob("*") if p.name.endswith((".tmp", ".parquet"))] == [
        tmp_path / "run" / "patients.parquet"
    ]


def test_settings_come_from_flag_then_environment_then_file(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "cxrmine.toml").write_text(f'data = "{dataset}"\n')
    assert cxrmine("check", "--fast", cwd=tmp_path).returncode == 0
    away = {**os.environ, "CXRMINE_DATA": "/nowhere"}
    refused(cxrmine("check", "--fast", cwd=tmp_path, env=away), 1, "/nowhere")
    assert cxrmine("check", "--fast", "--data", dataset, cwd=tmp_path, env=away).returncode == 0
    (tmp_path / "cxrmine.toml").write_text('dta = "x"\n')
    refused(cxrmine("check", cwd=tmp_path), 1, "dta", "The keys are data")


def test_a_pipe_that_closes_early_is_no_error_message(dataset: Path) -> None:
    command = f"{sys.executable} -m cxrmine check --fast --data {dataset} | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_shards_are_read_from_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    from cxrmine.commands.mine import parse_shard

    assert parse_shard(None) == (1, 1)
    assert parse_shard("2/3") == (2, 3)
    for first in ("0", "1"):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(int(first) + 1))
        monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "4")
        monkeypatch.setenv("SLURM_ARRAY_TASK_MIN", first)
        assert parse_shard(None) == (2, 4)


if __name__ == "__main__":  # python -m tests.test_cli: how long `cxrmine --help` takes, as a median of ten
    times = []
    for _ in range(10):
        start = time.perf_counter()
        cxrmine("--help")
        times.append(time.perf_counter() - start)
    sys.stdout.write(f"cxrmine --help: {statistics.median(times):.2f} s\n")


@pytest.mark.parametrize(("word", "code"), [("--version", 0), ("nonsense", 2)])
def test_one_of_several_processes_says_all_and_ends_with_its_code(word: str, code: int) -> None:
    """It leaves without the interpreter's own end, which threads of PyTorch may abort."""
    command = [sys.executable, "-m", "cxrmine", word]
    alone, of_two = (
        subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"WORLD_SIZE": processes})
        for processes in ("1", "2")
    )
    assert (alone.returncode, of_two.returncode) == (code, code)
    assert alone.stdout + alone.stderr == of_two.stdout + of_two.stderr != ""
