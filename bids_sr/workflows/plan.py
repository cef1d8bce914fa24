"""What is known of a series before anything runs: grids, model, device, truth, fingerprint."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bids_sr import __version__
from bids_sr.bids.citation import software_versions
from bids_sr.bids.inputs import DwiSeries
from bids_sr.bids.outputs import OutputLayout, bids_uri, dataset_links, resolution_label
from bids_sr.bids.truth import Truth, find_truth
from bids_sr.config import Config
from bids_sr.degradation import low_resolution_grid
from bids_sr.dwi.gradients import read_gradients
from bids_sr.errors import OutOfMemoryError
from bids_sr.evaluation.self_check import LEAST_VOXELS, MOST_WEIGHTED, N_B0, checked_scale
from bids_sr.geometry import Grid, target_grid
from bids_sr.inference.memory import estimate
from bids_sr.inference.upsampler import check_scale
from bids_sr.models.registry import CUBIC as CUBIC_CARD
from bids_sr.models.registry import ModelCard, check_tells_uncertainty, load_model
from bids_sr.records import RELEVANT_OPTIONS, SCHEMA, fingerprint
from bids_sr.workflows.preflight import preflight
from bids_sr.workflows.training_range import outside_training

CUBIC = CUBIC_CARD.name


@dataclass(frozen=True)
class SeriesPlan:
    """A series and all that decides what happens to it.

    Attributes
    ----------
    series : DwiSeries
    config : Config
    card : ModelCard
    device : str
        Resolved: ``cpu`` or ``cuda:N``.
    source, target : Grid
        As acquired, and as asked for.
    n_volumes : int
    t1w_shape : tuple of int, (3,)
        Of the T1w, zeros without one.
    truth : Truth or None
        Known on the target grid, in the demo's dataset.
    fingerprint : str
        SHA-256 over inputs, options, weights and version.
    notes : tuple of str
        What a reader should know of the input files, in sentences.
    shared : mapping
        SHA-256 over all that decides the files on the acquired grid, which results at all resolutions share: ``series``
        for mask and maps, and ``t1w`` for the T1w that is registered, if one is.
    """

    series: DwiSeries
    config: Config
    card: ModelCard
    device: str
    source: Grid
    target: Grid
    n_volumes: int
    t1w_shape: tuple[int, int, int]
    truth: Truth | None
    fingerprint: str
    notes: tuple[str, ...] = ()
    shared: Mapping[str, str] = field(default_factory=dict)

    @property
    def layout(self) -> OutputLayout:
        """Where the outputs are."""
        return OutputLayout(self.config.output_dir)

    @property
    def resolution(self) -> str:
        """The `res` entity of what lies on the target grid."""
        return resolution_label(self.target.voxel_sizes)

    @property
    def stem(self) -> str:
        """Beginning of the names of pictures and record."""
        return f"{self.series.stem}_res-{self.resolution}"

    @property
    def workflow_name(self) -> str:
        """Name of the series' graph and work folder.

        Work of other inputs, options, versions or outputs has another name, so runs that share a work folder meet in
        their output alone.
        """
        key = hashlib.sha256(f"{self.fingerprint} {self.config.output_dir}".encode(errors="surrogateescape"))
        return re.sub(r"\W", "_", f"{self.stem}_{key.hexdigest()[:12]}")

    @property
    def record_file(self) -> Path:
        """Where the record is."""
        return self.layout.figures(self.series) / f"{self.stem}_desc-record.json"

    @property
    def registers_t1w(self) -> bool:
        """Whether there is a T1w that still has to be brought into the world of the series."""
        return self.series.t1w is not None and not self.series.t1w_is_aligned

    @property
    def is_guided(self) -> bool:
        """Whether there is a T1w for a model that uses it."""
        return self.card.uses_t1w and self.series.t1w is not None

    @property
    def tests_t1w(self) -> bool:
        """Whether a part of the series is restored without the T1w too, to show what the T1w changed."""
        return self.is_guided and self.config.self_check

    @property
    def threads(self) -> int:
        """Processors that one stage may use."""
        return max(1, min(self.config.omp_nthreads, self.config.nprocs))

    @property
    def target_inputs(self) -> dict[str, Any]:
        """The target grid as inputs of an interface."""
        return {"target_shape": list(self.target.shape), "target_affine": self.target.affine.tolist()}

    def restore_gb(self, model: str) -> float:
        """Memory that restoring takes, in GB."""
        card = CUBIC_CARD if model == CUBIC else self.card
        # The T1w as read; what is made of it is smaller.
        t1w_gb = float(np.prod(self.t1w_shape)) * 4 / 1024**3 if card.uses_t1w else 0.0
        return float(estimate(self.source.shape, self.n_volumes, self.target.shape, card).peak_gb) + t1w_gb

    @property
    def checks_itself(self) -> bool:
        """Whether the restoration is tried on the scan itself."""
        return self.config.self_check and not self.self_check_hindrance

    @property
    def self_check_gb(self) -> float:
        """Memory that the self-check takes, in GB: a restoration of the degraded scan, and what it is compared with."""
        low = low_resolution_grid(self.source, np.array(checked_scale(self.source, self.target)))
        n_volumes = min(self.n_volumes, N_B0 + MOST_WEIGHTED)
        t1w_gb = float(np.prod(self.t1w_shape)) * 4 / 1024**3 if self.card.uses_t1w else 0.0
        # The volumes as acquired, interpolated, restored and while they are fitted; maps, tissues and SSIM (float64).
        compared_gb = float(np.prod(self.source.shape)) * 4 * (4 * n_volumes + 40) / 1024**3
        return float(estimate(low.shape, n_volumes, self.source.shape, self.card).peak_gb) + t1w_gb + compared_gb

    @property
    def self_check_hindrance(self) -> str:
        """Why the self-check cannot be done, in a sentence; empty where it can."""
        if self.card.name == CUBIC:
            return "The model is cubic interpolation itself, with which the check compares."
        if max(checked_scale(self.source, self.target)) == 1:
            return (
                "No axis can be degraded: the voxels asked for are those acquired, or the field of view would keep "
                f"fewer than {LEAST_VOXELS} voxels."
            )
        if self.self_check_gb > self.config.memory_gb:
            needed, available = shown_gb(self.self_check_gb, self.config.memory_gb)
            return f"It needs {needed:.1f} GB of memory, and there are {available:.1f} (--mem)."
        return ""

    def uri(self, path: Path) -> str:
        """BIDS URI of an input or output file."""
        return bids_uri(dataset_links(self.config), path)


def shown_gb(needed: float, available: float) -> tuple[float, float]:
    """Memory that is needed and the less that there is, in GB to one decimal: they differ, and the first is enough."""
    return math.ceil(needed * 10) / 10, math.floor(available * 10 + 1e-9) / 10


def card_of_run(config: Config) -> ModelCard:
    """The card of the model that a run asks for.

    Raises
    ------
    UnknownModelError, ModelCardError, UntrainedModelError, WeightsError
        See `load_model`.
    CertainModelError
        If the uncertainty is asked for, and the model does not tell it.
    """
    # Weights that are gone or changed are told before hours of other work, so they are read here once.
    _, card = load_model(config.model, torch.device("cpu"))
    if config.uncertainty:
        check_tells_uncertainty(card)
    return card


def plan_series(series: DwiSeries, config: Config, card: ModelCard, device: str) -> SeriesPlan:
    """Read the headers of a series and decide what will happen to it.

    Raises
    ------
    InputError
        If the series cannot be used as asked.
    OutOfMemoryError
        If restoring it needs more memory than there is.
    """
    plan = sketch_series(series, config, card, device)
    check_memory(plan)
    shared = _shared(plan)
    options = {name: getattr(config, name) for name in RELEVANT_OPTIONS}
    options |= {"device": device, "model": card.name, "shared": shared}
    # The same weights do something else where a card gives them other inputs.
    options |= {"architecture": card.architecture, "arguments": card.arguments, "signal": asdict(card.signal)}
    key = fingerprint([series.t1w], options, card.weights_sha256)
    return replace(plan, truth=find_truth(series, plan.target), fingerprint=key, shared=shared)


def _shared(plan: SeriesPlan) -> dict[str, str]:
    """Checksums of what decides the files on the acquired grid; see `SeriesPlan`."""
    series, config = plan.series, plan.config
    options = {"b0_threshold": config.b0_threshold, "random_seed": config.random_seed, "sidecar": dict(series.sidecar)}
    shared = {"series": fingerprint([series.dwi, series.bval, series.bvec, series.mask], options, "")}
    if plan.registers_t1w:
        shared["t1w"] = fingerprint([series.t1w], shared | {"sloppy": config.sloppy}, "")
    return shared


def sketch_series(series: DwiSeries, config: Config, card: ModelCard, device: str) -> SeriesPlan:
    """The plan of a series without what takes time: the checksum of its inputs, and the truth.

    Raises
    ------
    InputError
        If the series cannot be used as asked.
    """
    found = preflight(series, config.b0_threshold)
    target = target_grid(found.source, config.output_resolution, config.scale, series.dwi.name)
    check_scale(found.source, target, card, series.dwi.name)
    return SeriesPlan(
        series, config, card, device, found.source, target, found.n_volumes, found.t1w_shape, None, "", found.notes
    )


def check_memory(plan: SeriesPlan) -> None:
    """Refuse a series that cannot be restored in the memory there is, before hours are spent on it.

    Raises
    ------
    OutOfMemoryError
    """
    needed, available = plan.restore_gb(plan.card.name), plan.config.memory_gb
    if needed > available:
        needed, available = shown_gb(needed, available)
        raise OutOfMemoryError(what=plan.series.label, needed_gb=needed, available_gb=available)


def opening_record(plan: SeriesPlan, started: str) -> dict[str, Any]:
    """The record of a series before it runs.

    Parameters
    ----------
    plan : SeriesPlan
    started : str
        ISO 8601 time.
    """
    series, config = plan.series, plan.config
    return {
        "schema": SCHEMA,
        "status": "failed",
        "label": series.label,
        "entities": dict(series.entities),
        "stem": series.stem,
        "started": started,
        "version": __version__,
        "software": software_versions(),
        "command_line": config.command_line,
        "options": {name: _plain_option(getattr(config, name)) for name in RELEVANT_OPTIONS},
        "fingerprint": plan.fingerprint,
        "shared": dict(plan.shared),
        "inputs": _input_uris(plan),
        "grids": _grids(plan),
        "model": _model(plan),
        "warnings": opening_warnings(plan),
    }


def _plain_option(value: Any) -> Any:
    """An option as JSON holds it."""
    return list(value) if isinstance(value, tuple) else value


def _input_uris(plan: SeriesPlan) -> dict[str, str | None]:
    """BIDS URIs of the files read, and why the T1w is the one it is."""
    files = {name: getattr(plan.series, name) for name in ("dwi", "bval", "bvec", "t1w", "mask")}
    uris = {name: None if file is None else plan.uri(file) for name, file in files.items()}
    return {**uris, "t1w_note": plan.series.t1w_note}


def _grids(plan: SeriesPlan) -> dict[str, Any]:
    """Both grids in numbers."""
    scale = plan.source.voxel_sizes / plan.target.voxel_sizes
    return {
        "acquired": {"shape": list(plan.source.shape), "voxel_sizes": _rounded(plan.source.voxel_sizes)},
        "target": {
            "shape": list(plan.target.shape),
            "voxel_sizes": _rounded(plan.target.voxel_sizes),
            "scale": _rounded(scale),
        },
    }


def _rounded(values: Any) -> list[float]:
    """Numbers for people: four decimals."""
    return [round(float(value), 4) for value in values]


def _model(plan: SeriesPlan) -> Mapping[str, Any]:
    """The model in the record's words."""
    card = plan.card
    names = ("name", "description", "architecture", "arguments", "normalization", "weights_sha256", "parameters")
    return {
        **{name: getattr(card, name) for name in (*names, "uses_t1w")},
        "scale_range": list(card.scale_range),
        "device": plan.device,
    }


