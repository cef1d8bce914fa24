"""What went wrong in a node, as a small file that the process which collects the results can read."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from bids_sr.errors import BidsSrError, DiskFullError, is_disk_full, is_memory_error

FAILURE_FILE = "failure.json"
INPUT_EXIT_CODE = 2
MEMORY_EXIT_CODE = 137
INTERRUPT_EXIT_CODE = 130


@dataclass(frozen=True)
class Failure:
    """Why a node failed.

    Attributes
    ----------
    message : str
        One line for people.
    exit_code : int
        Exit status that this failure asks for: 1 a bug, 2 bad input, 130 interrupted, 137 out of memory.
    """

    message: str
    exit_code: int

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Describe an exception."""
        if isinstance(error, BidsSrError):
            return cls(_one_line(str(error)), error.exit_code)
        if isinstance(error, KeyboardInterrupt):
            return cls("Interrupted.", INTERRUPT_EXIT_CODE)
        if is_disk_full(error):
            return cls.of(DiskFullError(reason=error))
        if is_memory_error(error):
            return cls(f"Out of memory ({_one_line(str(error)) or type(error).__name__}).", MEMORY_EXIT_CODE)
        return cls(f"{type(error).__name__}: {_one_line(str(error))}", 1)

    def write(self, folder: Path) -> None:
        """Leave the failure in a node's working folder."""
        (folder / FAILURE_FILE).write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Failure | None:
        """Read the failure that a node left in its working folder; None if it left none."""
        try:
            return cls(**json.loads((folder / FAILURE_FILE).read_text(encoding="utf-8")))
        except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, TypeError):
            return None


def _one_line(text: str) -> str:
    """The first line of a message that says something, at most 500 characters."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0][:500] if lines else ""
