"""One dataset's findings under another's names: applied only where it is asked for, and said.

A row is a finding that several datasets have, in the spelling of each; what only looks alike is not here (VinDr's
Nodule/Mass is neither Nodule nor Mass, its Rib fracture not every Fracture).
"""

from dataclasses import replace

import pyarrow as pa

from cxrmine.data.assemble import Raw
from cxrmine.errors import CxrError, UsageError, did_you_mean

DATASETS = ("chestxray14", "chexpert", "ham", "vindr", "padchest")
SPELLINGS = (
    ("Atelectasis", "Atelectasis", "Atelectasis", "Atelectasis", "atelectasis"),
    ("Cardiomegaly", "Cardiomegaly", "Cardiomegaly", "Cardiomegaly", "cardiomegaly"),
    ("Consolidation", "Consolidation", "Consolidation", "Consolidation", "consolidation"),
    ("Edema", "Edema", "Edema", "Edema", "pulmonary edema"),
    ("Effusion", "Pleural Effusion", "Pleural_Effusion", "Pleural effusion", "pleural effusion"),
    ("Emphysema", "", "", "Emphysema", "emphysema"),
    ("Fibrosis", "", "", "Pulmonary fibrosis", "pulmonary fibrosis"),
    ("Hernia", "", "", "", "hiatal hernia"),
    ("Infiltration", "", "", "Infiltration", "infiltrates"),
    ("Mass", "", "", "", "mass"),
    ("Nodule", "", "", "", "nodule"),
    ("Pleural_Thickening", "", "", "Pleural thickening", "pleural thickening"),
    ("Pneumonia", "Pneumonia", "Pneumonia", "Pneumonia", "pneumonia"),
    ("Pneumothorax", "Pneumothorax", "Pneumothorax", "Pneumothorax", "pneumothorax"),
    ("", "Enlarged Cardiomediastinum", "Enlarged_Cardiomediastinum", "", ""),
    ("", "Fracture", "Fracture", "", "fracture"),
    ("", "Lung Opacity", "", "Lung Opacity", ""),
)


def names_in(vocabulary: str) -> dict[str, str]:
    """Every other spelling → the one of this vocabulary."""
    if vocabulary not in DATASETS:
        raise UsageError(
            f"There is no vocabulary named {vocabulary!r}.{did_you_mean(vocabulary, DATASETS)}",
            f"There are {', '.join(DATASETS)}.",
        )
    column = DATASETS.index(vocabulary)
    return {word: row[column] for row in SPELLINGS if row[column] for word in row if word and word != row[column]}


def renamed(raw: Raw, vocabulary: str) -> Raw:
    """`raw` in the words of `vocabulary`, as far as it has them; its own where nothing is asked for."""
    if not vocabulary:
        return raw
    names = {theirs: ours for theirs, ours in names_in(vocabulary).items() if theirs in raw.labels}
    for theirs, ours in names.items():
        if ours in raw.labels or list(names.values()).count(ours) > 1:
            raise CxrError(
                f"The dataset's {theirs} would become {ours}, and it has {ours} already.",
                f"Leave the vocabulary {vocabulary} out, or rename one of them in the dataset.",
            )
    labels = {names.get(finding, finding): values for finding, values in raw.labels.items()}
    said = ", ".join(f"{theirs} → {ours}" for theirs, ours in names.items()) or "none of its findings has another"
    note = f"findings in the words of {vocabulary}: {said}"
    return replace(raw, labels=labels, boxes=_boxes(raw.boxes, names), notes=(*raw.notes, note))


def _boxes(boxes: pa.Table | None, names: dict[str, str]) -> pa.Table | None:
    if boxes is None:
        return None
    place = boxes.column_names.index("finding")
    words = [names.get(word, word) for word in boxes["finding"].to_pylist()]
    return boxes.set_column(place, "finding", pa.array(words, pa.string()))
