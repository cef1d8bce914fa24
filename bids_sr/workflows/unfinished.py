"""Removes what killed runs left half written."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path

from bids_sr.bids.inputs import parse_entities
from bids_sr.bids.outputs import allowed_entities

#: Where no lock keeps other runs out, younger files (s) may be those that another run is writing.
GRACE = 3600.0
#: Entities that outputs have on top of those of their series.
_ADDED = ("space", "res", "model", "param", "desc")
#: Hidden names that files have while they are written, see `bids_sr.bids.outputs.write_atomically`.
_TEMPORARY = re.compile(r"\.(?P<stem>.*)-[0-9a-f]{12}(\..*)?")


def remove_unfinished(folder: Path, entities: Mapping[str, str], older_than: float = 0.0) -> None:
    """Remove what a killed run left half written for a series, below the folder of its subject.

    Parameters
    ----------
    folder : Path
    entities : mapping
        Of the series, with or without `desc`.
    older_than : float
        Age in seconds that a file must have.
    """
    own = {key: value for key, value in entities.items() if key != "desc"}
    for file in folder.rglob(".*"):
        found = _TEMPORARY.fullmatch(file.name)
        if found and _belongs(found["stem"], own):
            _remove(file, older_than)


def remove_unfinished_texts(folder: Path, older_than: float = 0.0) -> None:
    """Remove reports and texts of the whole dataset that a killed run left half written; see `remove_unfinished`."""
    for file in folder.glob(".*"):
        if _TEMPORARY.fullmatch(file.name) and not file.name.startswith(".group_"):
            _remove(file, older_than)


def _belongs(stem: str, entities: Mapping[str, str]) -> bool:
    """Whether a name has the entities of a series, as far as its suffix allows them, and none but those of outputs."""
    own = allowed_entities(entities, stem.rpartition("_")[2])
    return {key: value for key, value in parse_entities(Path(stem)).items() if key in own or key not in _ADDED} == own


def _remove(file: Path, older_than: float) -> None:
    """Remove a file of some age; another run may be as fast."""
    try:
        if time.time() - file.stat().st_mtime >= older_than:
            file.unlink()
    except FileNotFoundError:
        return
