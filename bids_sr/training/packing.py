"""Scans packed for training: one file of normalized brain boxes that needs no BIDS, NIfTI or DIPY to be read."""

import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from bids_sr.bids.outputs import write_atomically
from bids_sr.dwi.b0 import Series
from bids_sr.dwi.normalization import Box, Normalization, make_normalization, shell_context
from bids_sr.dwi.t1w import with_larger_voxels
from bids_sr.errors import TrainingDataError
from bids_sr.models.base import NORMALIZATIONS
from bids_sr.training.pseudo_t1w import PseudoT1ws, contrasts

#: Voxels kept around the brain, so that patches at its border see what the application shows the network there.
MARGIN = 8


#: Bytes kept free for the table of contents of a pack, enough for about a thousand scans.
HEADER = 2**20

#: Largest value of float16.
_LARGEST = 65504.0
_REQUIRED = ("data", "means", "shells", "mask", "levels", "voxel_sizes")
_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "U8": np.dtype("u1"),
}


@dataclass(frozen=True)
class PackedScan:
    """One series, cropped to the brain, each shell in units of its level.

    Attributes
    ----------
    name : str
    data : ndarray, (n, x, y, z), float16
    means : ndarray, (n_shells, x, y, z), float32
        Mean volume of each shell, the b0 first.
    shells : ndarray of int, (n,)
        Shell of each volume, 0 for b0.
    mask : ndarray of bool, (x, y, z)
        The brain.
    levels : ndarray, (n_shells,), float64
        What the volumes of each shell were divided by, in the units of the scan.
    voxel_sizes : ndarray, (3,), float64
        In mm.
    t1w : ndarray, (x * k0, y * k1, z * k2), float16, or None
        The T1w on the same box with voxels divided by whole numbers, as `bids_sr.dwi.t1w.refined_t1w` gives it.
    simulated : bool
        Whether the scan was made rather than acquired.
    gradients : ndarray, (n, 4), float64, or None
        b-values in s/mm2 and directions; packs of earlier versions hold none.
    """

    name: str
    data: NDArray[np.float16]
    means: NDArray[np.float32]
    shells: NDArray[np.int64]
    mask: NDArray[np.bool_]
    levels: NDArray[np.float64]
    voxel_sizes: NDArray[np.float64]
    t1w: NDArray[np.float16] | None = None
    simulated: bool = False
    gradients: NDArray[np.float64] | None = None

    @cached_property
    def inside(self) -> NDArray[np.int32]:
        """Voxels of the brain as flat indices, (V,)."""
        return np.flatnonzero(self.mask).astype(np.int32)

    def draw_voxel(self, random: np.random.Generator) -> NDArray[np.int64]:
        """A voxel of the brain, (3,)."""
        return np.array(np.unravel_index(self.inside[random.integers(len(self.inside))], self.mask.shape))

    @property
    def t1w_parts(self) -> tuple[int, int, int]:
        """Into how many T1w voxels a voxel is divided along each axis."""
        return (1, 1, 1) if self.t1w is None else _parts(self.t1w.shape, self.mask.shape)

    @cached_property
    def coarse_t1w(self) -> NDArray[np.float32] | None:
        """The T1w through the voxels of the scan, (x, y, z)."""
        return None if self.t1w is None else with_larger_voxels(self.t1w.astype(np.float32), self.t1w_parts)

    @cached_property
    def pseudo_t1ws(self) -> PseudoT1ws:
        """Pictures made from the lowest weighted shell and the b0."""
        return PseudoT1ws(contrasts(self.data[self.shells == 1], self.means[0], self.mask), self.mask)

    @cached_property
    def checksum(self) -> str:
        """Of its content: the volumes, which are not read, are told by the means of their shells."""
        parts = (self.means, self.shells, self.mask, self.levels, self.voxel_sizes, self.t1w, self.gradients)
        total = 0
        for part in parts:
            total = total if part is None else zlib.crc32(np.ascontiguousarray(part).data, total)
        return f"{total:08x}"

    @cached_property
    def normalizations(self) -> dict[str, Normalization]:
        """How signals are put to models, by the name on a model's card."""
        return {kind: make_normalization(kind, self.levels, self.means[0], self.mask) for kind in NORMALIZATIONS}


def _parts(fine: tuple[int, ...], coarse: tuple[int, ...]) -> tuple[int, int, int]:
    """Whole number of fine voxels per coarse voxel along each axis."""
    return fine[0] // coarse[0], fine[1] // coarse[1], fine[2] // coarse[2]


