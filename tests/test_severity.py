"""Sentences, one or more for every rule: what is there, what is possible, what is denied or gone, and how severe."""

from pathlib import Path

import numpy as np
import pytest

from cxrmine.data.lexicon import builtin, load
from cxrmine.data.phantom.findings import Lesion
from cxrmine.data.phantom.reports import DENIALS, PHRASES, WORDS, describe
from cxrmine.data.sections import sections
from cxrmine.data.severity import decided, read_report
from cxrmine.data.severity import sentences as split
from cxrmine.errors import CxrError

MARKS = {"present": "", "possible": "?", "denied": "no", "gone": "gone"}
CASES = {
    # a list under one negation
    "No pneumothorax, effusion or focal consolidation.": "Consolidation no; Effusion no; Pneumothorax no",
    "There is no evidence of effusion, pneumothorax, or acute fracture.": "Effusion no; Fracture no; Pneumothorax no",
    "Neither effusion nor pneumothorax.": "Effusion no; Pneumothorax no",
    "Negative for pneumothorax.": "Pneumothorax no",
    "Lungs are free of consolidation.": "Consolidation no",
    "Stable cardiomegaly without edema.": "Cardiomegaly; Edema no",
    "No large pleural effusion.": "Effusion no",
    "No new infiltrate.": "Infiltration no",
    "Scarring rather than atelectasis.": "Atelectasis no",
    # where its scope ends
    "No pneumothorax but small effusion.": "Effusion 1; Pneumothorax no",
    "No pneumothorax, small left effusion.": "Effusion 1; Pneumothorax no",
    "No pneumothorax is seen and there is a small effusion.": "Effusion 1; Pneumothorax no",
    "No edema with tiny effusions on both sides.": "Edema no; Effusion 1",
    "No focal consolidation, large pneumothorax or large effusion.": "Consolidation no; Effusion no; Pneumothorax no",
    "Stable cardiomegaly; no effusion.": "Cardiomegaly; Effusion no",
    "No large pneumothorax (blunting may be a small effusion or scar).": "Effusion ?; Pneumothorax no",
    "No effusion (or pneumothorax).": "Effusion no; Pneumothorax no",
    "Lungs clear except for mild atelectasis.": "Atelectasis 1",
    "Removal of chest tube, no pneumothorax.": "Pneumothorax no",
    # after the finding
    "Pneumothorax is not seen.": "Pneumothorax no",
    "Pneumonia is unlikely.": "Pneumonia no",
    "Effusion is small and pneumothorax is not seen.": "Effusion 1; Pneumothorax no",
    "The previously noted nodule is not well seen.": "Nodule no",
    # a heading before a colon
    "EFFUSION: none.": "Effusion no",
    "Pneumothorax: No.": "Pneumothorax no",
    "Pleura: small effusion.": "Effusion 1",
    "Heart: Mildly enlarged.": "Cardiomegaly 1",
    # what negates nothing
    "No change in the effusion.": "Effusion",
    "No interval increase in the right effusion.": "Effusion",
    "No significant interval change in small effusions.": "Effusion 1",
    "Cardiomegaly is not significantly changed.": "Cardiomegaly",
    "Effusion, not previously seen.": "Effusion",
    "The small hernia is not as clearly seen today.": "Hernia 1",
    "No effusion or change in atelectasis.": "Atelectasis; Effusion no",
    "No change in small pneumothorax or moderate effusion.": "Effusion 2; Pneumothorax 1",
    # gone
    "There was previously a large effusion.": "Effusion gone",
    "On the prior study there was a large effusion.": "Effusion gone",
    "There was a large effusion on the previous film, which has since resolved.": "Effusion gone",
    "The moderate pneumothorax is gone.": "Pneumothorax gone",
    # what it is now counts, not what it was
    "The previously seen large effusion is now small.": "Effusion 1",
    "Large effusion has become small.": "Effusion 1",
    "Edema has improved and is now mild.": "Edema 1",
    "Mild edema, now moderate.": "Edema 2",
    "The effusion has resolved.": "Effusion gone",
    "Resolution of right pneumothorax.": "Pneumothorax gone",
    "Pneumothorax is no longer seen.": "Pneumothorax gone",
    "The infiltrate has cleared.": "Infiltration gone",
    "History of pneumonia.": "Pneumonia gone",
    "Near complete resolution of right pneumothorax.": "Pneumothorax",
    "Opacities consistent with the patient's history of pulmonary fibrosis.": "Fibrosis",
    # possible
    "Possible small effusion.": "Effusion ?",
    "Possible effusion, cardiomegaly.": "Cardiomegaly; Effusion ?",
    "Pneumonia cannot be excluded.": "Pneumonia ?",
    "Small effusion, pneumonia cannot be excluded.": "Effusion 1; Pneumonia ?",
    "Small effusions suspected.": "Effusion ?",
    "Question left effusion.": "Effusion ?",
    "Left effusion?": "Effusion ?",
    "Opacity which may represent pneumonia.": "Pneumonia ?",
    "Opacity may be associated with pneumonia.": "Pneumonia ?",
    "Left lower lobe opacity, likely atelectasis.": "Atelectasis ?",
    "Small effusion, likely chronic.": "Effusion 1",
    "Pneumothorax, if any, is minimal.": "Pneumothorax ?",
    "Opacity consistent with pneumonia.": "Pneumonia",
    "Hernia containing possible bowel.": "Hernia",
    "Differential diagnosis includes atelectasis, small infiltrate, scarring.": "Atelectasis ?; Infiltration ?",
    # A or B
    "Atelectasis or infiltrate.": "Atelectasis ?; Infiltration ?",
    "Atelectasis/infiltrate at the left base.": "Atelectasis ?; Infiltration ?",
    "Atelectasis versus infiltrate.": "Atelectasis ?; Infiltration ?",
    "Atelectasis vs. infiltrate.": "Atelectasis ?; Infiltration ?",
    "Atelectasis, infiltrate, or pneumonia.": "Atelectasis ?; Infiltration ?; Pneumonia ?",
    "Minimal atelectasis or scarring.": "Atelectasis ?",
    "Atelectasis or pneumonia with small effusion.": "Atelectasis ?; Effusion 1; Pneumonia ?",
    "Atelectasis in the left or right base.": "Atelectasis",
    "Two or three nodules.": "Nodule",
    "No atelectasis or pneumonia.": "Atelectasis no; Pneumonia no",
    # something else
    "Small pericardial effusion.": "",
    "Knee joint effusion.": "",
    "Subcutaneous emphysema.": "",
    "Soft tissue mass.": "",
    "Breast mass.": "",
    "No mass effect.": "",
    "Cystic fibrosis.": "",
    "Umbilical hernia.": "",
    "Disc herniation.": "",
    "Fractured sternal wires.": "",
    "Mild right atrial enlargement.": "",
    "The cardiomediastinal silhouette is enlarged.": "",
    "Enlarged cardiac chambers.": "",
    "Unremarkable chest.": "",
    "Small hydropneumothorax.": "Effusion 1; Pneumothorax 1",
    "Nodular opacity.": "Nodule",
    "Small amount of pleural fluid.": "Effusion 1",
    # the heart
    "Heart is enlarged.": "Cardiomegaly",
    "Heart size is mildly enlarged.": "Cardiomegaly 1",
    "Heart size remains slightly large.": "Cardiomegaly 1",
    "The heart is large.": "Cardiomegaly",
    "The cardiac silhouette, which is mildly enlarged, is stable.": "Cardiomegaly 1",
    "There is a large heart with small effusion.": "Cardiomegaly; Effusion 1",
    "Cardiac enlargement.": "Cardiomegaly",
    "Markedly enlarged cardiac silhouette.": "Cardiomegaly 3",
    "Moderate enlargement of the heart.": "Cardiomegaly 2",
    "No pneumothorax, heart is enlarged.": "Cardiomegaly; Pneumothorax no",
    "The heart is not enlarged.": "Cardiomegaly no",
    "Heart size is normal.": "Cardiomegaly no",
    "Heart size and mediastinal contours are within normal limits.": "Cardiomegaly no",
    "Heart size is normal and there is a large effusion.": "Cardiomegaly no; Effusion 3",
    "Cardiac silhouette is borderline enlarged.": "Cardiomegaly ?",
    "Heart size borderline.": "Cardiomegaly ?",
    # the finding that a word of severity belongs to
    "Small left pleural effusion.": "Effusion 1",
    "Left effusion, small, has decreased.": "Effusion 1",
    "There is a pleural effusion which is small.": "Effusion 1",
    "Pleural effusion, moderate on the right.": "Effusion 2",
    "Atelectasis (mild).": "Atelectasis 1",
    "Emphysema is severe.": "Emphysema 3",
    "Large effusion with mild atelectasis.": "Atelectasis 1; Effusion 3",
    "Small bilateral pleural effusions and atelectasis.": "Atelectasis; Effusion 1",
    "Mild atelectasis and edema.": "Atelectasis 1; Edema",
    "Mild left-sided volume loss with atelectasis.": "Atelectasis",
    "Cardiomegaly, mild pulmonary vascular congestion.": "Cardiomegaly",
    "Small lung volumes and cardiomegaly.": "Cardiomegaly",
    "Mild increase in effusion.": "Effusion",
    "Slightly increased effusion.": "Effusion",
    "Minimally displaced fracture.": "Fracture",
    "Mild, stable cardiomegaly.": "Cardiomegaly 1",
    "Small 4.5 mm nodule.": "Nodule 1",
    "Mild left consolidation, consistent with pneumonia.": "Consolidation 1; Pneumonia 1",
    "Blunting of the costophrenic angle by a small effusion.": "Effusion 1",
    # several words of one finding
    "Mild to moderate edema.": "Edema 2",
    "Moderately large effusion.": "Effusion 3",
    "Small left and moderate right pleural effusions.": "Effusion 2",
    "Effusions on both sides, right small, left moderate in volume.": "Effusion 2",
    "Effusion has decreased from large to small.": "Effusion 1",
    "The previously small effusion is now moderate.": "Effusion 2",
    "The effusion on the left, previously large, is now small.": "Effusion 1",
    "Atelectasis of moderate severity.": "Atelectasis 2",
    # the words of the three groups
    "Trace effusion.": "Effusion 1",
    "Tiny nodule.": "Nodule 1",
    "Slight cardiomegaly.": "Cardiomegaly 1",
    "Moderate-sized effusion.": "Effusion 2",
    "Middle-size mass.": "Mass 2",
    "Medium-sized hiatal hernia.": "Hernia 2",
    "Remarkable effusion.": "Effusion 3",
    "Marked cardiomegaly.": "Cardiomegaly 3",
    "Massive effusion.": "Effusion 3",
    "Extensive consolidation.": "Consolidation 3",
    "Advanced emphysema.": "Emphysema 3",
    "Huge mass.": "Mass 3",
}


