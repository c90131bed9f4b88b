"""Documents that could drift are compared with the program."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", ["commands", "recipes", "methods", "data"])
def test_generated_pages_are_what_the_program_says(name: str) -> None:
    build = runpy.run_path(str(ROOT / "docs" / "build.py"))
    assert (ROOT / "docs" / f"{name}.md").read_text() == build[name](), "run python docs/build.py"


def test_measured_tables_come_between_their_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = runpy.run_path(str(ROOT / "docs" / "build.py"))
    inside = build["methods"].__globals__
    page, measured = (ROOT / "docs" / "methods.md").read_text(), tmp_path / "am.json"
    monkeypatch.setitem(inside, "AM_TABLES", measured)
    without = build["methods"]()
    measured.write_text('{"seeds": 3}')
    monkeypatch.setitem(inside, "am_tables", lambda json: f"{json['seeds']} seeds\n")
    marks = build["BEGIN"] + build["END"]
    assert without.count(marks) == 1
    assert build["methods"]() == without.replace(marks, f"{build['BEGIN']}\n3 seeds\n\n{build['END']}")
    assert page.partition(build["BEGIN"])[0] == without.partition(build["BEGIN"])[0]
    assert page.partition(build["END"])[2] == without.partition(build["END"])[2]


def test_every_command_in_the_documents_exists() -> None:
    from typer.main import get_command

    from cxrmine.cli import app

    commands = get_command(app).commands  # type: ignore[attr-defined]
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for line in re.findall(rf"cxrmine ((?:{'|'.join(commands)})\b[^`\n|]*)", page.read_text()):
            options = {flag for p in commands[line.split()[0]].params for flag in p.opts} | {"--help"}
            assert set(re.findall(r"(?<!\S)--[a-z-]+", line)) <= options, f"{page.name}: cxrmine {line}"


def test_every_link_leads_somewhere() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name} → {target}"
        headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
        places = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert set(re.findall(r"\]\(#([^)]+)\)", page.read_text())) <= places, page.name
