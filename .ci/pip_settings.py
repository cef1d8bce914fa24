"""Reads `pip config list` and prints a pip.conf for a build elsewhere, with the folders that must be mounted there."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from urllib.parse import unquote, urlparse

KEPT = ("index-url", "extra-index-url", "find-links", "trusted-host")


def settings(lines: list[str]) -> dict[str, list[str]]:
    """Values of the settings that say where packages are, by name."""
    found: dict[str, list[str]] = {}
    for line in lines:
        key, _, value = line.partition("=")
        name = key.rpartition(".")[2]
        if name in KEPT:
            found.setdefault(name, []).extend(ast.literal_eval(value).split())
    return {name: list(dict.fromkeys(values)) for name, values in found.items()}


def folders(values: list[str]) -> list[Path]:
    """Folders of this computer among places of packages, each once, without those that lie in another."""
    paths = [Path(unquote(urlparse(value).path)) for value in values if value.startswith(("/", "file:"))]
    # An index of links may point beside itself, so what holds the index is taken.
    tops = {
        path.parent if value.startswith("file:") else path for path, value in zip(paths, local(values), strict=True)
    }
    return sorted(path for path in tops if path.is_dir() and not set(path.parents) & tops and path != Path("/"))


def local(values: list[str]) -> list[str]:
    """Those that are on this computer."""
    return [value for value in values if value.startswith(("/", "file:"))]


def main(bundle: str) -> None:
    """Print the settings, then one comment per folder."""
    found = settings(sys.stdin.read().splitlines())
    # An index that does not answer from here costs seconds for each package, not minutes.
    print("[global]\nretries = 1")
    if Path(bundle).exists():
        print(f"cert = {bundle}")
    for name, values in found.items():
        print(f"{name} =", *(f"\n    {value}" for value in values), sep="")
    for folder in folders([value for values in found.values() for value in values]):
        print(f"# folder {folder}")


if __name__ == "__main__":
    main(sys.argv[1])
