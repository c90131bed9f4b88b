"""The sentences a radiologist would dictate about a film: findings with words of severity, and what is not there."""

import numpy as np

from cxrmine.data.phantom.findings import Lesion

# the words of the three groups, mild first
WORDS = (
    ("minimal", "tiny", "small", "mild"),
    ("moderate", "middle-size", "moderate-sized"),
    ("remarkable", "large", "severe"),
)
PHRASES = {
    "Atelectasis": (
        "There is {word} {side} atelectasis.", "{Word} plate-like atelectasis on the {side}.",
        "Volume loss with {word} atelectasis in the {side} lung."),
    "Cardiomegaly": ("There is {word} cardiomegaly.", "{Word} cardiomegaly is seen.",
                     "Heart size is increased, consistent with {word} cardiomegaly."),
    "Effusion": ("{Word} {side} pleural effusion.", "There is a {word} pleural effusion on the {side}.",
                 "Blunting of the {side} costophrenic angle by a {word} effusion."),
    "Infiltration": ("{Word} {side} infiltration.", "Patchy {word} infiltration is noted in the {side} lung.",
                     "There is {word} infiltration on the {side}."),
    "Mass": ("There is a {word} mass in the {side} lung.", "{Word} {side} lung mass.",
             "A {word} mass projects over the {side} lung."),
    "Nodule": ("{Word} nodule in the {side} lung.", "There is a {word} nodule on the {side}.",
               "A {word} {side} pulmonary nodule is seen."),
    "Pneumonia": ("{Word} {side} consolidation, consistent with pneumonia.",
                  "There is {word} pneumonia in the {side} lung.", "Findings of {word} {side} pneumonia."),
    "Pneumothorax": ("There is a {word} {side} pneumothorax.", "{Word} pneumothorax on the {side}.",
                     "A {word} {side} apical pneumothorax is present."),
}  # fmt: skip
ABSENT = {
    "Atelectasis": "atelectasis", "Cardiomegaly": "cardiomegaly", "Effusion": "pleural effusion",
    "Infiltration": "infiltration", "Mass": "mass", "Nodule": "nodule", "Pneumonia": "pneumonia",
    "Pneumothorax": "pneumothorax",
}  # fmt: skip
DENIALS = ("No {a} or {b}.", "There is no {a} or {b}.", "No evidence of {a} or {b}.", "Negative for {a} and {b}.")
HEALTHY = (
    "The lungs are clear.", "Heart size is normal.", "No acute cardiopulmonary abnormality.",
    "Normal chest radiograph.", "The cardiomediastinal silhouette is within normal limits.",
)  # fmt: skip


def write_report(lesions: tuple[Lesion, ...], rng: np.random.Generator) -> str:
    """Every finding with its severity (the worst lesion's), then what is denied; healthy films in a sentence or two."""
    sentences = [describe(finding, lesions, rng) for finding in dict.fromkeys(lesion.finding for lesion in lesions)]
    present = {lesion.finding for lesion in lesions}
    if not lesions:
        sentences += [str(s) for s in rng.choice(HEALTHY, int(rng.integers(1, 3)), replace=False)]
    absent = [words for finding, words in ABSENT.items() if finding not in present]
    if rng.random() < 0.8:
        a, b = (str(x) for x in rng.choice(absent, 2, replace=False))
        sentences.append(str(rng.choice(DENIALS)).format(a=a, b=b))
    return " ".join(sentences)


def describe(finding: str, lesions: tuple[Lesion, ...], rng: np.random.Generator) -> str:
    here = [lesion for lesion in lesions if lesion.finding == finding]
    word = str(rng.choice(WORDS[max(lesion.severity for lesion in here) - 1]))
    sides = {lesion.side for lesion in here}
    side = "bilateral" if len(sides) == 2 else sides.pop()
    sentence = str(rng.choice(PHRASES[finding])).format(word=word, Word=word.capitalize(), side=side)
    return sentence.replace("the bilateral lung", "both lungs").replace("on the bilateral", "on both sides")
