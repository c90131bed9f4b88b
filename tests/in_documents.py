"""Small datasets of made-up films, of which docs/data.md shows what check prints."""

from collections.abc import Callable
from pathlib import Path

from tests import test_chexpert, test_rsna, test_table_layout, test_vindr
from tests.miniature import cases


def chexpert(here: Path) -> str:
    test_chexpert.write(here, cases(32))
    return "CheXpert-v1.0"


def vindr(here: Path) -> str:
    """In films 1 and 5 one reader of three saw something, which is uncertain."""
    root, made = here / "vinbigdata", cases(32)
    test_vindr.write(root, made, form="kaggle")
    rows = (root / "train.csv").read_text().splitlines()
    for case in (made[1], made[5]):
        for reader in ("R9", "R10"):
            (row,) = (n for n, text in enumerate(rows) if text.startswith(test_vindr.name_of(case)) and reader in text)
            rows[row] = f"{test_vindr.name_of(case)},No finding,14,{reader},,,,"
    (root / "train.csv").write_text("\n".join(rows) + "\n")
    return root.name


def rsna(here: Path) -> str:
    test_rsna.write(here / "rsna", cases(32))
    return "rsna"


def faulty(here: Path) -> str:
    """A table and its films: one film is missing, one cut off, one there twice, a patient in two
    splits, a box too wide."""
    root = test_table_layout.write(here / "mine", cases(32), joined=True)
    films = [root / test_table_layout.film_of(case) for case in cases(32)]
    films[4].unlink()
    films[9].write_bytes(films[9].read_bytes()[:-50])
    films[27].write_bytes(films[3].read_bytes())
    table = (root / "labels.csv").read_text()
    table = table.replace(
        "film001.jpg,p0,train,PA,Cardiomegaly,Cardiomegaly,26,28,37",
        "film001.jpg,p0,train,PA,Cardiomegaly,Cardiomegaly,26,28,75",
    )
    table = table.replace("film012.png,p6,train", "film012.png,p6,test")
    (root / "labels.csv").write_text(table)
    return root.name


EXAMPLES: dict[str, Callable[[Path], str]] = {"chexpert": chexpert, "vindr": vindr, "rsna": rsna, "faulty": faulty}
