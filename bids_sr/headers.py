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
#: So do angles (radians) up to this one where the qform is half a turn, from which it tells no smaller ones apart.
ROUNDED_TURN = 2e-3

#: Slices of a T1w thicker than this (mm) are those of a 2-D sequence.
THICK_SLICE = 2.5

#: Angles (degrees) between two axes and the right one, up to which they come from rounding.
ROUNDED_ANGLE = 0.5


def open_series(path: Path) -> Any:
    """The NIfTI image of a diffusion series whose header can be used; its voxels are not read.

    Raises
    ------
    UnreadableImageError
        If there is no such file, or it is no NIfTI image.
    NotFourDimensionalError, VoxelTypeError, VoxelSizeError, PlaceError
        See `check_series`.
    """
    image = _open_nifti(path)
    check_series(image, path)
    return image


def open_volume(path: Path, what: str) -> Any:
    """A single volume, such as a T1w, as `open_series` opens a series; `what` names it in the message.

    Raises
    ------
    UnreadableImageError
        If there is no such file, or it is no NIfTI image.
    NotThreeDimensionalError, VoxelTypeError, VoxelSizeError, PlaceError
        See `check_volume`.
    """
    image = _open_nifti(path)
    check_volume(image, path, what)
    return image


def _open_nifti(path: Path) -> Any:
    """A NIfTI image."""
    image = open_image(path)
    if not isinstance(image, nib.Nifti1Pair):
        raise UnreadableImageError(path=path, reason=f"it is a {type(image).__name__}")
    return image


def open_image(path: Path) -> Any:
    """An image of any kind that nibabel reads.

    Raises
    ------
    UnreadableImageError
        If there is no such file, or it is none.
    """
    try:
        return nib.load(path)
    except _DAMAGE as error:
        raise UnreadableImageError(path=path, reason=_reason(error)) from error


def check_series(image: Any, name: Path | str) -> None:
    """Refuse a diffusion series that cannot be used, by its header; `name` is what the user knows it by.

    Raises
    ------
    NotFourDimensionalError
        If it has another number of axes.
    UnreadableImageError, VoxelTypeError, VoxelSizeError, PlaceError
        See `check_image` and `check_place`.
    """
    if len(image.shape) != 4:
        raise NotFourDimensionalError(dwi=name, shape=image.shape)
    check_image(image, name)
    check_place(image, name)


def check_volume(image: Any, name: Path | str, what: str) -> None:
    """Refuse a single volume, such as a T1w, as `check_series` refuses a series; `what` says what it is.

    Raises
    ------
    NotThreeDimensionalError
        If it has another number of axes; those after the third may have one entry.
    UnreadableImageError, VoxelTypeError, VoxelSizeError, PlaceError
        See `check_image` and `check_place`.
    """
    if len(image.shape) < 3 or math.prod(image.shape[3:]) != 1:
        raise NotThreeDimensionalError(path=name, what=what, shape=image.shape)
    check_image(image, name)
    check_place(image, name)


def _reason(error: BaseException) -> str:
    """What a library says, on one line."""
    return getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__


def read_voxels(image: Any, name: Path | str) -> NDArray[Any]:
    """All voxels of an image; `name` is what the user knows it by.

    Raises
    ------
    UnreadableImageError
        If the file is cut short or damaged.
    """
    try:
        voxels = np.asarray(image.dataobj)
        file = _file_of(image)
        if file is not None and file.suffix == ".gz":
            _check_sum(file)
    except _DAMAGE as error:
        raise UnreadableImageError(path=name, reason=_reason(error)) from error
    return voxels


def _file_of(image: Any, part: str = "image") -> Path | None:
    """The file that the voxels of an image are read from, or its `part` "header"; None where they are in memory."""
    holder = image.file_map.get(part, image.file_map["image"])
    return Path(holder.filename) if nib.is_proxy(image.dataobj) and holder.filename else None


def _check_sum(path: Path) -> None:
    """Read a compressed file to its end, where its checksum is; nibabel stops at the last voxel."""
    with gzip.open(path) as stream:
        while stream.read(2**20):
            pass


