"""What a person sees of a dataset that was checked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxrmine.data.index import SPLITS

SIZES_SHOWN = 4
SAID = ("present", "uncertain", "absent", "not_mentioned")


@dataclass(frozen=True)
class Sheet:
    """The arguments of console.table."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def tables(where: Path, d: dict[str, Any]) -> tuple[list[Sheet], str]:
    """The tables to show of the document of `check`, and the sentence to end on."""
    views = ", ".join(f"{view} {count:,}" for view, count in d["views"].items())
    shown = list(d["sizes"].items())[:SIZES_SHOWN]
    sizes = ", ".join(f"{size} {films:,}" for size, films in shown)
    more = len(d["sizes"]) - len(shown)
    notes = [*d["notes"], f"views: {views}", *([f"sizes: {sizes}" + (f", {more} more" * bool(more))] if shown else [])]
    top = Sheet(
        f"{where}: {d['layout']}",
        ("", *SPLITS, "all"),
        tuple((what, *(f"{d[what][s]:,}" for s in (*SPLITS, "all"))) for what in ("images", "patients")),
        "\n".join(notes),
    )
    keys = (*SPLITS, "boxes", "boxed_images")
    findings = Sheet(
        "Images that have the finding, and truth boxes",
        ("finding", *(key.replace("_", " ") for key in keys)),
        tuple((name, *(f"{row[key]:,}" for key in keys)) for name, row in d["findings"].items()),
        f"{d['boxes']['boxes']:,} boxes on {d['boxes']['images']:,} images\n{_unsaid(d)}".rstrip(),
    )
    labels = [_labels(d, split) for split in _with_unsaid(d)]
    faults = Sheet(
        "Faults",
        ("fault", "level", "count", "for instance"),
        tuple((f["kind"], f["level"], f"{f['count']:,}", "; ".join(f["examples"])) for f in d["faults"]),
    )
    return [top, findings, *labels, *([faults] if d["faults"] else [])], _closing(d)


def _with_unsaid(d: dict[str, Any]) -> list[str]:
    """The splits with a label that is neither present nor absent."""
    return [
        split
        for split in SPLITS
        if any(
            row["labels"][split]["uncertain"] or row["labels"][split]["not_mentioned"] for row in d["findings"].values()
        )
    ]


def _unsaid(d: dict[str, Any]) -> str:
    """Of which splits every other image is said not to have the finding, so that no table of theirs is needed."""
    plain = [split for split in SPLITS if d["images"][split] and split not in _with_unsaid(d)]
    return f"{', '.join(plain)}: every other image is labelled absent; none is uncertain or blank" if plain else ""


def _labels(d: dict[str, Any], split: str) -> Sheet:
    """A sheet a split: all of them side by side are wider than a screen."""
    return Sheet(
        f"Labels of the {d['images'][split]:,} images of {split}",
        ("finding", *(word.replace("_", " ") for word in SAID)),
        tuple((name, *(f"{row['labels'][split][word]:,}" for word in SAID)) for name, row in d["findings"].items()),
    )


def _closing(d: dict[str, Any]) -> str:
    errors, warnings = (sum(f["level"] == level for f in d["faults"]) for level in ("error", "warning"))
    unread = " No film was decoded (--fast)." if not d["pixels_read"] else ""
    if not d["faults"]:
        return f"No fault found.{unread}"
    found = " and ".join(
        f"{n} kind{'s' * (n > 1)} of {word}" for n, word in ((errors, "error"), (warnings, "warning")) if n
    )
    verdict = "It can be used as it is." if d["ok"] else "Mend it first."
    return f"{found[0].upper()}{found[1:]}. {verdict}{unread}"
