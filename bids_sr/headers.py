"""What the header of an image must tell before anything is computed from its voxels."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.openers import ImageOpener
from nibabel.spatialimages import HeaderDataError, HeaderTypeError
from numpy.typing import NDArray

from bids_sr.errors import (
    NotFourDimensionalError,
    NotThreeDimensionalError,
    PlaceError,
    UnreadableImageError,
    VoxelSizeError,
    VoxelTypeError,
)
from bids_sr.geometry import Grid, largest_distance, sizes_text

_DAMAGE = (ImageFileError, HeaderDataError, HeaderTypeError, OSError, EOFError, ValueError, zlib.error)

#: Voxel sizes (mm) that a scan of a head can have; others come from a header in metres or micrometres, or from a typo.
LEAST_VOXEL, LARGEST_VOXEL = 0.02, 20.0

#: Relative volume of a voxel below which its three axes lie in one plane.
FLAT = 1e-3

#: Differences of sform and qform up to this part of a voxel come from rounding.
ROUNDING = 0.1

#: Slices of a T1w thicker than this (mm) are those of a 2-D sequence.
THICK_SLICE = 2.5

#: Angles (degrees) between two axes and the right one, up to which they come from rounding.
ROUNDED_ANGLE = 0.5


def open_series(path: Path) -> Any:
    """The image of a diffusion series whose header can be used; its voxels are not read.

    Raises
    ------
    NotFourDimensionalError
        If it has another number of axes.
    UnreadableImageError, VoxelTypeError, VoxelSizeError, PlaceError
        See `check_image` and `check_place`.
    """
    image = _open(path)
    if len(image.shape) != 4:
        raise NotFourDimensionalError(dwi=path, shape=image.shape)
    check_image(image, path)
    check_place(image, path)
    return image


def open_volume(path: Path, what: str) -> Any:
    """A single volume, such as a T1w, as `open_series` opens a series; `what` names it in the message.

    Raises
    ------
    NotThreeDimensionalError
        If it has another number of axes.
    UnreadableImageError, VoxelTypeError, VoxelSizeError, PlaceError
        See `check_image` and `check_place`.
    """
    image = _open(path)
    if len(image.shape) != 3:
        raise NotThreeDimensionalError(path=path, what=what, shape=image.shape)
    check_image(image, path)
    check_place(image, path)
    return image


def _open(path: Path) -> Any:
    """A NIfTI image."""
    try:
        image = nib.load(path)
    except _DAMAGE as error:
        raise UnreadableImageError(path=path, reason=_reason(error)) from error
    if not isinstance(image, nib.Nifti1Pair):
        raise UnreadableImageError(path=path, reason=f"it is a {type(image).__name__}")
    return image


def _reason(error: BaseException) -> str:
    """What a library says, on one line."""
    return getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__


def read_voxels(image: Any, path: Path) -> NDArray[Any]:
    """All voxels of an image.

    Raises
    ------
    UnreadableImageError
        If the file is cut short or damaged.
    """
    try:
        voxels = np.asarray(image.dataobj)
        if path.suffix == ".gz":
            _check_sum(path)
    except _DAMAGE as error:
        raise UnreadableImageError(path=path, reason=_reason(error)) from error
    return voxels


def _check_sum(path: Path) -> None:
    """Read a compressed file to its end, where its checksum is; nibabel stops at the last voxel."""
    with gzip.open(path) as stream:
        while stream.read(2**20):
            pass


def check_image(image: Any, path: Path) -> None:
    """Refuse voxels that are not whole or not real numbers.

    Raises
    ------
    UnreadableImageError
        If it is cut short.
    VoxelTypeError
        If its voxels are complex numbers or colours.
    """
    check_whole(image, path, path)
    check_numbers(image, path)


def check_whole(image: Any, file: Path, named: Path) -> None:
    """Refuse an image without voxels, and one that is not compressed and holds fewer bytes than its header says.

    `file` holds it, `named` is the file that the user knows.

    Raises
    ------
    UnreadableImageError
    """
    if min(image.shape, default=0) < 1:
        raise UnreadableImageError(path=named, reason=f"its shape is {image.shape}")
    needed = math.prod(image.shape) * image.get_data_dtype().itemsize + image.dataobj.offset
    found = file.stat().st_size
    if file.suffix == ".nii" and found < needed:
        raise UnreadableImageError(path=named, reason=f"{found} bytes of {needed}")


def check_numbers(image: Any, path: Path) -> None:
    """Refuse complex values and colours.

    Raises
    ------
    VoxelTypeError
    """
    kind = image.get_data_dtype().kind
    if kind not in "iufb":
        raise VoxelTypeError(path=path, kind={"c": "complex numbers", "V": "colours"}.get(kind, "no numbers"))


def check_place(image: Any, path: Path) -> None:
    """Refuse a header that does not tell where the voxels lie.

    Raises
    ------
    VoxelSizeError
        If voxels are smaller or larger than a scan's can be.
    PlaceError
        If the affine is not finite, or its axes lie in a plane.
    """
    grid = Grid.of(image)
    form = form_used(image)
    if form != "sform":
        _check_written_sizes(image, path)
    if not np.isfinite(grid.affine).all():
        raise PlaceError(path=path, form=form, problem="holds numbers that are not finite")
    sizes = grid.voxel_sizes
    if np.all(sizes > 0) and abs(np.linalg.det(grid.affine[:3, :3])) < FLAT * np.prod(sizes):
        raise PlaceError(path=path, form=form, problem="is singular: its axes lie in a plane")
    # The written size is rounded to float32.
    if sizes.min() < LEAST_VOXEL * 0.999 or sizes.max() > LARGEST_VOXEL * 1.001:
        raise VoxelSizeError(path=path, sizes=sizes_text(sizes), least=LEAST_VOXEL, largest=LARGEST_VOXEL)


def _check_written_sizes(image: Any, path: Path) -> None:
    """Refuse voxel sizes of 0, which nibabel takes for 1."""
    with ImageOpener(path) as stream:
        sizes = np.abs(type(image.header).from_fileobj(stream, check=False)["pixdim"][1:4]).astype(float)
    if np.any(sizes == 0):
        raise VoxelSizeError(path=path, sizes=sizes_text(sizes), least=LEAST_VOXEL, largest=LARGEST_VOXEL)


def form_used(image: Any) -> str:
    """The part of the header that the affine is taken from."""
    header = image.header
    if header["sform_code"] > 0:
        return "sform"
    return "qform" if header["qform_code"] > 0 else "voxel size"


def place_notes(image: Any, name: str) -> list[str]:
    """What a reader should know of the way a header places its voxels in the world, in sentences; `name` the file's."""
    return [*_form_notes(image, name), *_shear_notes(image, name)]


