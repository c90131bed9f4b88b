"""JSRT, the database of the Japanese Society of Radiological Technology, and SCR, the masks that were drawn on it.

Shiraishi et al. 2000, "Development of a digital image database for chest radiographs with and without a lung nodule".
247 frontal (PA) films of as many patients: 154 have a nodule, 93 have none. Van Ginneken et al. 2006, "Segmentation of
anatomical structures in chest radiographs using supervised methods": lungs, heart and clavicles of all 247.

All247images/, or Nodule154images/ and NonNodule93images/, or the folder itself
    JPCLN001.IMG … JPCLN154.IMG with a nodule, JPCNN001.IMG … JPCNN093.IMG without: see data/headerless.py. DICOM files
    and copies (.png, .jpg) are taken where there is no .IMG. A copy is read as it is: many were made without inverting.
scr/scratch/fold1/masks/{left lung,right lung,heart,left clavicle,right clavicle}/, and fold2
    JPCLN001.gif … of 1024×1024 pixels (copies as .png are taken too), wherever the folders lie. fold1 has the films of
    odd numbers and fold2 those of even ones. Clavicles are not read, nor are the landmarks beside the masks.
jpg/, masks/JPCLN001.tif (a newer release of SCR)
    Not read. Those small films are said to have the outlines of the organs drawn into them, so nothing in a folder
    `jpg` is taken for a film; and nothing says which organ its one mask a film is of.

The one finding is `Nodule`, by the film's name. There are no boxes: CLNDAT_EN.txt and the newer clinical tables, which
have a nodule's middle and size, are not read. The split is SCR's, by the fold a film's masks lie in, or by its number
where they lie in none: fold1 is for training and fold2 for testing. The publication then changes them round, which is
for you to do. A film without masks has no official split. A folder that has a table or a COCO list of another name at
its top is read as that.
"""

import re

import pyarrow as pa

from cxrmine.data.assemble import Raw
from cxrmine.data.organ_files import Found, of_every_film
from cxrmine.data.reading import Reading
from cxrmine.data.tree import ARCHIVE, Tree
from cxrmine.data.words import with_validation

SHAPE = "JSRT (films JPCLN001.IMG, JPCNN001.IMG and so on, in the folder or in All247images)"
FILM = re.compile(r"(?:.*/)?(JPC[LN]N\d{3})\.(img|dcm|dicom|png|jpe?g)", re.IGNORECASE)
MASK = re.compile(r"(?:.*/)?(left[ _-]?lung|right[ _-]?lung|heart)/(JPC[LN]N\d{3})\.(?:gif|png)", re.IGNORECASE)
NO_FILM = re.compile(r"(^|/)([^/]*masks?|(left|right)[ _-]?(lung|clavicle)|heart|clavicle|lung|jpg)s?/", re.IGNORECASE)
FOLD = re.compile(r"(?:^|/)fold[ _-]?([12])/", re.IGNORECASE)
SPLITS = {"1": "train", "2": "test"}
INSIDE = re.compile(r"(all247|nodule154|nonnodule93)?images?|scr|scratch", re.IGNORECASE)
OWN_TABLE = re.compile(r"(?!.*(jsrt|clndat|cnndat|clinical)).+\.(csv|parquet)(\.gz)?", re.IGNORECASE)
ONE_EACH = "patients: as the publication says, each film is of another"
FOLDERS = 20  # that are looked into


def recognise(tree: Tree) -> str:
    if any(OWN_TABLE.fullmatch(name) for name in tree.top):
        return ""
    film = _first_film(tree)
    return f"{film} is in it" if film else ""


def read(tree: Tree, reading: Reading) -> Raw:
    films: dict[str, str] = {}
    for path in sorted(filter(_is_film, tree.names), key=_rank):
        films.setdefault(_name(path), path)
    found: list[Found] = []
    folds: dict[str, str] = {}
    for path in tree.names:
        if match := MASK.fullmatch(path):
            image = match[2].upper()
            found.append((image, re.sub("[ -]?lung", "_lung", match[1].lower().replace("_", "")), path))
            fold = FOLD.search(path)
            folds.setdefault(image, SPLITS[fold[1] if fold else "1" if int(image[-1]) % 2 else "2"])
    names = sorted(films)
    split, said = with_validation([folds.get(name) for name in names])
    images = {
        "image_id": names,
        "patient_id": names,
        "view": ["PA"] * len(names),
        "split": split,
        "path": [films[name] for name in names],
    }
    return Raw(
        "JSRT",
        pa.table({name: pa.array(column, pa.string()) for name, column in images.items()}),
        {"Nodule": pa.array([int(name[3] == "L") for name in names], pa.int8())},
        organs=of_every_film(names, found),
        notes=("labels: the films' names, JPCLN with a nodule and JPCNN without", ONE_EACH, *said),
        is_film=_is_film,
    )


def _first_film(tree: Tree) -> str:
    """A film's name, looked for in few places: another dataset may have very many files."""
    if film := _film_at_top(tree):
        return film
    folders = [name for name in tree.top if "." not in name or (tree.archives and ARCHIVE.fullmatch(name))]
    for name in folders[:FOLDERS]:
        known = INSIDE.fullmatch(name.partition(".")[0]) is not None
        if NO_FILM.search(f"{name}/") or not tree.is_open(name) or (tree.has(name) and not known):
            continue
        below = tree.under(name)
        if film := _first_film(below) if known else _film_at_top(below):
            return f"{name}/{film}"
    return ""


def _film_at_top(tree: Tree) -> str:
    folder = str(tree).rpartition("/")[2]
    return "" if NO_FILM.search(f"{folder}/") else next((name for name in tree.top if FILM.fullmatch(name)), "")


def _is_film(path: str) -> bool:
    return FILM.fullmatch(path) is not None and NO_FILM.search(path) is None


def _name(path: str) -> str:
    return path.rpartition("/")[2].partition(".")[0].upper()


def _rank(path: str) -> tuple[bool, bool, str, str]:
    """The film as it is given out before a copy, the top before folders."""
    ending = path.rpartition(".")[2].lower()
    return ending != "img", ending not in ("dcm", "dicom"), path.rpartition("/")[0], path
