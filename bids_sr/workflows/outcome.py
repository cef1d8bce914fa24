"""What became of each series, and the exit status that follows."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nipype.pipeline.engine import Node

from bids_sr.errors import BidsSrError, DiskFullError
from bids_sr.interfaces.failure import INPUT_EXIT_CODE, MEMORY_EXIT_CODE, Failure
from bids_sr.workflows.log import series_of

#: With less room than this, a traceback or a record cannot be written.
LEAST_BYTES = 65536


@dataclass(frozen=True)
class Outcome:
    """What became of a series.

    Attributes
    ----------
    label : str
        Name of the series for people.
    status : str
        ``done``, ``skipped`` (nothing to do), ``failed`` or ``not run``.
    message : str
        Why, in one line.
    exit_code : int
        0, or what the failure asks for.
    node : str
        The stage that failed.
    crash_file : Path or None
        Where the details are; none for what the user can mend.
    """

    label: str
    status: str
    message: str = ""
    exit_code: int = 0
    node: str = ""
    crash_file: Path | None = None


def failed_before(label: str, error: BidsSrError) -> Outcome:
    """Describe a series that could not be started."""
    return Outcome(label, "failed", str(error), error.exit_code)


def failed_node(label: str, node: Node, crash_folder: Path) -> Outcome:
    """Describe a series of which a node failed."""
    crash_file = _crash_file(node, crash_folder)
    folder = Path(node.output_dir())
    failure = Failure.read(folder) or _full_disk(folder, crash_folder) or Failure(_last_line(crash_file), 1)
    if failure.exit_code == INPUT_EXIT_CODE and crash_file is not None:
        # The message says what to mend; a traceback would only hide it.
        crash_file.unlink(missing_ok=True)
        crash_file = None
    return Outcome(label, "failed", failure.message, failure.exit_code, node.name, crash_file)


def first_failures(failed: Iterable[Node]) -> dict[str, Node]:
    """Pick the first failed node of each series, by the name of its graph."""
    first: dict[str, Node] = {}
    for node in failed:
        first.setdefault(series_of(node), node)
    return first


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """Exit status of a run; out of memory goes before all else, so that schedulers retry where that can help."""
    codes = {outcome.exit_code for outcome in outcomes}
    if MEMORY_EXIT_CODE in codes:
        return MEMORY_EXIT_CODE
    bad = codes - {0}
    return 0 if not bad else bad.pop() if len(bad) == 1 else 1


def summary(outcomes: Sequence[Outcome]) -> str:
    """Table of what became of each series."""
    width = max((len(outcome.label) for outcome in outcomes), default=0)
    lines = []
    for outcome in outcomes:
        where = f" [{outcome.node}]" if outcome.node else ""
        crash = f" (details: {outcome.crash_file})" if outcome.crash_file else ""
        text = f"  {outcome.label:<{width}}  {outcome.status:<7}{where} {outcome.message}{crash}"
        lines.append(text.rstrip())
    return "\n".join(["Summary:", *lines])


def _crash_file(node: Node, folder: Path) -> Path | None:
    """Find the crash file that nipype wrote for a node; its first line names the node."""
    for file in sorted(folder.glob(f"crash-*-{node._id}-*.txt"), reverse=True):
        with file.open(encoding="utf-8", errors="replace") as stream:
            if stream.readline().strip() == f"Node: {node.fullname}":
                return file
    return None


def _full_disk(*folders: Path) -> Failure | None:
    """Explain why a node left no word: there was no room for it."""
    for folder in folders:
        there = next((path for path in (folder, *folder.parents) if path.is_dir()), Path())
        if shutil.disk_usage(there).free < LEAST_BYTES:
            return Failure.of(DiskFullError(reason=f"nothing is left in {there}"))
    return None


def _last_line(crash_file: Path | None) -> str:
    """Read the exception, which a traceback ends with."""
    if crash_file is None:
        return "The stage failed without a message."
    lines = [line.strip() for line in crash_file.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:500]
