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


def test_measured_tables_come_between_their_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    build = runpy.run_path(str(ROOT / "docs" / "build.py"))
    inside = build["methods"].__globals__
    page = (ROOT / "docs" / "methods.md").read_text()
    begin, end = (f"<!-- am tables: {word} -->\n" for word in ("begin", "end"))
    monkeypatch.setitem(inside, "MEASURED", {"am": (lambda found: f"{len(found['seeds'])} seeds\n", ("none", "am"))})
    made = build["methods"]()
    assert f"{begin}\n3 seeds\n\n{end}" in made
    assert made.partition(begin)[0] == page.partition(begin)[0]
    assert made.partition(end)[2] == page.partition(end)[2]


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
