"""Reads structured reports with pydicom and highdicom, and prints what they hold as JSON, a line a file. Not a test.

Usage: sr.py FILE...
"""

import json
import sys

import highdicom
import pydicom
from pydicom.sr.codedict import codes


def code(item):
    value = item.ConceptCodeSequence[0]
    return [value.CodeValue, value.CodingSchemeDesignator, value.CodeMeaning]


def values(items, name):
    """What stands in items under a concept: texts, UIDs and codes."""
    found = [item for item in items if item.ConceptNameCodeSequence[0].CodeValue == name]
    kinds = {"TEXT": lambda item: item.TextValue, "UIDREF": lambda item: str(item.UID), "CODE": code}
    return [kinds[item.ValueType](item) for item in found]


def algorithm(group):
    """Who says so: name and version; the parameters are apart."""
    return [value for name in ("111001", "111003") for value in values(group.ContentSequence, name)]


def read(path):
    document = highdicom.sr.srread(path)
    groups, raw = [], []
    for container in document.ContentSequence:
        if container.ConceptNameCodeSequence[0].CodeValue == "126010":
            raw = list(container.ContentSequence)
    for group, items in zip( document.content.get_image_measurement_groups(), raw):
        name = highdicom.sr.CodedConcept("111012", "DCM", "Certainty of Finding")
        (measurement,) = group.get_measurements(name=name)
        finding = group.finding_type
        groups.append({
            "tracking": group.tracking_identifier,
            "tracking_uid": str(group.tracking_uid),
            "site": values(items.ContentSequence, "363698007"),
            "standing": values(items.ContentSequence, "standing"),
            "algorithm": algorithm(items),
            "parameters": values(items.ContentSequence, "111002"),
            "finding": [finding.value, finding.scheme_designator],
            "percent": float(measurement.value),
            "unit": [measurement.unit.value, measurement.unit.scheme_designator],
            "source": str(group.source_images[0].referenced_sop_instance_uid) if group.source_images else None,
        })
    evaluations = next(
        item for item in document.ContentSequence if item.ConceptNameCodeSequence[0].CodeValue == "C0034375"
    )
    decision, reasons, comments = None, [], []
    for item in evaluations.ContentSequence:
        name = item.ConceptNameCodeSequence[0].CodeValue
        if name == "decision":
            decision = code(item)
        elif name == "reason":
            reasons.append(code(item) + [item.ContentSequence[0].TextValue])
        elif name == "121106":
            comments.append(item.TextValue)
    (evidence,) = document.CurrentRequestedProcedureEvidenceSequence
    return {
        "sop_class": document.SOPClassUID,
        "instance": document.SOPInstanceUID,
        "study": document.StudyInstanceUID,
        "series": document.SeriesInstanceUID,
        "patient": str(document.PatientName),
        "patient_id": document.PatientID,
        "title": document.ConceptNameCodeSequence[0].CodeValue,
        "flags": [document.CompletionFlag, document.VerificationFlag, document.PreliminaryFlag],
        "evidence": [
            evidence.StudyInstanceUID,
            evidence.ReferencedSeriesSequence[0].SeriesInstanceUID,
            evidence.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID,
        ],
        "observer": {
            "type": values(document.ContentSequence, "121005"),
            "uid": values(document.ContentSequence, "121012"),
            "name": values(document.ContentSequence, "121013"),
            "manufacturer": values(document.ContentSequence, "121014"),
            "model": values(document.ContentSequence, "121015"),
        },
        "procedure": values(document.ContentSequence, "121058"),
        "language": values(document.ContentSequence, "121049"),
        "software": list(document.SoftwareVersions),
        "station": document.StationName,
        "algorithm": algorithm(raw[0]),
        "groups": groups,
        "decision": decision,
        "reasons": reasons,
        "comments": comments,
    }


for path in sys.argv[1:]:
    print(json.dumps(read(path)))
