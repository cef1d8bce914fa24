"""Scans packed for training: one file of normalized brain boxes that needs no BIDS, NIfTI or DIPY to be read."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from bids_sr.dwi.b0 import Series
from bids_sr.dwi.normalization import companion_shell, shell_context
from bids_sr.errors import TrainingDataError

#: Voxels kept around the brain, so that patches at its border see what the application shows the network there.
MARGIN = 8


@dataclass(frozen=True)
class PackedScan:
    """One series, cropped to the brain, each shell in units of its level.

    Attributes
    ----------
    name : str
    data : ndarray, (n, x, y, z), float16
    means : ndarray, (n_shells, x, y, z), float32
    shells : ndarray of int, (n,)
    mask : ndarray of bool, (x, y, z)
    """

    name: str
    data: NDArray[np.float16]
    means: NDArray[np.float32]
    shells: NDArray[np.int64]
    mask: NDArray[np.bool_]

    def channels(self, index: int) -> tuple[NDArray[np.floating], ...]:
        """Views of the three channels of one volume, each (x, y, z), in the order of `ShellContext.channels`."""
        return self.data[index], self.means[0], self.means[companion_shell(int(self.shells[index]), len(self.means))]

    @cached_property
    def inside(self) -> NDArray[np.int64]:
        """Voxels of the brain, (V, 3)."""
        return np.argwhere(self.mask)


def pack_scan(
    name: str, data: Series, bvals: NDArray[np.float64], mask: NDArray[np.bool_], b0_threshold: float
) -> PackedScan:
    """Normalize a series, (x, y, z, n), and crop it to its brain mask and `MARGIN` voxels around it."""
    context = shell_context(data, bvals, mask, b0_threshold)
    inside = np.argwhere(mask)
    low = np.maximum(inside.min(axis=0) - MARGIN, 0)
    high = np.minimum(inside.max(axis=0) + 1 + MARGIN, mask.shape)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    volumes = [
        np.nan_to_num(np.asarray(data[..., index], dtype=np.float32)[box]) / context.level(index)
        for index in range(data.shape[3])
    ]
    # float16 holds 11 bits; the noise of a diffusion scan is above one part in a hundred.
    return PackedScan(
        name, np.stack(volumes).astype(np.float16), context.means[(slice(None), *box)].copy(), context.shells, mask[box]
    )


def save_pack(scans: Iterable[PackedScan], file: Path) -> None:
    """Write packed scans to one safetensors file."""
    tensors: dict[str, NDArray[np.generic]] = {}
    names = []
    for scan in scans:
        names.append(scan.name)
        for field in ("data", "means", "shells"):
            tensors[f"{scan.name}/{field}"] = np.ascontiguousarray(getattr(scan, field))
        tensors[f"{scan.name}/mask"] = scan.mask.astype(np.uint8)
    # Not `save_file`, whose files only their owner can read.
    file.write_bytes(save(tensors, metadata={"scans": json.dumps(names)}))


def load_pack(file: Path) -> list[PackedScan]:
    """Read what `save_pack` wrote.

    Raises
    ------
    TrainingDataError
        If the file is not a pack.
    """
    try:
        with safe_open(file, framework="numpy") as tensors:
            names = json.loads((tensors.metadata() or {})["scans"])
            return [_read_scan(name, tensors.get_tensor) for name in names]
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise TrainingDataError(where=file, problem=f"not a pack of scans ({error})") from error


def _read_scan(name: str, read: Callable[[str], NDArray[np.generic]]) -> PackedScan:
    """One scan of a pack, by a function that reads an array by its name."""
    data, means, shell, mask = (read(f"{name}/{field}") for field in ("data", "means", "shells", "mask"))
    return PackedScan(
        name, data.astype(np.float16), means.astype(np.float32), shell.astype(np.int64), mask.astype(bool)
    )
