"""Compares two results of one dataset byte by byte, apart from what says when, where and in what they were made.

`same_derivatives.py A B`; with `--only ses-1`, only files below folders of that name. Left out are logs, reports (times
and command line are in them), the tables of the group level, which not every result has, and in JSON files the keys of
`FREE`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

#: Parts of JSON files that may differ, by the end of the file's name.
FREE = {
    "_desc-record.json": ("started", "seconds", "command_line"),
    "dataset_description.json": ("SourceDatasets", "DatasetLinks", "Container"),
}
LEFT_OUT = ("logs", "group_tensor.html", "group_tensor.tsv", "group_tensor.json")


def files(folder: Path, only: str | None) -> dict[str, Path]:
    """Files that are compared, by their path in the dataset."""
    paths = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: path for name, path in paths.items() if is_compared(Path(name), only)}


def is_compared(name: Path, only: str | None) -> bool:
    """Whether a file belongs to what must be the same."""
    if name.parts[0] in LEFT_OUT or (len(name.parts) == 1 and name.suffix == ".html"):
        return False
    return only is None or only in name.parts


def content(path: Path) -> Any:
    """What must be the same of a file."""
    free = next((keys for end, keys in FREE.items() if path.name.endswith(end)), None)
    return path.read_bytes() if free is None else without(json.loads(path.read_text(encoding="utf-8")), free)


def without(value: Any, keys: tuple[str, ...]) -> Any:
    """A JSON value without some keys, however deep they lie."""
    if isinstance(value, dict):
        return {key: without(part, keys) for key, part in value.items() if key not in keys}
    return [without(part, keys) for part in value] if isinstance(value, list) else value


def differences(first: Path, second: Path, only: str | None = None) -> list[str]:
    """What tells two results apart, a line each."""
    ours, theirs = files(first, only), files(second, only)
    lonely = [f"only in {first if name in ours else second}: {name}" for name in sorted(set(ours) ^ set(theirs))]
    common = sorted(set(ours) & set(theirs))
    return [*lonely, *(f"differs: {name}" for name in common if content(ours[name]) != content(theirs[name]))]


def main() -> int:
    """Say what differs; 0 if nothing does."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--only", metavar="FOLDER", help="compare files below folders of this name alone")
    options = parser.parse_args()
    found = differences(options.first, options.second, options.only)
    n_images = sum(name.endswith(".nii.gz") for name in files(options.first, options.only))
    if not n_images:
        found.append(f"no image in {options.first}")
    for line in found:
        print(line, file=sys.stderr)
    if not found:
        print(f"the same: {options.first} and {options.second} ({n_images} images)")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