def shown(text: str) -> str:
    found = decided(read_report([("", text)], builtin()))
    marks = {f: MARKS[one.status] or str(one.severity or "") for f, one in found.items()}
    return "; ".join(f"{finding} {mark}".strip() for finding, mark in sorted(marks.items()))


@pytest.mark.parametrize("text", CASES)
def test_a_sentence(text: str) -> None:
    assert shown(text) == CASES[text]


def test_capitals_and_line_ends_change_nothing() -> None:
    for text, expected in CASES.items():
        assert shown(text.upper()) == expected
        assert shown(text.replace(" ", "\n    ")) == expected


def test_a_report_present_before_possible_before_absent() -> None:
    found = read_report(
        [("FINDINGS", "Possible effusion. No pneumothorax. Small effusion."), ("IMPRESSION", "Large effusion. Edema?")],
        builtin(),
    )
    assert [(one.finding, one.status, one.severity, one.section, one.sentence) for one in found] == [
        ("Effusion", "possible", None, "FINDINGS", 1),
        ("Pneumothorax", "denied", None, "FINDINGS", 2),
        ("Effusion", "present", 1, "FINDINGS", 3),
        ("Effusion", "present", 3, "IMPRESSION", 1),
        ("Edema", "possible", None, "IMPRESSION", 2),
    ]
    best = decided(found)
    assert best["Effusion"] == found[3]
    assert {finding: one.status for finding, one in best.items()} == {
        "Effusion": "present", "Pneumothorax": "denied", "Edema": "possible",
    }  # fmt: skip


