"""DICOM structured report: every measure of every mask, as TID 1500 has it, a group for each mask."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.writing import library
from tissuetalk.tools.answers.results import Measured
from tissuetalk.tools.export import dicom
from tissuetalk.tools.export.deidentify import uid_of
from tissuetalk.tools.masks.layer import MaskLayer
from tissuetalk.tools.masks.stored import SegmentedRegion
from tissuetalk.tools.measure.measure import measure_folder

_UCUM = re.compile(r"/?[mu]m[23]?")
_LETTERS = str.maketrans({"µ": "u", "²": "2", "³": "3"})
SCHEME = "99TISSUETALK"


def write(masks: SegmentedRegion, out: Path) -> None:
    """Measures that need no pixels. What was looked for and not found is a group with its numbers, 0 of them.

    Raises InvalidArgumentError for a result without masks.
    """
    if not masks.layers:
        raise InvalidArgumentError("this result has no masks, and so no measures to report; segment again.")
    hd, codes = library("highdicom"), library("pydicom.sr.codedict").codes
    slide, made_by = dicom.slide_of(masks), dicom.maker(masks)
    measured = measure_folder(masks.folder, metrics=None, mask_ids=None, open_image=masks.open_image)
    rows: dict[str, list[Measured]] = {}
    for row in measured.measurements:
        rows.setdefault(row.mask_id, []).append(row)
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=uid_of(made_by["software_versions"], "device"),
        name="tissuetalk, research use only",
        manufacturer_name=made_by["manufacturer"],
        model_name=made_by["manufacturer_model_name"],
    )
    observer = hd.sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    report = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=hd.sr.CodedConcept("tissue-imaging", SCHEME, "Measures of a tissue image"),
        imaging_measurements=[
            _group(layer, rows.get(layer.record.mask_id, []), slide) for layer in masks.layers
        ],
        title=codes.DCM.ImagingMeasurementReport,
    )
    kept = ("manufacturer_model_name", "software_versions", "device_serial_number", "series_description")
    hd.sr.ComprehensiveSR(
        evidence=[slide],
        content=report,
        series_instance_uid=made_by["series_instance_uid"],
        series_number=made_by["series_number"],
        sop_instance_uid=made_by["sop_instance_uid"],
        instance_number=made_by["instance_number"],
        manufacturer=made_by["manufacturer"],
        is_complete=True,
        **{name: made_by[name] for name in kept},
    ).save_as(out)


def _group(layer: MaskLayer, rows: list[Measured], slide: Any) -> Any:
    hd, record = library("highdicom"), layer.record
    category, kind = dicom.property_codes(layer)
    origin = record.provenance
    return hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=hd.UID(), identifier=record.mask_id),
        finding_category=category,
        finding_type=kind,
        algorithm_id=hd.sr.AlgorithmIdentification(
            name=origin.model[: dicom.LONGEST_TEXT],
            version=origin.version,
            parameters=[f"weights_sha256={origin.weights_sha256}", f"prompt={origin.prompt}"],
        ),
        source_images=[
            hd.sr.SourceImageForMeasurementGroup(
                referenced_sop_class_uid=slide.SOPClassUID, referenced_sop_instance_uid=slide.SOPInstanceUID
            )
        ],
        measurements=[
            _measurement(row) for row in rows if row.value is not None and math.isfinite(row.value)
        ],
    )


def _measurement(row: Measured) -> Any:
    sr = library("highdicom").sr
    unit = row.unit.replace("per ", "/").translate(_LETTERS)
    if not _UCUM.fullmatch(unit):  # a number of something: what it is of stands in braces
        unit = f"{{{unit.replace(' ', '_')[:14]}}}" if unit else "1"
    return sr.Measurement(
        name=sr.CodedConcept(row.metric, SCHEME, row.metric[: dicom.LONGEST_TEXT]),
        value=float(f"{row.value:.10g}"),
        unit=sr.CodedConcept(unit, "UCUM", (row.unit or "no units")[: dicom.LONGEST_TEXT]),
    )
