"""A restoration in a process of its own, so that the time and the memory that are measured are its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bids_sr.errors import RestorationKilledError
from bids_sr.geometry import Grid

if TYPE_CHECKING:
    import torch

    from bids_sr.dwi.t1w import T1wImage
    from bids_sr.evaluation.benchmark import Degraded

Float = NDArray[np.float32]
Volumes = Iterator[Float]
#: Passes volumes on and shows how many are done: (volumes, how many there are).
Progress = Callable[[Iterable[Float], int], Volumes]

_DATA, _MASK, _RESTORED = "data.npy", "mask.npy", "restored.f32"
_T1W, _T1W_AFFINE = "t1w.npy", "t1w_affine.npy"


@dataclass(frozen=True)
class Order:
    """What is to be restored, and how.

    Attributes
    ----------
    model : str
        Name in the registry, or path of a card.
    bvals : ndarray, (n,)
        In s/mm2.
    source, target : Grid
        Of the degraded series, and the one it is restored to.
    b0_threshold : float
        Largest b-value in s/mm2 that counts as b0.
    device : str
        As in `bids_sr.inference.device`.
    threads : int
        Processor threads of the model.
    """

    model: str
    bvals: NDArray[np.float64]
    source: Grid
    target: Grid
    b0_threshold: float
    device: str
    threads: int


@dataclass(frozen=True)
class Cost:
    """What a restoration took.

    Attributes
    ----------
    seconds : float
        From the degraded series to the last restored volume on disk; starting Python and loading the model not counted.
    peak_gb : float
        Most resident memory of the process since its start (Linux: VmHWM), in GB of 1024^3 bytes, Python and libraries
        included.
    gpu_gb : float
        Most memory that tensors took on the GPU, in the same unit; 0 without one.
    """

    seconds: float
    peak_gb: float
    gpu_gb: float


def hand_over(degraded: Degraded, t1w: T1wImage | None, folder: Path) -> None:
    """Write what the processes read: the degraded series, its mask and, if there is one, the T1w.

    Parameters
    ----------
    degraded : Degraded
    t1w : T1wImage or None
        In the world of the series.
    folder : Path
        Without files of another series.
    """
    # Volumes first: each then lies in one piece, and only the one in hand is mapped into memory.
    np.save(folder / _DATA, np.moveaxis(degraded.data, -1, 0))
    np.save(folder / _MASK, degraded.mask)
    if t1w is not None:
        np.save(folder / _T1W, np.asarray(t1w.voxels))
        np.save(folder / _T1W_AFFINE, t1w.grid.affine)


def restore_apart(order: Order, folder: Path, progress: Progress, label: str) -> tuple[Float, Cost]:
    """Restore the series that was handed over in `folder`, in a fresh process.

    Parameters
    ----------
    order : Order
    folder : Path
        Of `hand_over`; the result is kept there until the next restoration.
    progress : callable
        Called in the new process, so it must be picklable.
    label : str
        What is restored, for the message if the process is killed.

    Returns
    -------
    restored : ndarray, (x, y, z, n), float32
        On the target grid, mapped from disk.
    cost : Cost

    Raises
    ------
    RestorationKilledError
        If the process disappears.
    BidsSrError
        What the restoration itself raises.
    """
    # Spawned, not forked: a fork would count the memory of this process as its own.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            cost = pool.submit(_restore, order, folder, progress).result()
        except BrokenProcessPool as error:
            raise RestorationKilledError(label=label) from error
    shape = (len(order.bvals), *order.target.shape)
    return np.moveaxis(np.memmap(folder / _RESTORED, np.float32, "r", shape=shape), 0, -1), cost


def _restore(order: Order, folder: Path, progress: Progress) -> Cost:
    """Restore and measure; what the new process does."""
    import torch

    from bids_sr.inference.device import resolve_device, use_processors

    use_processors(order.threads)
    device = resolve_device(order.device)
    volumes = _volumes(order, folder, device)
    start = time.perf_counter()
    with (folder / _RESTORED).open("wb") as stream:
        for volume in progress(volumes, len(order.bvals)):
            stream.write(volume.tobytes())
    seconds = time.perf_counter() - start
    gpu = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    return Cost(seconds, peak_memory_gb(), gpu / 1024**3)


def _volumes(order: Order, folder: Path, device: torch.device) -> Volumes:
    """The restored volumes, one after the other."""
    from bids_sr.dwi.t1w import t1w_channel
    from bids_sr.inference.upsampler import restore_volumes
    from bids_sr.models.registry import load_model

    model, card = load_model(order.model, device)
    mask = np.load(folder / _MASK)
    t1w = _t1w(folder) if card.uses_t1w else None
    return restore_volumes(
        np.moveaxis(np.load(folder / _DATA, mmap_mode="r"), 0, -1),
        order.bvals,
        order.source,
        order.target,
        mask,
        model,
        signal=card.signal,
        b0_threshold=order.b0_threshold,
        device=device,
        t1w=None if t1w is None else t1w_channel(t1w.voxels, t1w.grid, order.source, mask),
        guide=t1w,
    )


def _t1w(folder: Path) -> T1wImage | None:
    """The T1w that was handed over, if there was one."""
    from bids_sr.dwi.t1w import T1wImage

    if not (folder / _T1W).exists():
        return None
    voxels = np.load(folder / _T1W)
    return T1wImage(voxels, Grid(voxels.shape, np.load(folder / _T1W_AFFINE)))


def peak_memory_gb(status: Path = Path("/proc/self/status")) -> float:
    """Most resident memory of this process since it started, in GB of 1024^3 bytes; not a number where unknown.

    Not `getrusage`: its figure is inherited from the process that started this one.
    """
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return float("nan")
    peaks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return peaks[0] / 1024**2 if peaks else float("nan")
