"""Whose scan it is, as far as the names tell that scans have in packs and on the cards of models.

Such a name is that of the series, which begins with the subject, after the folder of the dataset and a slash if scans
of several datasets were packed together: ``site-a/sub-01_dir-AP``.
"""

from collections.abc import Iterable, Mapping
from typing import Any


def subject_of(scan: str) -> str:
    """The subject of a scan, by the scan's name: ``sub-01``."""
    return scan.rpartition("/")[2].partition("_")[0]


def may_share_subject(scan: str, other: str) -> bool:
    """Whether two scans may be of one person: of subjects of one name, and not known to be of different datasets.

    A name that tells no dataset may be of any.
    """
    datasets = {name.rpartition("/")[0] for name in (scan, other)}
    return subject_of(scan) == subject_of(other) and ("" in datasets or len(datasets) == 1)


def shared_subjects(scans: Iterable[str], others: Iterable[str]) -> list[str]:
    """Subjects, sorted, of whom there may be scans on both sides, by the names of the scans."""
    known = list(others)
    return sorted({subject_of(scan) for scan in scans if any(may_share_subject(scan, other) for other in known)})


def namesakes(scans: Iterable[str], others: Iterable[str]) -> list[str]:
    """Subjects, sorted, of one name on both sides in datasets of different names: raw data and derivatives, perhaps."""
    known = list(others)
    apart = (scan for scan in scans if not shared_subjects([scan], known))
    return sorted({subject_of(scan) for scan in apart} & {subject_of(other) for other in known})


def trained_on(training: Mapping[str, Any]) -> list[str]:
    """Names of the scans that a model was trained on, before it was started from another model too.

    `training` is what its card tells.
    """
    return [*training.get("scans", []), *(trained_on(training["started_from"]) if "started_from" in training else [])]