def test_words_are_cut_out_of_the_text_as_it_stands() -> None:
    text = "  Heart is\n   mildly  enlarged.\n\nSmall İ left pleural\n\tfluid"
    first, second = read_report([("FINDINGS", text)], builtin())
    assert first.words == text[first.start : first.end] == "Heart is\n   mildly  enlarged"
    assert (first.severity_words, first.text) == ("mildly", "Heart is mildly enlarged.")
    assert second.words == text[second.start : second.end] == "pleural\n\tfluid"
    assert (second.sentence, second.severity) == (2, 1)


def test_sentences() -> None:
    text = "1.  Small effusion. Nodule of 1.5 cm vs. scar!  Clear? \n \n END"
    found = list(split(text))
    assert [one.text for one in found] == ["Small effusion.", "Nodule of 1.5 cm vs. scar!", "Clear?", "END"]
    assert all(text[one.start :].startswith(one.text) for one in found)
    assert list(split(" \n ")) == []


def test_a_text_without_an_end_of_a_sentence_is_read_in_pieces() -> None:
    """So that it takes no longer than as much text with sentences."""
    text = "heart " * 20_000 + "no small " * 20_000 + "effusion" + "x" * 50_000
    pieces = list(split(text))
    assert max(len(one.text) for one in pieces) < 1000
    assert all(text[one.start :].startswith(one.text) for one in pieces)
    assert sum(len(one.text.replace(" ", "")) for one in pieces) == len(text.replace(" ", ""))
    assert read_report([("", text[:6_000] + ". No effusion.")], builtin())[-1].status == "denied"


