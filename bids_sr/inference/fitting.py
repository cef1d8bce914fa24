"""The fit of a model to the scan that it is to restore: once per series, told as it goes, kept for the next run."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from bids_sr import __version__
from bids_sr.models.base import RestorationModel
from bids_sr.models.fitting import FittableModel, Learning, Scan

#: Passes the steps of a fit on and shows how many are done: (steps, how many there are).
Progress = Callable[[Iterable[int], int], Iterable[int]]


def _silently(steps: Iterable[int], total: int) -> Iterable[int]:
    """The steps, untold."""
    return steps


@dataclass
class FitLog:
    """How a fit is run, and what came of it.

    Attributes
    ----------
    seed : int
        Of all that is random in it.
    folder : Path or None
        Where what was learned is kept, so that the same fit is not run twice; nowhere if None.
    progress : callable
        Shows how far it is.
    record : dict
        Of the last fit: sentence, steps, seconds (0 where it was found in the folder), learned. Empty where the model
        needed none.
    """

    seed: int = 0
    folder: Path | None = None
    progress: Progress = _silently
    record: dict[str, Any] = field(default_factory=dict)


def fitted(
    model: RestorationModel | FittableModel, scan: Callable[[], Scan], device: torch.device, log: FitLog
) -> RestorationModel:
    """The model that restores a scan: itself, or what it becomes when it is fitted to that scan.

    Parameters
    ----------
    model : RestorationModel or FittableModel
    scan : callable
        Gives what it may learn from; not called for a model that does not learn.
    device : torch.device
    log : FitLog
        What came of it is noted there.
    """
    if not isinstance(model, FittableModel):
        return model
    start = time.monotonic()
    with _own_randomness(log.seed), torch.inference_mode(False), torch.enable_grad():
        shown = scan()
        fit = model.begin_fit(shown, device)
        if fit.learning is not None:
            key = _key(model, shown, fit.learning, device, log.seed)
            _learn_once(cast(nn.Module, fit.model), fit.learning, key, log)
    log.record = {
        "learned": fit.learning is not None,
        "sentence": fit.sentence,
        "steps": fit.learning.n_steps if fit.learning else 0,
        "seconds": round(time.monotonic() - start, 1),
    }
    return fit.model


@contextmanager
def _own_randomness(seed: int) -> Iterator[None]:
    """Random numbers of torch from a seed, without a change to those drawn elsewhere."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _learn_once(module: nn.Module, learning: Learning, key: str, log: FitLog) -> None:
    """Learn, or take what was learned before."""
    file = None if log.folder is None else log.folder / f"{key}.safetensors"
    if file is None or not _recalled(module, file):
        _learn(module, learning, log)
        if file is not None:
            _keep(module, file)
    module.eval().requires_grad_(False)


def _learn(module: nn.Module, learning: Learning, log: FitLog) -> None:
    """All steps, by Adam, at a rate that falls to zero as a cosine does."""
    random = np.random.default_rng(log.seed)
    optimizer = torch.optim.Adam(module.parameters(), lr=learning.rate)
    for step in log.progress(range(learning.n_steps), learning.n_steps):
        for group in optimizer.param_groups:
            group["lr"] = learning.rate * (1 + math.cos(math.pi * step / learning.n_steps)) / 2
        optimizer.zero_grad(set_to_none=True)
        learning.loss(random).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _key(model: FittableModel, scan: Scan, learning: Learning, device: torch.device, seed: int) -> str:
    """A checksum of all that decides what is learned."""
    settings = [type(model).__name__, sorted(vars(model).items()), scan.lattice, scan.grid.affine.tolist()]
    settings += [learning.n_steps, __version__, torch.__version__, torch.get_num_threads(), device.type, seed]
    digest = hashlib.sha256(repr(settings).encode())
    digest.update(np.packbits(scan.mask).tobytes())
    for array in learning.material:
        digest.update(repr(array.shape).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _recalled(module: nn.Module, file: Path) -> bool:
    """Whether what was learned could be taken from a file."""
    with suppress(OSError, SafetensorError, RuntimeError):
        module.load_state_dict(load_file(file))
        return True
    return False


def _keep(module: nn.Module, file: Path) -> None:
    """Write what was learned; where that cannot be, the next run learns again."""
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(save({key: value.contiguous().cpu() for key, value in module.state_dict().items()}))
        partial.replace(file)
    except OSError:
        with suppress(OSError):
            partial.unlink()