def check_image(image: Any, name: Path | str) -> None:
    """Refuse voxels that are not whole or not real numbers.

    Raises
    ------
    UnreadableImageError
        If it is cut short.
    VoxelTypeError
        If its voxels are complex numbers or colours.
    """
    check_whole(image, name)
    check_numbers(image, name)


def check_whole(image: Any, name: Path | str) -> None:
    """Refuse an image without voxels, and one that is not compressed and whose file is shorter than its header says.

    Raises
    ------
    UnreadableImageError
    """
    if min(image.shape, default=0) < 1:
        raise UnreadableImageError(path=name, reason=f"its shape is {image.shape}")
    file = _file_of(image)
    if file is not None and not file.is_file():
        raise UnreadableImageError(path=name, reason=f"{file} is no longer there")
    if file is None or file.suffix != ".nii":
        return
    needed = math.prod(image.shape) * image.get_data_dtype().itemsize + image.dataobj.offset
    found = file.stat().st_size
    if found < needed:
        raise UnreadableImageError(path=name, reason=f"{found} bytes of {needed}")


def check_numbers(image: Any, name: Path | str) -> None:
    """Refuse complex values and colours.

    Raises
    ------
    VoxelTypeError
    """
    # What an image holds in memory may differ from what its header says.
    kinds = {image.get_data_dtype().kind, getattr(image.dataobj, "dtype", image.get_data_dtype()).kind}
    if wrong := kinds - set("iufb"):
        raise VoxelTypeError(path=name, kind={"c": "complex numbers", "V": "colours"}.get(min(wrong), "no numbers"))


def check_place(image: Any, name: Path | str) -> None:
    """Refuse a header that does not tell where the voxels lie.

    Raises
    ------
    VoxelSizeError
        If voxels are smaller or larger than a scan's can be.
    PlaceError
        If the affine is not finite, or its axes lie in a plane.
    """
    form = form_used(image)
    if image.affine is None:
        raise PlaceError(path=name, form=form, problem="is missing")
    grid = Grid.of(image)
    if form in ("qform", "voxel size"):
        _check_written_sizes(image, name)
    if not np.isfinite(grid.affine).all():
        raise PlaceError(path=name, form=form, problem="holds numbers that are not finite")
    sizes = grid.voxel_sizes
    if np.all(sizes > 0) and abs(np.linalg.det(grid.affine[:3, :3])) < FLAT * np.prod(sizes):
        raise PlaceError(path=name, form=form, problem="is singular: its axes lie in a plane")
    # The written size is rounded to float32.
    if sizes.min() < LEAST_VOXEL * 0.999 or sizes.max() > LARGEST_VOXEL * 1.001:
        raise VoxelSizeError(path=name, sizes=sizes_text(sizes), least=LEAST_VOXEL, largest=LARGEST_VOXEL)


def _check_written_sizes(image: Any, name: Path | str) -> None:
    """Refuse voxel sizes of 0 in a file, which nibabel takes for 1."""
    file = _file_of(image, "header")
    if file is None:
        return
    with ImageOpener(file) as stream:
        sizes = np.abs(type(image.header).from_fileobj(stream, check=False)["pixdim"][1:4]).astype(float)
    if np.any(sizes == 0):
        raise VoxelSizeError(path=name, sizes=sizes_text(sizes), least=LEAST_VOXEL, largest=LARGEST_VOXEL)


def form_used(image: Any) -> str:
    """The part of the header that the affine is taken from; "affine" of images other than NIfTI."""
    header = image.header
    if not isinstance(header, nib.Nifti1Header):
        return "affine"
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
        if not apart <= _rounding(image):
            return [
                f"sform and qform of {name} disagree by up to {apart:.3g} mm; the sform was used. Programs that read "
                "the qform place the scan elsewhere."
            ]
    return []


def _rounding(image: Any) -> float:
    """Distance (mm) by which rounding may part sform and qform; the qform holds three of the four parts of its turn."""
    sizes = Grid.of(image).voxel_sizes
    turned = sum(float(image.header[f"quatern_{part}"]) ** 2 for part in "bcd")
    angle = ROUNDED_TURN if 1 - turned < ROUNDED_TURN**2 else 0.0
    return max(ROUNDING * float(sizes.min()), angle * float(np.linalg.norm(sizes * image.shape[:3])))


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
