"""The paths that tables have of films, as they are written on other machines and by other programs."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa


def inside(root: Path, words: Iterable[str | None]) -> list[str | None]:
    """Each path as one from `root` down: with slashes, without ./ and doubled slashes, and without the folder itself
    where the path is absolute and below it. What leads out of it still does, and is for tree.is_safe to refuse."""
    tops = [f"{top.as_posix().rstrip('/')}/" for top in dict.fromkeys((root.absolute(), root.resolve()))]
    return [word if word is None else _inside(tops, word) for word in words]


def column_inside(root: Path, column: pa.Array) -> pa.Array:
    """The same of a column of text."""
    return pa.array(inside(root, column.to_pylist()), pa.string())


def entries_inside(root: Path, entries: object, key: str) -> None:
    """The same of a list of JSON's objects, in place. What is no text stays for its reader to refuse."""
    objects = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    named = [entry for entry in objects if isinstance(entry.get(key), str)]
    for entry, path in zip(named, inside(root, [entry[key] for entry in named]), strict=True):
        entry[key] = path


def _inside(tops: Iterable[str], word: str) -> str:
    path = word.replace("\\", "/")
    if path.startswith("/"):
        top = next((top for top in tops if path.startswith(top)), "")
        if not top:
            return word
        path = path.removeprefix(top)
    if path.startswith("./") or "/./" in path or "//" in path:
        path = "/".join(part for part in path.split("/") if part not in ("", "."))
    return path