def opening_warnings(plan: SeriesPlan) -> list[str]:
    """What a reader should know before anything ran: of the input files, the model, and of the T1w above all."""
    return [*plan.notes, *_model_warnings(plan), *_t1w_warnings(plan), *_option_warnings(plan)]


def _model_warnings(plan: SeriesPlan) -> list[str]:
    """That the model was trained on scans of another kind."""
    bvals = read_gradients(plan.series.bval, plan.series.bvec).bvals
    weighted, scale = bvals[bvals > plan.config.b0_threshold], plan.source.voxel_sizes / plan.target.voxel_sizes
    return outside_training(plan.card.name, plan.card.training, weighted, plan.target.voxel_sizes, scale)


def _option_warnings(plan: SeriesPlan) -> list[str]:
    """That an option makes the result worse."""
    if plan.config.sloppy and plan.registers_t1w:
        return ["Run with --sloppy: the registration of the T1w is fast and inaccurate, for tests only."]
    return []


def _t1w_warnings(plan: SeriesPlan) -> list[str]:
    """That there is no T1w, or one of another session."""
    series, model = plan.series, plan.card
    lost = "Tissue classes come from the diffusion tensor alone"
    lost += f", and the model {model.name} is given zeros in place of the T1w." if model.uses_t1w else "."
    if not plan.config.use_t1w:
        return [f"Run without a T1w image, as asked (--no-t1w). {lost}"]
    if series.t1w is None:
        return [f"No T1w image was found for this subject: T1w-free mode. {lost}"]
    if series.t1w_note.startswith("session "):
        return [f"The T1w image is not of the same session ({series.t1w_note}). Check that anatomy has not changed."]
    return []
