"""All families. Each is a function that yields cases; contents are made when a case runs."""

from __future__ import annotations

from hostile.case import Case, numbered
from hostile.families import (
    arguments,
    damage,
    dicom,
    kept,
    mirax,
    paths,
    pictures,
    protocol,
    slides,
    tiffs,
    web,
    words,
)

MOST_IN_A_FAMILY, MOST_DAMAGED = 80, 50
FAMILIES = (
    pictures.png_family,
    pictures.jpeg_family,
    pictures.webp_and_bmp_family,
    tiffs.tiff_family,
    tiffs.ome_family,
    tiffs.jpeg2000_family,
    slides.slides_family,
    mirax.mirax_family,
    dicom.dicom_family,
    damage.damage_family,
    paths.paths_family,
    arguments.arguments_family,
    words.texts_family,
    protocol.protocol_family,
    kept.classifiers_family,
    kept.user_files_family,
    kept.workspace_family,
    web.web_family,
)


def all_cases() -> list[Case]:
    return numbered(case for family in FAMILIES for case in family())


def cross_section(every: int = 8) -> list[Case]:
    """Those marked as samples and every so many-th of the others, none that may take long, those over HTTP last."""
    quick = [case for case in all_cases() if case.sample or case.seconds <= 10]
    chosen = [case for number, case in enumerate(quick) if case.sample or number % every == 0]
    return sorted(chosen, key=lambda case: case.family == "HTTP")
