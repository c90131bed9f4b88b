"""Writes docs/commands.md and docs/recipes.md from the code, what is measured into docs/methods.md, and what check
prints of small datasets into docs/data.md.

Run it as python docs/build.py; a test compares. measured/am-phantom.json is the am-tables.json that
examples/am_tables.py leaves, which prints its tables with am_tables(); ham-….json are those of ham_tables.py.
"""

import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from typer.testing import CliRunner

from cxrmine.cli import app
from cxrmine.config import (
    AttentionMining,
    Augment,
    Boxes,
    Data,
    HierarchicalAttention,
    Mine,
    Network,
    OrganWeighted,
    Phase,
    Recipe,
    Train,
)
from cxrmine.recipe_files import builtin_recipes
from cxrmine.scoring.figures import MEAN
from cxrmine.scoring.statistics import mean_interval

HERE = Path(__file__).parent
AM_TABLES = HERE / "measured" / "am-phantom.json"
HAM_TABLES = [HERE / "measured" / f"{name}-phantom.json" for name in ("ham-chain", "ham")]
BEGIN, END = (f"<!-- am tables: {word} -->\n" for word in ("begin", "end"))
IRNET_TABLES = HERE / "measured" / "irnet-phantom.json"
IRNET_BEGIN, IRNET_END = (f"<!-- irnet tables: {word} -->\n" for word in ("begin", "end"))
HAM_BEGIN, HAM_END = (f"<!-- ham tables: {word} -->\n" for word in ("begin", "end"))
MINUS = " − "  # in the names of rows that are differences
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
    """docs/methods.md as it is, with the tables of both attention minings between their marks."""
    page = (HERE / "methods.md").read_text()
    tables = f"\n{am_tables(json.loads(AM_TABLES.read_text()))}\n" if AM_TABLES.is_file() else ""
    page = page[: page.index(BEGIN)] + BEGIN + tables + page[page.index(END) :]
    tables = "".join(f"\n{ham_tables(json.loads(path.read_text()))}\n" for path in HAM_TABLES if path.is_file())
    page = page[: page.index(HAM_BEGIN)] + HAM_BEGIN + tables + page[page.index(HAM_END) :]
    found = f"\n{irnet_tables(json.loads(IRNET_TABLES.read_text()))}\n" if IRNET_TABLES.is_file() else ""
    return page[: page.index(IRNET_BEGIN)] + IRNET_BEGIN + found + page[page.index(IRNET_END) :]


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


def am_tables(measured: Mapping[str, Any]) -> str:
    """The tables of Cai et al. 2018 from the JSON of examples/am_tables.py, and what their cells are."""
    lines = [line for name in measured["tables"] for line in _am_table(measured, name)]
    if (seeds := len(measured["seeds"])) > 1:
        lines.append(f"Mean over {seeds} seeds ± half of its 95 % t-interval; differences are taken seed by seed.")
    else:
        lines.append("In brackets 95 % intervals: by bootstrap over patients, those of the AUC DeLong's.")
    if measured["made_up"]:
        lines.append("The second mean leaves out Cardiomegaly: a fixed box finds any heart. ref. is the base network,")
        lines.append("boxed as in Wang et al. 2017.")
    else:
        lines.append("ref. is Wang et al. 2017, and rows with cai2018 are the paper's, as printed.")
    lines.append(f"`{measured['command']}`; {measured['date']}, {measured['hardware']}, cxrmine {measured['version']}.")
    return "\n".join(lines) + "\n"


