"""Writes docs/commands.md and docs/recipes.md from the code, what is measured into docs/methods.md, and what check
prints of small datasets into docs/data.md.

Run it as python docs/build.py; a test compares. measured/am-phantom.json is the am-tables.json that
examples/am_tables.py leaves, which prints its tables with am_tables(); ham-….json are those of ham_tables.py.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from typer.testing import CliRunner

from cxrmine.cli import app
from cxrmine.config import (
    Augment,
    Boxes,
    Data,
    Mine,
    Network,
    Phase,
    Recipe,
    Train,
)
from cxrmine.method_keys import AttentionMining, HierarchicalAttention, OrganWeighted, SeverityCurriculum
from cxrmine.recipe_files import builtin_recipes

sys.path.insert(0, str(Path(__file__).parent))

from measured_tables import agcl_tables, am_tables, ham_tables, irnet_tables

HERE = Path(__file__).parent
MEASURED = {  # paper → what makes its tables, and of which files of measured/
    "am": (am_tables, ("am",)),
    "ham": (ham_tables, ("ham-chain", "ham")),
    "irnet": (irnet_tables, ("irnet",)),
    "agcl": (agcl_tables, ("agcl",)),
}
COMMANDS = ("demo", "phantom", "check", "pack", "train", "predict", "mine", "refine", "score", "severity")
SECTIONS: dict[str, type[BaseModel]] = {
    "data": Data,
    "network": Network,
    "augment": Augment,
    "train": Train,
    "train.phases": Phase,
    "am": AttentionMining,
    "ham": HierarchicalAttention,
    "irnet": OrganWeighted,
    "agcl": SeverityCurriculum,
    "boxes": Boxes,
    "mine": Mine,
}


def commands() -> str:
    """The help of every command, as it is printed."""
    runner = CliRunner(env={"COLUMNS": "100", "TERM": "dumb"})
    parts = ["# Commands\n\nMade from the program by `python docs/build.py`.\n"]
    for words in ((), *((name,) for name in COMMANDS)):
        printed = runner.invoke(app, [*words, "--help"], prog_name="cxrmine").output
        lines = [line.rstrip() for line in printed.strip().splitlines()]
        parts.append(f"## {' '.join(('cxrmine', *words))}\n\n```\n" + "\n".join(lines) + "\n```\n")
    return "\n".join(parts)


def recipes() -> str:
    """Every key of a recipe with its default and its sentence, and the built-in recipes as they are."""
    parts = ["# Recipes\n\nMade from the program by `python docs/build.py`.\n"]
    parts.append("A recipe is a TOML file with everything that makes a run repeatable. An unknown key is an error.")
    parts.append("`--recipe NAME|FILE` chooses one, `--set section.key=value` changes a key.\n\n## Keys\n")
    parts.append("| key | default | |\n| --- | --- | --- |")
    parts += [f"| {key} | {default} | {sentence} |" for key, default, sentence in keys()]
    for name in builtin_recipes():
        text = (HERE.parent / "cxrmine" / "recipes" / f"{name}.toml").read_text()
        parts.append(f"\n## {name}\n\n```toml\n{text}```")
    return "\n".join(parts) + "\n"


def keys() -> Iterator[tuple[str, str, str]]:
    for name in ("name", "method"):
        yield name, "", Recipe.model_fields[name].description or ""
    for section, model in SECTIONS.items():
        for name, field in model.model_fields.items():
            if name != "phases":
                yield f"{section}.{name}", "" if field.is_required() else _shown(field.default), field.description or ""


def _shown(value: Any) -> str:
    return f"`{list(value) if isinstance(value, tuple) else value}`"


def methods() -> str:
    """docs/methods.md as it is, with what was measured of each paper between its marks."""
    page = (HERE / "methods.md").read_text()
    for paper, (tables, names) in MEASURED.items():
        files = [HERE / "measured" / f"{name}-phantom.json" for name in names]
        begin, end = (f"<!-- {paper} tables: {word} -->\n" for word in ("begin", "end"))
        found = "".join(f"\n{tables(json.loads(path.read_text()))}\n" for path in files if path.is_file())
        page = page[: page.index(begin)] + begin + found + page[page.index(end) :]
    return page


def data() -> str:
    """docs/data.md as it is, with what check prints now of each dataset of tests/in_documents.py between its marks."""
    sys.path.insert(0, str(HERE.parent))
    from tests.in_documents import EXAMPLES

    page = (HERE / "data.md").read_text()
    for name, write in EXAMPLES.items():
        with tempfile.TemporaryDirectory() as here, chdir(here):
            folder = write(Path(here))
            printed = CliRunner().invoke(app, ["check", "--data", folder]).stdout
        begin, end = (f"<!-- check of {name}: {word} -->\n" for word in ("begin", "end"))
        lines = [f"$ cxrmine check --data {folder}", *(line.rstrip() for line in printed.strip().splitlines())]
        shown = "```\n" + "\n".join(lines) + "\n```\n"
        page = page[: page.index(begin)] + begin + shown + page[page.index(end) :]
    return page


if __name__ == "__main__":
    for page in (commands, recipes, methods, data):
        (HERE / f"{page.__name__}.md").write_text(page())
