"""The Montgomery County X-ray Set, of the National Library of Medicine, with masks of the lungs.

Jaeger et al. 2014, "Two public chest X-ray datasets for computer-aided screening of pulmonary diseases". 138 frontal
(PA) films of as many patients, from a screening for tuberculosis: 58 have it, 80 are normal. PNG of 4020×4892 or
4892×4020 pixels. The masks were drawn under a radiologist's eye; the part of a lung behind the heart is not in them.

CXR_png/
    MCUCXR_0001_0.png: the last digit is 1 where the patient has tuberculosis.
ManualMask/leftMask/, ManualMask/rightMask/
    A mask of the film's name and size each. There are none of the heart.
ClinicalReadings/
    A text a film, with sex, age and what was seen. Not read: the label is in the film's name.

These folders may lie in MontgomerySet/, also beside other files. The one finding is `Tuberculosis`. Each film counts as
one patient. There are no boxes and no official split. A folder that has a table of another name at its top, or a COCO
list, is read as that.
"""

import re

import pyarrow as pa

from cxrmine.data.assemble import Raw
from cxrmine.data.organ_files import Found, of_every_film
from cxrmine.data.reading import Reading
from cxrmine.data.tree import Tree

SHAPE = "Montgomery County (a folder CXR_png with films MCUCXR_0001_0.png, or MontgomerySet)"
FILM = re.compile(r"(?:.*/)?CXR_png/(MCUCXR_\d+_([01]))\.png", re.IGNORECASE)
MASK = re.compile(r"(?:.*/)?ManualMask/(left|right)Mask/(MCUCXR_\d+_[01])(?:_mask)?\.png", re.IGNORECASE)
ONE_EACH = "patients: each film counts as one"
OWN_TABLE = re.compile(r"(?!.*(montgomery|clinical)).+\.(csv|parquet)(\.gz)?", re.IGNORECASE)
TOP = re.compile(r"CXR_png|MontgomerySet|NLM-MontgomeryCXRSet", re.IGNORECASE)


def recognise(tree: Tree) -> str:
    if any(OWN_TABLE.fullmatch(name) for name in tree.top):
        return ""
    found = [name for name in tree.top if TOP.fullmatch(name.partition(".")[0]) and tree.is_open(name)]
    film = next((name for name in tree.names if FILM.fullmatch(name)), "") if found else ""
    return f"{film} is in it" if film else ""


def read(tree: Tree, reading: Reading) -> Raw:
    films: dict[str, str] = {}
    for path in filter(FILM.fullmatch, tree.names):
        films.setdefault(path.rpartition("/")[2].rpartition(".")[0].upper(), path)
    masks = [(match, path) for path in tree.names if (match := MASK.fullmatch(path))]
    found: list[Found] = [(match[2].upper(), f"{match[1].lower()}_lung", path) for match, path in masks]
    names = sorted(films)
    images = {
        "image_id": names,
        "patient_id": names,
        "view": ["PA"] * len(names),
        "split": [None] * len(names),
        "path": [films[name] for name in names],
    }
    return Raw(
        "Montgomery County",
        pa.table({name: pa.array(column, pa.string()) for name, column in images.items()}),
        {"Tuberculosis": pa.array([int(name[-1]) for name in names], pa.int8())},
        organs=of_every_film(names, found),
        notes=("labels: the last digit of the films' names", ONE_EACH),
        is_film=lambda path: FILM.fullmatch(path) is not None,
    )