def _am_table(measured: Mapping[str, Any], name: str) -> list[str]:
    """A row a threshold and row of the table, a column a finding; where a cell is Acc, boxes and AFP at the end."""
    of, trees = measured["tables"][name], [tree[name] for tree in measured["figures"].values()]
    columns = [*dict.fromkeys(column for tree in trees for column in tree[[*of["rows"]][-1]])]
    last = {"boxes a pair": "boxes", "AFP": "afp {t}"} if of["cell"] == ["acc"] else {}
    body = []
    for t in of["at"]:
        shown = [f"{figure} {t}".strip() for figure in of["cell"]]
        for row in (*trees[0], *measured["paper"].get(name, ())):
            cells = [_cell(measured, name, row, column, *shown) for column in columns]
            cells += [_cell(measured, name, row, MEAN, figure.format(t=t)) for figure in last.values()]
            body.append([*([t] if t else []), row, *cells])
    header = [*(["T(IoU)"] if of["at"][0] else []), "", *columns, *last]
    lines = [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *body)]
    return [f"**Table{'s' * (' ' in name)} {name}.** {of['says']}", "", *lines, ""]


def _trees(measured: Mapping[str, Any], name: str) -> list[Any]:
    """A table's rows, of every seed (and fold) that has it."""
    return [tree[name] for tree in measured["figures"].values() if name in tree]


def ham_tables(measured: Mapping[str, Any]) -> str:
    """The tables of Ouyang et al. 2021 from the JSON of examples/ham_tables.py, and what their cells are."""
    lines = [line for name in measured["tables"] for line in _ham_table(measured, name)]
    counts = {len(_trees(measured, name)) for name in measured["tables"]}
    if counts != {1}:
        of = f"{seeds} seeds" if (seeds := len(measured["seeds"])) > 1 else "one seed"
        folds = " × 5 folds, where boxes are learned," if any("fold" in one for one in measured["figures"]) else ""
        lines.append(f"Mean over {of}{folds} ± half of its 95 % t-interval; differences are taken seed by seed.")
    if 1 in counts:
        lines.append("In brackets 95 % intervals: by bootstrap over patients, those of the AUC DeLong's.")
    lines.append(
        "IoU and IoR: share of pairs whose boxes together are above. The second mean leaves out Cardiomegaly: a"
    )
    if measured["made_up"]:
        lines.append(
            "fixed box finds any heart. RN is the small network; every row begins with class activation maps of"
        )
        lines.append(
            "its stride and pooling, and learns as long from there. Boxes: those of a tenth of the training patients"
        )
        lines.append("(boxes.annotated), if the command says no other share.")
    else:
        lines.append("fixed box finds any heart. Rows with ham2021 are the paper's, as printed.")
    lines.append(f"`{measured['command']}`; {measured['date']}, {measured['hardware']}, cxrmine {measured['version']}.")
    return "\n".join(lines) + "\n"


def irnet_tables(measured: Mapping[str, Any]) -> str:
    """Tables 2 and 3 of Fang et al. 2021, the ablation and the prior, from the JSON of examples/irnet_tables.py."""
    lines = [line for name in measured["tables"] for line in _irnet_table(measured, name)]
    if (seeds := len(measured["seeds"])) > 1:
        lines.append(f"Mean over {seeds} seeds ± half of its 95 % t-interval; differences are taken seed by seed.")
    lines.append("The second mean leaves out Cardiomegaly: a fixed box finds any heart. False boxes per normal image:")
    lines.append("of all findings together, of the pairs above the run's thresholds.")
    lines.append(f"`{measured['command']}`; {measured['date']}, {measured['hardware']}, cxrmine {measured['version']}.")
    return "\n".join(lines) + "\n"


def _irnet_table(measured: Mapping[str, Any], name: str) -> list[str]:
    """One figure: a column a finding. Several: a column each, of the means."""
    of, trees = measured["tables"][name], _trees(measured, name)
    rows = [*trees[0], *measured["paper"].get(name, ())]
    if len(of["cell"]) == 1:
        found = dict.fromkeys(column for tree in trees for row in of["rows"] for column in tree[row])
        header = sorted(found, key=lambda column: (column.startswith(MEAN), column))
        places = [(column, of["cell"][0], column) for column in header]
    else:
        without = next(column for column in trees[0][rows[0]] if column.startswith(f"{MEAN} without"))
        places = [(MEAN, figure, figure.replace("acc", "Acc").replace("afp", "AFP")) for figure in of["cell"]]
        places += [(without, "acc 0.3", f"Acc 0.3, {without.removeprefix(MEAN).strip()}")]
    body = [[row, *(_cell(measured, name, row, column, figure) for column, figure, _ in places)] for row in rows]
    header = ["", *(title for *_, title in places)]
    lines = [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *body)]
    title = f"Table {name}" if name.isdigit() else {"ablation": "The ablation", "prior": "The prior"}[name]
    return [f"**{title}.** {of['says']}", "", *lines, ""]