def brain_box(mask: NDArray[np.bool_]) -> Box:
    """The part of a grid that holds a mask, (x, y, z), and `MARGIN` voxels around it."""
    inside = np.argwhere(mask)
    low = np.maximum(inside.min(axis=0) - MARGIN, 0)
    high = np.minimum(inside.max(axis=0) + 1 + MARGIN, mask.shape)
    return slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1])), slice(int(low[2]), int(high[2]))


def pack_scan(
    name: str,
    data: Series,
    bvals: NDArray[np.float64],
    mask: NDArray[np.bool_],
    b0_threshold: float,
    *,
    voxel_sizes: NDArray[np.float64],
    t1w: NDArray[np.floating] | None = None,
    simulated: bool = False,
    bvecs: NDArray[np.float64] | None = None,
) -> PackedScan:
    """Normalize a series and crop it to its brain.

    Parameters
    ----------
    name : str
    data : array or array proxy, (x, y, z, n)
        Voxels that are not finite count as zero.
    bvals : ndarray, (n,)
        b-values in s/mm2.
    mask : ndarray of bool, (x, y, z)
        The brain.
    b0_threshold : float
        Largest b-value, in s/mm2, that counts as b0.
    voxel_sizes : ndarray, (3,)
        In mm.
    t1w : ndarray, (x * k0, y * k1, z * k2), optional
        The T1w on the grid of the series with finer voxels, as `bids_sr.dwi.t1w.refined_t1w` gives it.
    simulated : bool
        Whether the series was made rather than acquired.
    bvecs : ndarray, (n, 3), optional
        Directions; only what compares tensors needs them.

    Raises
    ------
    TrainingDataError
        If shapes do not fit together, the mask is empty, a volume holds no finite value, or there are no weighted
        volumes.
    NoSignalError
        If a shell has no signal in the mask.
    """
    _check(name, data, bvals, mask, b0_threshold)
    if t1w is not None and tuple(np.multiply(_parts(t1w.shape, mask.shape), mask.shape)) != t1w.shape:
        raise TrainingDataError(where=name, problem=f"T1w of shape {t1w.shape} for a series of {mask.shape}")
    context = shell_context(data, bvals, mask, b0_threshold)
    box = brain_box(mask)
    volumes = np.empty((data.shape[3], *mask[box].shape), np.float16)
    for index in range(data.shape[3]):
        volume = _finite(np.asarray(data[..., index], dtype=np.float32)[box], f"{name}, volume {index}")
        # float16 holds 11 bits; the noise of a diffusion scan is above one part in a hundred.
        volumes[index] = np.clip(volume / context.level(index), -_LARGEST, _LARGEST)
    return PackedScan(
        name,
        volumes,
        context.means[(slice(None), *box)].copy(),
        context.shells,
        mask[box].copy(),
        context.levels,
        np.asarray(voxel_sizes, dtype=np.float64),
        None if t1w is None else _cropped_t1w(t1w, mask.shape, box),
        simulated,
        # Directions of b0 volumes may be anything.
        None if bvecs is None else np.nan_to_num(np.column_stack([bvals, bvecs])).astype(np.float64),
    )


def _check(name: str, data: Series, bvals: NDArray[np.float64], mask: NDArray[np.bool_], b0_threshold: float) -> None:
    """Refuse what cannot be a scan to train on."""
    if len(data.shape) != 4 or data.shape[:3] != mask.shape or data.shape[3] != len(bvals):
        problem = f"series of shape {tuple(data.shape)}, mask of {mask.shape}, {len(bvals)} b-values"
        raise TrainingDataError(where=name, problem=problem)
    if not mask.any():
        raise TrainingDataError(where=name, problem="the brain mask is empty")
    if not np.any(bvals > b0_threshold) or not np.any(bvals <= b0_threshold):
        kind = "weighted" if np.all(bvals <= b0_threshold) else "b0"
        raise TrainingDataError(where=name, problem=f"no {kind} volumes (threshold {b0_threshold:g} s/mm2)")


def _cropped_t1w(t1w: NDArray[np.floating], shape: tuple[int, ...], box: Box) -> NDArray[np.float16]:
    """The part of a T1w on finer voxels that lies in a box of the grid of `shape`."""
    fine = tuple(slice(side.start * k, side.stop * k) for side, k in zip(box, _parts(t1w.shape, shape), strict=True))
    return t1w[fine].astype(np.float16)


