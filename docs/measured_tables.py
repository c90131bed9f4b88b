"""Markdown tables of what was measured, from the JSON that the scripts of examples/ leave: a paper, a function."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from cxrmine.scoring.figures import MEAN
from cxrmine.scoring.statistics import mean_interval

MINUS = " − "  # in the names of rows that are differences
ALL = "all"  # of findings together


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


def agcl_tables(measured: Mapping[str, Any]) -> str:
    """Tables 1 and 2 of Tang et al. 2018, and the seeds, from the JSON of examples/agcl_tables.py."""
    lines = [line for name in measured["tables"] for line in _agcl_table(measured, name)]
    if (seeds := len(measured["seeds"])) > 1:
        lines.append(f"Mean over {seeds} seeds of random numbers ± half of its 95 % t-interval; differences are taken")
        lines.append("seed by seed.")
    lines.append("`longer` is AGL-2 with a weight of 0 for maps: it learns on for as long. `channels` is AGCL-2 with")
    lines.append("agcl.regression = channels and a weight of 0.005. AGL-1, AGCL-1: after one iteration.")
    lines.append(f"`{measured['command']}`; {measured['date']}, {measured['hardware']}, cxrmine {measured['version']}.")
    return "\n".join(lines) + "\n"


def _agcl_table(measured: Mapping[str, Any], name: str) -> list[str]:
    of, trees = measured["tables"][name], _trees(measured, name)
    rows = [*dict.fromkeys(row for tree in trees for row in tree), *measured["paper"].get(name, ())]
    findings = sorted({column for tree in trees for row in tree.values() for column in row} - {ALL})
    places: list[tuple[str, str, str]]  # column, figure, title
    if name == "1":
        places = [(f, "auc", f) for f in findings if f != MEAN] + [(MEAN, "auc", MEAN)]
    elif name == "2":
        places = [(ALL, figure, figure) for figure in of["cell"]]
        places += [(finding, "recall", f"recall of {finding}") for finding in findings]
    elif name == "seeds":
        titles = {"seeds": "seeds", "new": "new", "of present": "of those present", "precision": "highest in a box"}
        places = [(ALL, figure, title) for figure, title in titles.items()]
        places += [(finding, "precision", finding) for finding in findings]
    else:
        without = next(column for column in findings if column.startswith(f"{MEAN} without"))
        places = [(MEAN, figure, figure.replace("acc", "Acc").replace("afp", "AFP")) for figure in of["cell"]]
        places += [(without, "acc 0.3", f"Acc 0.3, {without.removeprefix(MEAN).strip()}")]
    body = [[row, *(_cell(measured, name, row, column, figure) for column, figure, _ in places)] for row in rows]
    header = ["", *(title for *_, title in places)]
    lines = [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *body)]
    title = f"Table {name}" if name.isdigit() else {"acc": "Boxes by IoU", "seeds": "Seeds"}[name]
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
    found = [tree.get(row, {}).get(column, {}) for tree in trees]
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
