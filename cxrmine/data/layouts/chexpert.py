"""CheXpert v1.0 and v1.0-small.

Irvin et al. 2019, "CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and Expert Comparison". 224,316
films of 65,240 patients: train 223,414 (64,540 patients), valid 234 (200), test 668 (500). JPEG, 8 bits; v1.0 has the
films at full size (about 2,800×2,300), v1.0-small the same films at about 390×320, under the same names.

train.csv, valid.csv, test.csv
    Path, Sex, Age, Frontal/Lateral, AP/PA, then 14 columns: 1.0 present, 0.0 absent, -1.0 uncertain, blank where the
    report does not mention it. Training labels are mined from reports; those of valid and test are of radiologists, and
    never uncertain or blank. CheXlocalize calls the latter val_labels.csv and test_labels.csv, its folder is val/, and
    test_labels.csv has Path and labels only. Columns beyond these are not read, and told.
train/patient00001/study1/view1_frontal.jpg, valid/…, test/…
    The films. `Path` begins with CheXpert-v1.0/, CheXpert-v1.0-small/, a folder of somebody's, or nothing. Stanford's
    archives of v1.0 unpack into `CheXpert-v1.0 batch 1 (validate & csv)`, which has the tables and valid/, and into
    batches 2 to 4, which have the patients without train/. All are found by patient, study and view: a patient is in
    one split only.
BBoxes.json
    HAM's boxes (Ouyang et al. 2021), in pixels of the films at FULL size, whose size is not in the file. They are left
    out, and told, where the films are smaller: where a film is less than half of what its boxes reach, or, where no
    film with boxes can be read, where the folder or Path says -small. HAM writes findings otherwise: SPELLINGS.

Each table may be .gz. Findings are the columns but `No Finding`, which nothing can be mined of: where it is 1 the other
blanks stay null. What they count as is for the recipe to say: with data.unmentioned = "zeros" such a film teaches that
there is nothing, and every blank elsewhere too; with "ignore" it teaches nothing. -1 is for data.uncertain. `image_id`
is the path below the dataset's folder, as HAM has it; the split is its first folder, and without a test table nothing
is `test`. A view is AP or PA, and LATERAL for every side view; where Frontal has LL or RL under AP/PA it is null.
CheXpert Plus (DICOM, PNG and reports), train_cheXbert.csv, train_visualCheXbert.csv and CheXlocalize's contours are not
read.
"""

import contextlib
import re
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from cxrmine.data.assemble import Raw
from cxrmine.data.dicom import dicom_size, is_dicom
from cxrmine.data.drawn.read import from_document
from cxrmine.data.drawn.sheet import Sheet, as_float
from cxrmine.data.encoded import JPEG_START, PNG_START, Unreadable, jpeg_size, png_size
from cxrmine.data.index import OF_ANOTHER_SIZE, Dropped, dropped
from cxrmine.data.paths import column_inside
from cxrmine.data.reading import Reading
from cxrmine.data.rows import header, read_rows
from cxrmine.data.tree import Content, Tree
from cxrmine.errors import CxrError, rows_text

