"""The words of a DICOM header that are known. Whatever else stands there in free text is never written anywhere."""

RADIOGRAPHS = ("CR", "DX", "RG", "OT", "SC", "RF", "")
OTHER_MODALITIES = (
    "CT", "MR", "US", "NM", "PT", "MG", "XA", "PX", "IO", "ES", "SM", "OP", "ECG", "SEG", "PR", "SR", "KO", "RTDOSE",
    "RTIMAGE", "RTPLAN", "RTSTRUCT", "BMD", "DOC", "REG", "FID",
)  # fmt: skip
CHEST = ("CHEST", "THORAX", "TORAX", "LUNG")
ELSEWHERE = (
    "ABDOMEN", "ABDOMINAL", "ANKLE", "ARM", "BLADDER", "BRAIN", "BREAST", "CALCANEUS", "CSPINE", "ELBOW", "EXTREMITY",
    "FACE", "FEET", "FEMUR", "FIBULA", "FINGER", "FOOT", "FOREARM", "HAND", "HEAD", "HEEL", "HIP", "HIPS", "HUMERUS",
    "JAW", "KIDNEY", "KNEE", "LEG", "LSPINE", "NECK", "PELVIS", "SHOULDER", "SINUS", "SKULL", "SPINE", "SSPINE",
    "TEETH", "THUMB", "TIBIA", "TOE", "TSPINE", "UTERUS", "WRIST",
)  # fmt: skip
WITHOUT_PIXELS = {
    "1.2.840.10008.1.3.10": "a DICOM directory (DICOMDIR), not a film",
    "1.2.840.10008.5.1.4.1.1.11.": "a presentation state, not a film",
    "1.2.840.10008.5.1.4.1.1.88.": "a structured report, not a film",
}
LATERAL_VIEWS = frozenset(
    {"LATERAL", "LAT", "LL", "RL", "L", "LLD", "RLD", "LATERAL LEFT", "LATERAL RIGHT", "XTABLE LATERAL"}
)
VIEWS = LATERAL_VIEWS | {
    "AP", "PA", "AP AXIAL", "AP_AXIAL", "LLO", "RLO", "LAO", "RAO", "LPO", "RPO", "OBLIQUE", "LORDOTIC", "AP LLD",
    "AP RLD", "PA LLD", "PA RLD", "SWIMMERS",
}  # fmt: skip
# A PatientID that stands for nobody, in capitals and without what is no letter or digit.
NOBODY = frozenset(
    {
        "ANON", "ANONYM", "ANONYMOUS", "ANONYMIZED", "ANONYMISED", "ANONYMIZE", "ANONPATIENT", "ANONYMOUSPATIENT",
        "ANONYMIZEDPATIENT", "ANONYMISEDPATIENT", "DEIDENTIFIED", "PSEUDONYMIZED", "PSEUDONYMISED", "REMOVED",
        "DELETED", "REDACTED", "HIDDEN", "BLANK", "EMPTY", "NONE", "NULL", "NAN", "NA", "NOID", "NOPATIENTID", "NOBODY",
        "NOTAVAILABLE", "UNDEFINED", "UNKNOWN", "UNKNOWNPATIENT", "UNNAMED", "PATIENT", "PATIENTID", "TEST", "DUMMY",
        "PHANTOM",
    }
)  # fmt: skip
