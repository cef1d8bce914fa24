"""What the graphs of a restoration need to know besides the files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bids_sr.models.registry import CUBIC, ModelCard
from bids_sr.workflows.memory import preprocess_gb, registration_gb
from bids_sr.workflows.plan import SeriesPlan

#: There is no T1w; one that has to be registered; or one that lies in the world of the series.
T1w = Literal["none", "native", "aligned"]


@dataclass(frozen=True)
class Restoration:
    """How a series is prepared and restored.

    Attributes
    ----------
    model : str
        Name in the registry, or path of a model card.
    card : ModelCard
        Of that model.
    device : str
        Resolved: ``cpu`` or ``cuda:N``.
    grid : mapping
        The target grid: ``target_shape`` and ``target_affine`` where it is known, else ``scale`` or ``voxel_size``.
    t1w : {"none", "native", "aligned"}
        Which T1w there is.
    b0_threshold : float
        Largest b-value in s/mm2 that counts as b0.
    uncertainty, baseline : bool
        Whether standard deviations, and the cubic interpolation, are made too.
    sloppy : bool
        Fast and inaccurate registration.
    random_seed, threads : int
        Seed, and processors of one stage.
    label : str
        Name of the series in the progress shown.
    preprocess_gb, registration_gb, restore_gb, baseline_gb : float
        Memory of the stages.
    """

    model: str
    card: ModelCard
    device: str
    grid: Mapping[str, Any]
    t1w: T1w = "none"
    b0_threshold: float = 50.0
    uncertainty: bool = False
    baseline: bool = True
    sloppy: bool = False
    random_seed: int = 0
    threads: int = 1
    label: str = ""
    preprocess_gb: float = 1.0
    registration_gb: float = 1.0
    restore_gb: float = 1.0
    baseline_gb: float = 1.0

    @classmethod
    def of(cls, plan: SeriesPlan) -> Restoration:
        """What the plan of a series says of it."""
        config = plan.config
        given: T1w = "none" if plan.series.t1w is None else "aligned"
        return cls(
            model=config.model,
            card=plan.card,
            device=plan.device,
            grid=plan.target_inputs,
            t1w="native" if plan.registers_t1w else given,
            b0_threshold=config.b0_threshold,
            uncertainty=config.uncertainty,
            sloppy=config.sloppy,
            random_seed=config.random_seed,
            threads=plan.threads,
            label=plan.series.label,
            preprocess_gb=preprocess_gb(plan),
            registration_gb=registration_gb(plan.t1w_shape),
            restore_gb=plan.restore_gb(config.model),
            baseline_gb=plan.restore_gb(CUBIC.name),
        )

    @property
    def is_guided(self) -> bool:
        """Whether there is a T1w for a model that uses it."""
        return self.card.uses_t1w and self.t1w != "none"

    @property
    def knows_grid(self) -> bool:
        """Whether the target grid is known before the workflow runs."""
        return "target_shape" in self.grid
