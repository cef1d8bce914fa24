"""What all interfaces share: a timed run, a fixed seed, and a note of what went wrong."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, SimpleInterface, TraitedSpec, traits

from bids_sr.geometry import Grid
from bids_sr.interfaces.failure import Failure
from bids_sr.resources import reserve_blas_buffers


class CoreInputSpec(BaseInterfaceInputSpec):
    """Inputs of every interface."""

    random_seed = traits.Int(0, usedefault=True, desc="seed of the random number generators")


class CoreOutputSpec(TraitedSpec):
    """Outputs of every interface."""

    seconds = traits.Float(desc="wall-clock time of the stage")


class CoreInterface(SimpleInterface):
    """An interface that calls one function of the core.

    A subclass gives `_execute`, which returns its outputs by name. Whatever it raises is also written into the node's
    folder, because nipype hands on only the text of a traceback, and only in some of its plugins.
    """

    input_spec = CoreInputSpec
    output_spec = CoreOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        """Run the stage in the node's folder, as nipype asks."""
        folder = Path(runtime.cwd)
        start = time.monotonic()
        seed_generators(self.inputs.random_seed)
        try:
            reserve_blas_buffers()
            self._results.update(self._execute(folder))
        except BaseException as error:
            Failure.of(error).write(folder)
            raise
        self._results["seconds"] = time.monotonic() - start
        return runtime

    def _execute(self, folder: Path) -> Mapping[str, Any]:
        """Read the inputs, call the core, write into `folder`; return the outputs by name."""
        raise NotImplementedError


def seed_generators(seed: int) -> None:
    """Start the global random number generators of Python and numpy, which DIPY uses, from `seed`."""
    random.seed(seed)
    np.random.seed(seed % 2**32)


def as_grid(shape: list[int], affine: list[list[float]]) -> Grid:
    """The grid that two nipype inputs describe."""
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), np.array(affine, dtype=np.float64))
