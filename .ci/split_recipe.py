"""Splits a Singularity recipe into a Dockerfile and its scripts: `split_recipe.py singularity.def FOLDER`.

The Dockerfile starts from the same image, copies the same files and runs %post, which must be mounted as
/recipe/post.sh, in one shell as Singularity does. The other scripts are for whoever runs what was built.
"""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

SCRIPTS = ("post", "environment", "runscript", "test")


def sections(text: str) -> dict[str, str]:
    """Header, under an empty name, and sections without their common indent, by name."""
    parts = re.split(r"^%(\w+)[ \t]*$", text, flags=re.MULTILINE)
    found = dict(zip(["", *parts[1::2]], parts[0::2], strict=True))
    return {name: textwrap.dedent(lines).strip() + "\n" for name, lines in found.items()}


def dockerfile(recipe: dict[str, str]) -> str:
    """What builds the same files."""
    header = dict(line.split(": ", 1) for line in recipe[""].splitlines())
    if header["Bootstrap"] != "docker":
        raise ValueError(f"Bootstrap: {header['Bootstrap']} cannot be built this way")
    copies = [f"COPY {line}" for line in recipe["files"].splitlines()]
    return "\n".join([f"FROM {header['From']}", *copies, "RUN /bin/sh /recipe/post.sh", ""])


def main(file: Path, folder: Path) -> None:
    """Write all files of a recipe."""
    recipe = sections(file.read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Dockerfile").write_text(dockerfile(recipe), encoding="utf-8")
    for name in SCRIPTS:
        (folder / f"{name}.sh").write_text(recipe[name], encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
