"""A table with the columns of a boxes table, or with others that the caller names.

In a boxes table of ours only image_id, finding and the corners must be there; patient_id, split, image_width,
image_height and reader are read where they are. With names told, a column that is not told keeps our name, and a width
and height may stand for the far corner. Nothing is said of images without a box.
"""

from collections.abc import Mapping, Sequence

from cxrmine.data.drawn.sheet import Drawn, Sheet, corners, drawn_table, from_xywh
from cxrmine.errors import UsageError, did_you_mean
from cxrmine.tables import COORDINATES, REQUIRED

SHAPE = f"a table with the columns {', '.join(REQUIRED)}"
FAR = COORDINATES[2:]
SIZE = ("width", "height")
TEXTS = ("image_id", "finding", "patient_id", "split", "reader")
SIDES = ("image_width", "image_height")
KNOWN = (*REQUIRED, *SIZE, *TEXTS[2:], *SIDES)
EXAMPLE = "image_id=filename,finding=label,x_min=x,y_min=y,width=w,height=h"


def recognise(names: Sequence[str]) -> bool:
    return set(REQUIRED) <= set(names)


def read(sheet: Sheet, columns: Mapping[str, str] | None = None) -> Drawn:
    told = dict(columns or {})
    refuse_wrong(told)
    sized = SIZE[0] in told
    theirs = {name: told.get(name, name) for name in KNOWN if name not in (FAR if sized else SIZE)}
    needed = {*REQUIRED[:4], *(SIZE if sized else FAR)}
    for name, column in theirs.items():
        if (name in told or name in needed) and column not in sheet.columns:
            raise UsageError(
                f"{sheet.where} has no column {column!r} for {name}.{did_you_mean(column, [*sheet.columns])}",
                f"Its columns are {', '.join(sheet.columns)}; name the one with --columns {name}=….",
            )
    box = [sheet.numbers(theirs[name]) for name in (*COORDINATES[:2], *(SIZE if sized else FAR))]
    table = drawn_table(
        {name: sheet.text(theirs[name]) for name in TEXTS}
        | (from_xywh(*box) if sized else corners(*box))
        | {name: sheet.sides(theirs[name]) for name in SIDES}
        | {"row": sheet.row.tolist()}
    )
    made_by = tuple(sorted({*sheet.text("source").unique().drop_null().to_pylist()} - {"truth"}))
    return Drawn(table, None, "table", None, "xywh" if sized else "corners", made_by=made_by)


def refuse_wrong(columns: Mapping[str, str]) -> None:
    """Names that are not ours, or do not make a box."""
    for name in columns:
        if name not in KNOWN:
            raise UsageError(
                f"There is no column {name!r} to be named.{did_you_mean(name, KNOWN)}",
                f"Write ours=theirs, like {EXAMPLE}; ours are {', '.join(KNOWN)}.",
            )
    sizes, far = ([name for name in pair if name in columns] for pair in (SIZE, FAR))
    if sizes and far:
        raise UsageError(
            f"Both {sizes[0]} and {far[0]} are named.", "A box ends at x_max, y_max or after width, height."
        )
    if len(sizes) == 1:
        other = SIZE[1 - SIZE.index(sizes[0])]
        raise UsageError(f"{sizes[0]} is named, and {other} is not.", f"Add {other}=….")