def _form_notes(image: Any, name: str) -> list[str]:
    """An orientation that is not told, or told in two ways."""
    used = form_used(image)
    if used == "voxel size":
        return [
            f"The header of {name} does not tell the orientation (sform and qform codes are 0); it was read as its "
            "first axis running to the left, the second to the front, the third to the head, as NIfTI readers do. "
            "Check left and right."
        ]
    if used == "sform" and image.header["qform_code"] > 0:
        apart = largest_distance(image.header.get_sform(), _qform(image), image.shape)
        if not apart <= ROUNDING * float(Grid.of(image).voxel_sizes.min()):
            return [
                f"sform and qform of {name} disagree by up to {apart:.3g} mm; the sform was used. Programs that read "
                "the qform place the scan elsewhere."
            ]
    return []


def _qform(image: Any) -> NDArray[np.float64]:
    """The qform's affine; not finite where its quaternion is none."""
    try:
        return np.asarray(image.header.get_qform(), dtype=np.float64)
    except (ValueError, HeaderDataError):
        return np.full((4, 4), np.inf)


def _shear_notes(image: Any, name: str) -> list[str]:
    """Axes that are not at right angles."""
    axes = image.affine[:3, :3] / Grid.of(image).voxel_sizes
    degrees = float(np.degrees(np.arcsin(np.clip(np.abs(axes.T @ axes - np.eye(3)).max(), 0, 1))))
    if degrees <= ROUNDED_ANGLE:
        return []
    return [
        f"The axes of {name} are {degrees:.1f} degrees from right angles (a sheared sform), as of an image that was "
        "registered affinely. b-vectors are read along the nearest axes at right angles; check the directions."
    ]


def slice_notes(image: Any) -> list[str]:
    """A T1w of thick slices."""
    thickest = float(Grid.of(image).voxel_sizes.max())
    if thickest <= THICK_SLICE:
        return []
    return [
        f"The T1w image has voxels of {sizes_text(Grid.of(image).voxel_sizes)} mm: it tells little between its slices."
    ]
