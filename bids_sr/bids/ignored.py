"""Which files of a dataset its ``.bidsignore`` leaves out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath

#: Wildcards of gitignore, longest first, and what each stands for.
_WILDCARDS = {r"\*\*/": "(?:.*/)?", r"/\*\*": "/.*", r"\*\*": ".*", r"\*": "[^/]*", r"\?": "[^/]"}


@dataclass(frozen=True)
class IgnoredFiles:
    """Rules of a ``.bidsignore``, which are those of gitignore; the last that fits a path decides.

    Attributes
    ----------
    rules : tuple of (bool, pattern)
        Whether what fits is left out, and what fits.
    """

    rules: tuple[tuple[bool, re.Pattern[str]], ...] = ()

    @classmethod
    def of(cls, root: Path) -> IgnoredFiles:
        """Those of a dataset; none where there is no ``.bidsignore`` that can be read."""
        try:
            lines = (root / ".bidsignore").read_text(encoding="utf-8-sig").splitlines()
        except (OSError, ValueError):
            return cls()
        return cls(tuple(_rules(lines)))

    def __contains__(self, path: PurePath) -> bool:
        """Whether a path, relative to the dataset, is left out."""
        fitting = [leaves_out for leaves_out, pattern in self.rules if pattern.fullmatch(path.as_posix())]
        return bool(fitting) and fitting[-1]


def _rules(lines: Iterable[str]) -> Iterable[tuple[bool, re.Pattern[str]]]:
    """The rules of the lines that are neither empty nor comments."""
    for line in lines:
        text = line.strip()
        if text and not text.startswith("#"):
            yield not text.startswith("!"), _pattern(text.removeprefix("!"))


def _pattern(text: str) -> re.Pattern[str]:
    """What a line fits: from the root where it has a slash before its end, anywhere else; folders with all in them."""
    name = text.strip("/")
    start = "" if "/" in text.rstrip("/") else "(?:.*/)?"
    end = "/.*" if text.endswith("/") else "(?:/.*)?"
    wildcard = re.compile("|".join(re.escape(key) for key in _WILDCARDS))
    return re.compile(start + wildcard.sub(lambda found: _WILDCARDS[found[0]], re.escape(name)) + end)
