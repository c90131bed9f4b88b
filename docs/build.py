"""Writes docs/commands.md and docs/recipes.md from the code: python docs/build.py. A test compares."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from typer.testing import CliRunner

from cxrmine.cli import app
from cxrmine.config import Augment, Data, Mine, Network, Phase, Recipe, Train
from cxrmine.recipe_files import builtin_recipes

HERE = Path(__file__).parent
COMMANDS = ("demo", "phantom", "check", "train", "predict", "mine", "score")
SECTIONS: dict[str, type[BaseModel]] = {
    "data": Data,
    "network": Network,
    "augment": Augment,
    "train": Train,
    "train.phases": Phase,
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


if __name__ == "__main__":
    (HERE / "commands.md").write_text(commands())
    (HERE / "recipes.md").write_text(recipes())