def _finite(volume: NDArray[np.float32], where: str) -> NDArray[np.float32]:
    """The volume with zeros where it is not finite; a volume without any finite value is refused."""
    finite = np.isfinite(volume)
    if not finite.any():
        raise TrainingDataError(where=where, problem="no voxel has a finite value")
    return np.where(finite, volume, np.float32(0))


def save_pack(scans: Iterable[PackedScan], file: Path) -> None:
    """Write packed scans to one safetensors file, which appears whole or not at all.

    Scans are written as they come, so that only one of them needs to be in memory.

    Raises
    ------
    TrainingDataError
        If there is no scan, two have the same name, or the file cannot be written.
    """
    try:
        with write_atomically(file) as partial, partial.open("wb") as stream:
            stream.write(bytes(8 + HEADER))
            entries: dict[str, Any] = {}
            names: list[str] = []
            for scan in scans:
                if scan.name in names:
                    raise TrainingDataError(where=file, problem=f"two scans are named {scan.name}")
                names.append(scan.name)
                entries |= _write_scan(scan, stream)
            if not names:
                raise TrainingDataError(where=file, problem="there is no scan to pack")
            header = json.dumps({"__metadata__": {"scans": json.dumps(names)}, **entries}).encode()
            if len(header) > HEADER:
                raise TrainingDataError(where=file, problem=f"{len(names)} scans are too many; write several packs")
            stream.seek(0)
            stream.write(HEADER.to_bytes(8, "little") + header.ljust(HEADER))
    except OSError as error:
        raise TrainingDataError(where=file, problem=f"cannot be written ({error.strerror or error})") from error


def _write_scan(scan: PackedScan, stream: BinaryIO) -> dict[str, Any]:
    """Write the arrays of a scan; return what the header of a safetensors file says of each."""
    tensors = {field: np.ascontiguousarray(getattr(scan, field)) for field in _REQUIRED}
    tensors["simulated"] = np.array([scan.simulated], np.int64)
    for field in ("t1w", "gradients"):
        if getattr(scan, field) is not None:
            tensors[field] = np.ascontiguousarray(getattr(scan, field))
    tensors["mask"] = scan.mask.astype(np.uint8)
    # The next scan would begin at an odd place, from where numbers are read more slowly.
    tensors["padding"] = np.zeros(-sum(tensor.nbytes for tensor in tensors.values()) % 8, np.uint8)
    entries = {}
    for field, tensor in sorted(tensors.items(), key=lambda item: -item[1].itemsize):
        begin = stream.tell() - 8 - HEADER
        stream.write(tensor.tobytes())
        kind = next(code for code, dtype in _DTYPES.items() if dtype == tensor.dtype)
        offsets = [begin, begin + tensor.nbytes]
        entries[f"{scan.name}/{field}"] = {"dtype": kind, "shape": tensor.shape, "data_offsets": offsets}
    return entries


def load_pack(file: Path) -> list[PackedScan]:
    """Map what `save_pack` wrote into memory; processes that load the same file share it.

    Raises
    ------
    TrainingDataError
        If the file is not a pack, or one of an older version.
    """
    try:
        with safe_open(file, framework="numpy") as tensors:
            names = json.loads((tensors.metadata() or {})["scans"])
            present = set(tensors.keys())
        with file.open("rb") as stream:
            start = 8 + int.from_bytes(stream.read(8), "little")
            entries = json.loads(stream.read(start - 8))
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise TrainingDataError(where=file, problem=f"not a pack of scans ({error})") from error
    for name in names:
        if any(f"{name}/{field}" not in present for field in _REQUIRED):
            raise TrainingDataError(where=file, problem="packed by an older version; pack the scans again")
    return [_read_scan(name, file, start, entries) for name in names]


def _read_scan(name: str, file: Path, start: int, entries: dict[str, Any]) -> PackedScan:
    """One scan of a pack, whose arrays begin at byte `start` of the file."""

    def mapped(field: str) -> NDArray[Any]:
        """An array of the scan, not read before it is used."""
        entry = entries[f"{name}/{field}"]
        offset, dtype = start + entry["data_offsets"][0], _DTYPES[entry["dtype"]]
        return np.memmap(file, dtype, mode="r", offset=offset, shape=tuple(entry["shape"])).view(np.ndarray)

    return PackedScan(
        name,
        mapped("data"),
        mapped("means"),
        mapped("shells"),
        mapped("mask").astype(bool),
        mapped("levels"),
        mapped("voxel_sizes"),
        mapped("t1w") if f"{name}/t1w" in entries else None,
        bool(mapped("simulated")[0]),
        mapped("gradients") if f"{name}/gradients" in entries else None,
    )