# --- the phantom's sentences, every one of them


@pytest.mark.parametrize("finding", PHRASES)
def test_every_sentence_of_a_phantom(finding: str) -> None:
    for severity in (1, 2, 3):
        for sides in (("left",), ("right",), ("left", "right")):
            lesions = tuple(Lesion(finding, side, severity, np.empty((0, 2)), 0) for side in sides)
            texts = {describe(finding, lesions, np.random.default_rng(seed)) for seed in range(100)}
            assert len(texts) > len(WORDS[severity - 1])
            for text in texts:
                one = decided(read_report([("", text)], builtin()))[finding]
                assert (one.status, one.severity) == ("present", severity), text


@pytest.mark.parametrize("form", DENIALS)
def test_every_denial_of_a_phantom(form: str) -> None:
    assert shown(form.format(a="mass", b="pleural effusion")) == "Effusion no; Mass no"


# --- sections


def test_sections_of_mimic() -> None:
    text = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___ year old woman with pneumonia  // eval for effusion

 COMPARISON:  Prior with large effusion.

 FINDINGS:

 LUNGS: Small left
 effusion.  PLEURA: normal.

 IMPRESSION:

 1.  Small effusion.

 RECOMMENDATION(S):  CT to exclude a mass.
"""
    found = dict(sections(text))
    assert [*found] == ["FINDINGS", "IMPRESSION"]
    assert found["FINDINGS"].split() == ["LUNGS:", "Small", "left", "effusion.", "PLEURA:", "normal."]
    assert found["IMPRESSION"].split() == ["1.", "Small", "effusion."]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Small effusion. LUNGS: clear.", [("", "Small effusion. LUNGS: clear.")]),
        (
            "INDICATION: mass. FINDINGS: Edema. IMPRESSION: Effusion.",
            [("FINDINGS", "Edema."), ("IMPRESSION", "Effusion.")],
        ),
        (
            "History: mass.\nFindings: Edema. Impression: Effusion.",
            [("FINDINGS", "Edema."), ("IMPRESSION", "Effusion.")],
        ),
        ("HISTORY: mass FINDINGS: Edema IMPRESSION: Mass", [("FINDINGS", "Edema"), ("IMPRESSION", "Mass")]),
        ("FINDINGS AND IMPRESSION: Edema.", [("FINDINGS AND IMPRESSION", "Edema.")]),
        ("FINDINGS/IMPRESSION:\nEdema.", [("FINDINGS/IMPRESSION", "Edema.")]),
        ("REASON FOR EXAM: mass\nCONCLUSION\nEdema.", [("CONCLUSION", "Edema.")]),
        (
            "HISTORY: mass.\n\nTwo views. Edema.\n\nIMPRESSION: Mass.",
            [("", "Two views. Edema."), ("IMPRESSION", "Mass.")],
        ),
        ("HISTORY: mass.\n\nTwo views.\n\nFINDINGS: Edema.", [("FINDINGS", "Edema.")]),
        ("Clinical history\nMass.\n\nFindings\nEdema.\n", [("FINDINGS", "Edema.")]),
        (
            "FINDINGS:\nThe heart is large.\nPatient is turned and has an\neffusion.",
            [("FINDINGS", "The heart is large.\nPatient is turned and has an\neffusion.")],
        ),
        (
            "ADDENDUM  ___ 10:00 AM\nEffusion.\n____\n  FINAL REPORT\nHISTORY: mass\nFINDINGS: Edema.",
            [("ADDENDUM", "Effusion.\n____"), ("FINDINGS", "Edema.")],
        ),
        ("IMPRESSION: Edema.  RECOMMENDATION(S):  CT to exclude a mass.", [("IMPRESSION", "Edema.")]),
        ("INDICATION: mass.", []),
        ("PRIOR STUDY: mass. IMPRESSION: Edema.", [("IMPRESSION", "Edema.")]),
        ("", []),
    ],
)
def test_sections(text: str, expected: list[tuple[str, str]]) -> None:
    assert [(name, part.strip()) for name, part in sections(text)] == expected


# --- a lexicon of one's own


def own(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "own.toml"
    path.write_text(text)
    return path


def test_a_lexicon_adds_and_replaces(tmp_path: Path) -> None:
    path = own(
        tmp_path,
        '[findings."Aortic Aneurysm"]\nwords = ["aneurysm*"]\nnot = ["aneurysm clip"]\n'
        '[findings.Mass]\nwords = ["tumor*"]\n[severity]\nmild = ["wee"]\n',
    )
    lexicon = load(path)
    text = "Wee aneurysms. Aneurysm clip. A mass. Severe tumors. Small effusion."
    found = [(one.finding, one.severity) for one in read_report([("", text)], lexicon)]
    assert found == [("Aortic Aneurysm", 1), ("Mass", 3), ("Effusion", None)]
    assert lexicon.sha256 != builtin().sha256
    assert load(None) is builtin()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[finding.Mass]", "there is no section finding. Did you mean findings?"),
        ("cues = 1", "cues is a section, not a value"),
        ("[findings]\nMass = 1", "findings.Mass is no section"),
        ('[findings.Mass]\nnot = ["x"]', "[findings.Mass] has no words"),
        ('[findings.Mass]\nword = ["x"]\nwords = ["y"]', "[findings.Mass] has no key word. Did you mean words?"),
        ("[findings.Mass]\nwords = [1]", "words of [findings.Mass] is no list of words"),
        ('[findings.Mass]\nwords = "mass"', "words of [findings.Mass] is no list of words"),
        ('[findings." "]\nwords = ["x"]', "is no name of a finding"),
        ('[severity]\nsmall = ["x"]', "[severity] has no key small"),
        ('[findings.Mass]\nwords = ["(mass"]', "which is no pattern"),
        ("[findings", "is not valid TOML"),
    ],
)
def test_a_lexicon_at_fault(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CxrError) as fault:
        load(own(tmp_path, text))
    assert message in fault.value.what
    assert fault.value.cure


def test_a_lexicon_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CxrError, match="There is no lexicon"):
        load(tmp_path / "none.toml")
    (tmp_path / "image.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(CxrError, match="not a text file"):
        load(tmp_path / "image.toml")


def test_the_number_of_an_item_is_no_sentence() -> None:
    found = read_report(
        [("IMPRESSION", "1. Small left effusion.\n2. No pneumothorax.\n3) Moderate cardiomegaly.")], builtin()
    )
    assert [(one.finding, one.sentence) for one in found] == [("Effusion", 1), ("Pneumothorax", 2), ("Cardiomegaly", 3)]
