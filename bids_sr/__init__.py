"""Super-resolution of diffusion MRI to any voxel size, as a BIDS App."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bids_sr.api import SuperResolved, super_resolve
    from bids_sr.workflows.super_resolution import init_super_resolution_wf

__version__ = "0.1.0"
__all__ = ["SuperResolved", "__version__", "init_super_resolution_wf", "super_resolve"]

# Where the public names are; imported when they are first used, so that the command line starts at once.
_PUBLIC = {
    "SuperResolved": "bids_sr.api",
    "super_resolve": "bids_sr.api",
    "init_super_resolution_wf": "bids_sr.workflows.super_resolution",
}


def __getattr__(name: str) -> Any:
    """A public name, from the module that holds it."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    """The names above too, for completion in notebooks."""
    return sorted({*globals(), *__all__})
