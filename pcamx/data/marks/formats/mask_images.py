"""A folder of mask images, named like the films whatever the suffix (`mask_pixels`)."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pcamx.data.marks.annotated import Annotated, Mark, Remark
from pcamx.data.marks.archive import PACKED
from pcamx.data.marks.mask_pixels import classes_of, upright_size
from pcamx.data.marks.shapes import Raster
from pcamx.errors import PcamxError

SUFFIXES = {".png", ".bmp", ".tif", ".tiff"}
_LOSSY = {".jpg", ".jpeg", ".webp"}
_OTHERS = {
    *(".gif", ".jp2", ".heic", ".psd", ".svg", ".dcm", ".dicom", ".npy", ".npz", ".mat"),
    *PACKED,
    *(".nii", ".nrrd", ".mha", ".mhd", ".h5", ".hdf5", ".parquet", ".xcf", ".avif", ".jxl"),
    *(".heif", ".tga", ".pgm", ".pnm"),
}
"""Other files that may hold masks."""


def read(folder: Path, files: list[Path]) -> Iterator[tuple[Path, Annotated]]:
    """Return each file and its mask, the pixels unread. Raises PcamxError, with the file."""
    for file in files:
        if file.suffix.lower() in _LOSSY:
            raise PcamxError(f"{file}: {file.suffix} blurs a mask's edge; save masks as PNG")
        name = file.relative_to(folder).as_posix()
        if file.suffix.lower() in _OTHERS:
            why = f"{name}: {file.suffix} is not read; save the mask as PNG"
            yield file, Annotated("", remarks=(Remark("damaged", why),))
        if file.suffix.lower() not in SUFFIXES:
            continue
        try:
            size = upright_size(file)
        except PcamxError as error:
            yield file, Annotated("", remarks=(Remark("damaged", f"{name}: {error}"),))
            continue
        shape = Raster(0, 0, *size, partial(classes_of, file))
        yield file, Annotated(name, size, (Mark(name, (), shape),), suffix=False)