SHAPE = "CheXpert (train.csv, valid.csv or test.csv in the folder, with a column Path and CheXpert's findings)"
NORMAL = "No Finding"
FINDINGS = (
    "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia",
    "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
ENOUGH = 5  # findings that make a table CheXpert's: the competition's
SIDE, VIEW = "Frontal/Lateral", "AP/PA"
KNOWN = {"Path", "Sex", "Age", SIDE, VIEW, NORMAL, *FINDINGS}
TABLES = {"train": ("train.csv",), "val": ("valid.csv", "val_labels.csv"), "test": ("test.csv", "test_labels.csv")}
BATCH = "CheXpert-v1.0 batch 1 (validate & csv)"
SPLITS = {"train": "train", "valid": "val", "val": "val", "test": "test"}
NAME = r"^(?:.*/)?(?P<image>(?P<folder>train|valid|val|test)/(?P<patient>patient[0-9]+)/(?P<film>.+))$"
FILM = re.compile(r"(?:.*/)?(patient\d+/study\d+/[^/]+\.(?:jpe?g|png))", re.IGNORECASE)
SPELLINGS = {
    "Enlarged_Cardiomediastinum": "Enlarged Cardiomediastinum",
    "Enlarg_Cardiomediastinum": "Enlarged Cardiomediastinum",
    "Pleural_Effusion": "Pleural Effusion",
    "edema": "Edema",
}
LABELS = {1.0: 1, 0.0: 0, -1.0: -1}
MEASURED = 8  # films whose size is compared with what their boxes reach


def recognise(tree: Tree) -> str:
    for name in _tables(tree).values():
        with contextlib.suppress(CxrError):  # another dataset's, or damaged as one of several
            columns = set(header(tree, name))
            if "Path" in columns and len(columns & set(FINDINGS)) >= ENOUGH:
                return f"{name} in it has a column Path and CheXpert's findings"
    return ""


def read(tree: Tree, reading: Reading) -> Raw:
    tables = _tables(tree)
    sheets, ledger, notes = _read_tables(tree, tables)
    path, side, view = (pa.concat_arrays([sheet.text(name) for sheet in sheets]) for name in ("Path", SIDE, VIEW))
    found = pc.extract_regex(path, NAME)
    image, folder, patient, tail = (pc.struct_field(found, name) for name in ("image", "folder", "patient", "film"))
    view, strange = _views(side, view, image)
    where = _films(tree, path, image, pc.binary_join_element_wise(patient, tail, "/"))
    split = pa.array([SPLITS[word] for word in folder.to_pylist()], pa.string())
    columns = {"image_id": image, "patient_id": patient, "view": view, "split": split, "path": where}
    known = [name for name in (NORMAL, *FINDINGS) if any(name in sheet.columns for sheet in sheets)]
    parts = [labels(sheet, known) for sheet in sheets]
    values = {name: pa.concat_arrays([part[name] for part in parts]) for name in known}
    if (normal := values.pop(NORMAL, None)) is not None:
        count = pc.sum(pc.equal(normal, 1)).as_py() or 0
        notes += (f"images with {NORMAL}, which is no finding: {count:,}; blanks beside it stay not mentioned",)
    notes += ("split: official" if "test" in tables else "split: official; no test.csv here, so nothing is test",)
    if strange:
        notes += (f"frontal films with neither AP nor PA, whose view is not known then: {strange:,}",)
    smaller = str(tree).endswith("-small") or bool(pc.any(pc.match_substring(path, "-small/")).as_py())
    boxes, faults, said = _boxes(tree, dict(zip(image.to_pylist(), where.to_pylist(), strict=True)), smaller)
    return Raw("CheXpert", pa.table(columns), values, boxes, None, ledger + faults, notes + said, is_film=_is_film)


def labels(sheet: Sheet, findings: Sequence[str]) -> dict[str, pa.Array]:
    """What CheXpert's and NegBio's labelers write: 1, 0, -1 or blank. A few words make up a column: each is read once.
    What the table has no column of is null."""
    of = {}
    for finding in findings:
        text = sheet.text(finding)
        encoded = text.dictionary_encode()
        words = encoded.dictionary.to_pylist()
        values = [LABELS.get(as_float(word)) for word in words]
        for word, value in zip(words, values, strict=True):
            if value is None and word.lower() != "nan":
                rows = sheet.row[pc.equal(text, word).fill_null(False).to_numpy(zero_copy_only=False)].tolist()
                raise CxrError(
                    f"{sheet.where}: {finding} is {word!r} in {rows_text(rows)}.", "Write 1, 0, -1 or nothing."
                )
        of[finding] = pa.array(values, pa.int8()).take(encoded.indices)
    return of


def film_size(content: Content) -> tuple[int, int] | None:
    """Width and height of a film, None where it cannot be read."""
    try:
        if isinstance(content, Unreadable):
            return None
        if is_dicom(content):
            return dicom_size(content)
        if content.startswith(PNG_START):
            return png_size(content)
        return jpeg_size(content) if content.startswith(JPEG_START) else None
    except Unreadable:
        return None


def _tables(tree: Tree) -> dict[str, str]:
    found = {
        split: tree.first(*(f"{at}{n}" for n in names for at in ("", f"{BATCH}/"))) for split, names in TABLES.items()
    }
    return {split: name for split, name in found.items() if name}


def _read_tables(tree: Tree, tables: Mapping[str, str]) -> tuple[list[Sheet], tuple[Dropped, ...], tuple[str, ...]]:
    """The rows whose Path tells split and patient; the ledger and notes."""
    sheets, notes = [], [f"labels: {', '.join(tables.values())}"]
    ledger: tuple[Dropped, ...] = ()
    for name in tables.values():
        sheet, torn = read_rows(tree, name, ("Path",), (SIDE, VIEW, NORMAL, *FINDINGS))
        sheet.columns["Path"] = path = column_inside(tree.root, sheet.columns["Path"])
        good = pc.match_substring_regex(path, NAME).to_numpy(zero_copy_only=False)
        bad = [repr(word) for word in path.filter(pa.array(~good)).to_pylist()]
        sheets.append(sheet.filter(good))
        ledger += torn + dropped(f"{name}: Path without a split and a patient in it", bad)
        if beyond := [column for column in header(tree, name) if column and column not in KNOWN]:
            notes.append(f"columns of {name} that are not read: {', '.join(beyond)}")
    return sheets, ledger, tuple(notes)


def _views(side: pa.Array, view: pa.Array, image: pa.Array) -> tuple[pa.Array, int]:
    """AP, PA or LATERAL, null where nobody says; and of how many frontal films AP/PA says something else. Where there
    is no Frontal/Lateral, the film's name tells."""
    lateral = pc.coalesce(pc.equal(pc.utf8_lower(side), "lateral"), pc.match_substring(image, "_lateral."))
    known = pc.is_in(view, value_set=pa.array(["AP", "PA"]))
    strange = pc.and_(pc.invert(lateral), pc.and_(pc.is_valid(view), pc.invert(known)))
    return pc.if_else(lateral, "LATERAL", pc.if_else(known, view, None)), pc.sum(strange).as_py() or 0


def _films(tree: Tree, path: pa.Array, image: pa.Array, tail: pa.Array) -> pa.Array:
    """Where each film lies: where Path says, or where `image` does, or else wherever patient, study and view are."""
    films = {name: match[1] for name in tree.names if (match := FILM.fullmatch(name))}
    anywhere: dict[str, str] = {}
    for name, key in films.items():
        anywhere.setdefault(key, name)
    rows = zip(path.to_pylist(), image.to_pylist(), tail.to_pylist(), strict=True)
    found = [told if told in films else below if below in films else anywhere.get(key) for told, below, key in rows]
    return pa.array(found, pa.string())


def _is_film(name: str) -> bool:
    return FILM.fullmatch(name) is not None


# --- HAM's boxes


def _boxes(
    tree: Tree, films: Mapping[str, str | None], smaller: bool
) -> tuple[pa.Table | None, tuple[Dropped, ...], tuple[str, ...]]:
    """The boxes in the words of the tables, if they are of films of this size; the ledger and notes."""
    name = tree.first("BBoxes.json", f"{BATCH}/BBoxes.json")
    if not name:
        return None, (), ()
    table = from_document(tree.text(name), f"{tree}/{name}").table
    keys = table["image_id"].to_pylist()
    found = pc.struct_field(pc.extract_regex(table["image_id"].combine_chunks(), NAME), "image").to_pylist()
    image = [new or old for new, old in zip(found, keys, strict=True)]
    finding = [SPELLINGS.get(word, word) for word in table["finding"].to_pylist()]
    table = table.set_column(0, "image_id", pa.array(image, pa.string())).set_column(
        1, "finding", pa.array(finding, pa.string())
    )
    why = _too_small(tree, table, films)
    if why is None and smaller:
        why = "the folder or Path says -small"
    if not why:
        return table, (), (f"boxes: {name}",)
    cure = f"boxes: {name} is left out, as it is in pixels of CheXpert-v1.0 at full size, and {why}; use the full films"
    rows = zip(image, finding, strict=True)
    return None, dropped(OF_ANOTHER_SIZE, [f"{of} {word}" for of, word in rows]), (cure,)


def _too_small(tree: Tree, table: pa.Table, films: Mapping[str, str | None]) -> str | None:
    """Why the films cannot be those that the boxes were drawn on, or nothing; None where no film can be read."""
    reach: dict[str, tuple[float, float]] = {}
    far = (table[name].fill_null(0).to_pylist() for name in ("x_max", "y_max"))
    for image, x, y in zip(table["image_id"].to_pylist(), *far, strict=True):
        across, down = reach.get(image, (0.0, 0.0))
        reach[image] = (max(across, x), max(down, y))
    there = [image for image in sorted(reach, key=lambda image: (-max(reach[image]), image)) if films.get(image)]
    of = {films[image]: image for image in there[:MEASURED]}
    why = None
    for path, content in tree.stream([path for path in of if path]):
        size = film_size(content)
        if size is None:
            continue
        across, down = reach[of[path]]
        if 2 * size[0] < across or 2 * size[1] < down:
            return f"{path} is {size[0]}×{size[1]} where a box reaches {across:g},{down:g}"
        why = ""
    return why
