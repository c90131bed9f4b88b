"""Patients and their films: who has what, when, how it was taken. All of it is decided before a pixel is drawn."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cxrmine.data.phantom import devices, film
from cxrmine.data.phantom.anatomy import LEFT, RIGHT, Person, new_person
from cxrmine.data.phantom.canvas import Bytes, bounds
from cxrmine.data.phantom.chest import build
from cxrmine.data.phantom.findings import FINDINGS, Lesion, enlarged, new_lesion
from cxrmine.data.phantom.lesions import draw
from cxrmine.data.phantom.reports import write_report

# how often a finding is the first of a sick film
FIRST = {
    "Atelectasis": 0.13, "Cardiomegaly": 0.12, "Effusion": 0.11, "Infiltration": 0.13, "Mass": 0.13, "Nodule": 0.14,
    "Pneumonia": 0.12, "Pneumothorax": 0.12,
}  # fmt: skip
# and what comes with it; any other pair: RARELY
TOGETHER = {
    ("Atelectasis", "Effusion"): 0.2, ("Effusion", "Atelectasis"): 0.25, ("Cardiomegaly", "Effusion"): 0.25,
    ("Effusion", "Cardiomegaly"): 0.15, ("Pneumonia", "Effusion"): 0.12, ("Pneumonia", "Infiltration"): 0.12,
    ("Mass", "Nodule"): 0.12, ("Infiltration", "Atelectasis"): 0.12, ("Pneumothorax", "Effusion"): 0.1,
}  # fmt: skip
RARELY = 0.025
CHRONIC = ("Cardiomegaly", "Mass", "Nodule")  # found again at the same place in later films
TWICE = 0.24  # of the pairs that can have two lesions


@dataclass(frozen=True)
class Case:
    """One film to be taken."""

    name: str  # NNNNNNNN_FFF
    patient: int
    follow_up: int
    seed: int
    person: Person
    exposure: film.Exposure
    lesions: tuple[Lesion, ...]
    devices: tuple[str, ...]
    report: str
    original: tuple[int, int]  # pixels of the radiograph before it was scaled down
    spacing: float
    test: bool
    boxed: bool

    @property
    def findings(self) -> tuple[str, ...]:
        present = {lesion.finding for lesion in self.lesions}
        return tuple(f for f in FINDINGS if f in present)


@dataclass(frozen=True)
class Film:
    gray: NDArray[np.uint16]  # 12 bits
    boxes: tuple[tuple[int, int, int, int], ...]  # of each lesion: the tight bounds of its mask
    masks: tuple[NDArray[np.bool_], ...]
    organs: dict[str, Bytes]


def cases(images: int, seed: int) -> Iterator[Case]:
    """So many films, patient after patient; a longer list begins with the shorter one."""
    made, sick, boxable = 0, 0, 0
    patient = 0
    while made < images:
        patient += 1
        rng = np.random.default_rng([seed, patient])
        person = new_person(rng)
        frailty = float(rng.choice([0.2, 0.8]))
        history: dict[str, int] = {}
        for follow_up in range(min(int(rng.choice(5, p=[0.42, 0.24, 0.15, 0.11, 0.08])) + 1, images - made)):
            # the share of the sick is held near a half
            ill = bool(rng.random() < np.clip(frailty + 0.08 * (0.5 * made - sick), 0.02, 0.98))
            case = new_case(patient, follow_up, seed, person, ill, history)
            if case.test and ill:
                boxable += 1
            yield replace(case, boxed=case.test and ill and boxable % 2 == 1)
            made, sick = made + 1, sick + ill


def new_case(patient: int, follow_up: int, seed: int, person: Person, ill: bool, history: dict[str, int]) -> Case:
    rng = np.random.default_rng([seed, patient, follow_up])
    present = choose_findings(rng, history) if ill else []
    person = posed(person, present, rng)
    if "Cardiomegaly" in present:
        person = enlarged(person, np.random.default_rng([seed, patient, history.setdefault("Cardiomegaly", follow_up)]))
    person, lesions = new_lesions(person, present, rng, [seed, patient], follow_up, history)
    sides = {lesion.finding: lesion.side for lesion in lesions}
    portable = person.view == "AP"
    wide = bool(rng.random() < 0.35)
    return Case(
        name=f"{patient:08d}_{follow_up:03d}",
        patient=patient,
        follow_up=follow_up,
        seed=seed,
        person=person,
        exposure=film.new_exposure(rng, portable, person.depth),
        lesions=lesions,
        devices=devices.choose(set(present), person.view, sides, rng),
        report=write_report(lesions, rng),
        original=((3056, 2544) if wide else (2500, 2048)) if portable else ((2992, 2991) if wide else (2048, 2500)),
        spacing=0.139 if portable and wide else 0.143 if wide else 0.168 if portable else 0.171,
        test=patient % 4 == 0,
        boxed=False,
    )


def posed(person: Person, present: list[str], rng: np.random.Generator) -> Person:
    """The patient on the day of the film. The sick are more often filmed in bed, and breathe in less deeply."""
    bed = bool(rng.random() < (0.25 if not present else 0.75 if set(present) & {"Effusion", "Pneumonia"} else 0.45))
    apex = float(np.clip(rng.normal(0.145, 0.022) - 0.03 * ("Pneumothorax" in present), 0.08, 0.2))
    span = rng.normal(0.54 if bed else 0.555, 0.03) - 0.055 * ("Effusion" in present)
    span = float(np.clip(span, 0.44, 0.61))
    return replace(
        person,
        view="AP" if bed else "PA",
        midline=float(np.clip(rng.normal(0.5, 0.014), 0.46, 0.54)),
        apex=apex,
        dome=min(apex + span, 0.735),
        lean=float(rng.normal(0, 1.6 if bed else 0.9)),
        half=person.half * float(rng.normal(1.03 if bed else 1.0, 0.012)),
        arms=float(rng.spawn(1)[0].uniform(0.35, 1.6)),
    )


def choose_findings(rng: np.random.Generator, history: dict[str, int]) -> list[str]:
    """The first finding, then what comes with it; what is chronic and was seen before is likely seen again."""
    names = list(FIRST)
    first = str(rng.choice(names, p=list(FIRST.values())))
    present = [first] + [n for n in names if n != first and rng.random() < TOGETHER.get((first, n), RARELY)]
    return present + [n for n in history if n in CHRONIC and n not in present and rng.random() < 0.7]


def new_lesions(
    person: Person, present: list[str], rng: np.random.Generator, entropy: list[int], follow_up: int,
    history: dict[str, int],
) -> tuple[Person, tuple[Lesion, ...]]:  # fmt: skip
    """One or two lesions a finding. Atelectasis draws up its side's diaphragm, which all lesions then follow."""
    plans = []
    for finding in present:
        since = history.setdefault(finding, follow_up) if finding in CHRONIC else follow_up
        own = np.random.default_rng([*entropy, since, FINDINGS.index(finding) + 1])
        sides = [RIGHT, LEFT] if own.random() < 0.5 else [LEFT, RIGHT]
        twice = finding not in ("Cardiomegaly", "Pneumothorax") and own.random() < TWICE
        plans.append((finding, sides[: 1 + twice], own))
        if finding == "Atelectasis":
            person = replace(
                person, raised=tuple((side, float(rng.uniform(0.01, 0.04))) for side in sides[: 1 + twice])
            )
    return person, tuple(new_lesion(finding, person, side, own) for finding, sides, own in plans for side in sides)


def render(case: Case, size: int) -> Film:
    """Take the film of a case. Bones and vessels are the patient's own; the noise is the film's."""
    change, masks = draw(case.lesions, case.person, size)
    body = np.random.default_rng([case.seed, case.patient, 0, 0])
    chest = build(case.person, size, body, change if case.lesions else None)
    rng = np.random.default_rng([case.seed, case.patient, case.follow_up, 0])
    metal = devices.absorb(case.devices, case.person, size, rng)
    attenuation = chest.attenuation if metal is None else chest.attenuation + metal
    gray = film.expose(attenuation, case.exposure, rng.spawn(1)[0])
    gray = devices.stamp(gray, case.devices, case.person, rng)
    boxes = [bounds(mask) for mask in masks]
    return Film(gray, tuple(b for b in boxes if b is not None), tuple(masks), chest.organs)