def _ham_table(measured: Mapping[str, Any], name: str) -> list[str]:
    """A row a figure and row of the table, a column a finding; first the figures of the mean alone."""
    of, trees, paper = measured["tables"][name], _trees(measured, name), measured["paper"].get(name, {})
    names = dict.fromkeys(column for tree in trees for row in of["rows"] for column in tree[row])
    columns = sorted(names, key=lambda column: (column.startswith(MEAN), column))  # the means last
    body = []
    for figure in of["cell"]:
        for row in (*trees[0], *(row for row, own in paper.items() if any(figure in at for at in own.values()))):
            cells = [_ham_cell(measured, name, row, MEAN, alone) for alone in of["of_mean"]]
            cells += [_ham_cell(measured, name, row, column, figure) for column in columns]
            body.append([*([_above(figure)] if figure != "auc" else []), row, *cells])
    header = [*(["above"] if of["cell"] != ["auc"] else []), "", *(f"mean {one.upper()}" for one in of["of_mean"])]
    header += columns
    lines = [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *body)]
    title = f"Table {name}" if name.isupper() else "The chain"
    return [f"**{title}.** {of['says']}", "", *lines, ""]


def _above(figure: str) -> str:
    """acc 0.1 → Acc / AFP, IoU > 0.1"""
    measure, at = figure.split()
    return f"{ {'acc': 'Acc / AFP, IoU', 'iou': 'IoU', 'ior': 'IoR'}[measure] } > {at}"


def _ham_cell(measured: Mapping[str, Any], name: str, row: str, column: str, figure: str) -> str:
    found = [tree.get(row, {}).get(column, {}) for tree in _trees(measured, name)]
    if name == "II" and len(found) > 1 and all(figure in of for of in found):
        values = [of[figure] for of in found]
        return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"
    return _cell(measured, name, row, column, figure, figure.replace("acc", "afp") if "acc" in figure else "")


def _cell(measured: Mapping[str, Any], name: str, row: str, column: str, figure: str, beside: str = "") -> str:
    """0.444 ± 0.051 / 1.65, or of one seed 0.444 (0.394 to 0.491) / 1.65; a dash where a seed has no such figure."""
    paper = measured["paper"].get(name, {})
    trees = [paper] if row in paper else _trees(measured, name)
    found = [tree[row].get(column, {}) for tree in trees]
    if not all(figure in of for of in found):
        return "–"
    sign = "+" if MINUS in row else ""
    said = _mean([of[figure] for of in found], sign)
    for tree in measured["intervals"].values():
        if ends := tree.get(name, {}).get(row, {}).get(column, {}).get(figure):
            said += f" ({ends[0]:{sign}.3f} to {ends[1]:{sign}.3f})"
    if "lesions" in found[0] and not sign:
        said += f" ({sum(of[figure.replace('acc', 'hit')] for of in found)}/{sum(of['lesions'] for of in found)})"
    return f"{said} / {mean_interval([of[beside] for of in found])[0]:{sign}.2f}" if beside else said


def _mean(values: Sequence[float], sign: str) -> str:
    mean, _, high = mean_interval(values)
    return f"{mean:{sign}.3f} ± {high - mean:.3f}" if len(values) > 1 else f"{mean:{sign}.3f}"


if __name__ == "__main__":
    for page in (commands, recipes, methods, data):
        (HERE / f"{page.__name__}.md").write_text(page())
