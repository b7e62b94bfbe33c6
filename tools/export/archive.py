"""A result as a DICOM object in the archive that its slide came from: about that slide, with the patient the archive knows."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.tools.export.dicom import own_header
from tissuetalk.tools.export.formats import FORMATS
from tissuetalk.tools.masks.layer import OpenImage
from tissuetalk.tools.masks.stored import open_masks
from tissuetalk.tools.storage.archives import Archive
from tissuetalk.tools.storage.copies import Copies
from tissuetalk.tools.storage.result_folder import ResultFolder

STORED = ("dicom-seg", "dicom-ann", "dicom-sr")


def store(folder: ResultFolder, format: str, archive: Archive, open_image: OpenImage, copies: Copies) -> str:
    """Returns the UID of the object. Whose slide it is goes from the archive to the object and nowhere else.

    Raises InvalidArgumentError for another format, or for a slide that is not of this archive; the archive's errors.
    """
    if format not in STORED:
        raise InvalidArgumentError(f"an archive takes {', '.join(STORED)}; choose one of these as format.")
    with open_image() as source:
        address = copies.address_of(source.path)
        level = own_header(source.files, source.width, source.height)
    if address.archive != archive.name or level is None:
        raise InvalidArgumentError(
            f"this slide lies in the archive {address.archive}; what is made of it is stored there: dicomweb:{address.archive}."
        )
    header = archive.header(address, str(level.SOPInstanceUID))
    with TemporaryDirectory(prefix="tissuetalk-") as private:
        file = Path(private) / FORMATS[format].file_name
        FORMATS[format].write(open_masks(folder, open_image, slide=header), file)
        return archive.store(file, address)
