"""Breaks the program in small ways, one at a time, and says which of them no test notices.

`mutation.py [--sample N] [--seconds S] [--seed K] [MODULE ...]` draws N places of the modules at random (all of them
with `--sample 0`), puts another operator, constant or condition there, in a copy of the project, and runs the tests of
that module. Ends with the share that was noticed, and 1 if that is below `LEAST`.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: The tests that should notice, quickest first.
TESTS = {
    "bids_sr/geometry.py": ["tests/test_geometry.py", "tests/dwi/test_limits.py"],
    "bids_sr/dwi/gradients.py": ["tests/dwi/test_gradients.py", "tests/dwi/test_limits.py"],
    "bids_sr/bids/inputs.py": ["tests/bids/test_inputs.py", "tests/bids/test_layouts.py"],
    "bids_sr/bids/ignored.py": ["tests/bids/test_ignored.py"],
    "bids_sr/workflows/training_range.py": ["tests/workflows/test_training_range.py"],
}
LEAST = 0.8
SECONDS_PER_MUTANT = 180
#: Imported once, before the copies of this process that run the tests.
HEAVY = ("numpy", "scipy.ndimage", "nibabel", "hypothesis", "bids", "bids_validator", "torch", "dipy.core.gradients")
SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.Add: ast.Sub, ast.Sub: ast.Add,
    ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.MatMult: ast.Mult, ast.And: ast.Or,
    ast.Or: ast.And, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.USub: ast.UAdd,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A module with one change."""

    module: str
    line: int
    what: str
    source: str


def mutants(module: str) -> Iterator[Mutant]:
    """Every change of a module that is tried."""
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    left = untouched(tree)
    for number, node in enumerate(ast.walk(tree)):
        for what, changed in changes(node) if number not in left else ():
            before = {name: getattr(node, name) for name in changed}
            vars(node).update(changed)
            placed = node.target if isinstance(node, ast.comprehension) else node
            yield Mutant(module, getattr(placed, "lineno", 0), what, ast.unparse(tree))
            vars(node).update(before)


def untouched(tree: ast.Module) -> set[int]:
    """Numbers of nodes that no program run looks at: annotations, docstrings, imports for types, decorators."""
    left: set[int] = set()
    for node in ast.walk(tree):
        parts: list[ast.AST | None] = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        parts += getattr(node, "decorator_list", [])
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            parts.append(node)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            parts.append(node)
        left |= {id(inner) for part in parts if part is not None for inner in ast.walk(part)}
    return {number for number, node in enumerate(ast.walk(tree)) if id(node) in left}


def changes(node: ast.AST) -> Iterator[tuple[str, dict[str, object]]]:
    """What can be changed at a node, in words and as new fields."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        new = SWAPS[type(node.ops[0])]
        yield f"{type(node.ops[0]).__name__} -> {new.__name__}", {"ops": [new(), *node.ops[1:]]}
    elif isinstance(node, ast.BinOp | ast.BoolOp | ast.UnaryOp) and type(node.op) in SWAPS:
        new = SWAPS[type(node.op)]
        yield f"{type(node.op).__name__} -> {new.__name__}", {"op": new()}
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        yield "condition negated", {"test": ast.UnaryOp(ast.Not(), node.test)}
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield f"{node.value} -> {not node.value}", {"value": not node.value}
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield f"{node.value} -> {node.value + 1}", {"value": node.value + 1}
    elif isinstance(node, ast.Return) and node.value is not None and not isinstance(node.value, ast.Constant):
        yield "returns None", {"value": ast.Constant(None)}
    elif isinstance(node, ast.comprehension) and node.ifs:
        yield "filter dropped", {"ifs": []}


def sandbox(folder: Path) -> None:
    """Copy what the tests need; the weights are linked."""
    weights = "weights"
    shutil.copytree(ROOT / "bids_sr", folder / "bids_sr", ignore=shutil.ignore_patterns("__pycache__", weights))
    (folder / "bids_sr" / "data" / weights).symlink_to(ROOT / "bids_sr" / "data" / weights)
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "pyproject.toml", folder / "pyproject.toml")


def is_noticed(mutant: Mutant, folder: Path) -> bool:
    """Run the tests on a mutant, in a copy of this process."""
    file = folder / mutant.module
    original = file.read_bytes()
    file.write_text(mutant.source, encoding="utf-8")
    try:
        return passes(TESTS[mutant.module], folder) is False
    finally:
        file.write_bytes(original)


def passes(tests: list[str], folder: Path) -> bool:
    """Whether tests pass; they do not if they take too long."""
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS_PER_MUTANT)
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        sys.dont_write_bytecode = True
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        import pytest

        os._exit(int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests])))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def main() -> int:
    """Tell what was noticed, and list what was not."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("modules", nargs="*", default=list(TESTS), metavar="MODULE")
    parser.add_argument("--sample", type=int, default=100, metavar="N")
    parser.add_argument("--seconds", type=float, default=600, metavar="S")
    parser.add_argument("--seed", type=int, default=0, metavar="K")
    options = parser.parse_args()
    found = [mutant for module in options.modules for mutant in mutants(module)]
    random.Random(options.seed).shuffle(found)  # noqa: S311
    chosen = found[: options.sample] if options.sample else found
    for name in HEAVY:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    deadline, tried, missed = time.monotonic() + options.seconds, 0, []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sandbox(folder)
        if not all(passes(TESTS[module], folder) for module in options.modules):
            print("the tests fail without any change", file=sys.stderr)
            return 2
        for mutant in chosen:
            if time.monotonic() > deadline:
                break
            tried += 1
            if not is_noticed(mutant, folder):
                missed.append(mutant)
                line = (ROOT / mutant.module).read_text(encoding="utf-8").splitlines()[mutant.line - 1].strip()
                print(f"not noticed: {mutant.module}:{mutant.line}: {mutant.what}: {line}", flush=True)
    share = 1 - len(missed) / max(tried, 1)
    print(f"{tried - len(missed)} of {tried} changes noticed ({share:.0%}), of {len(found)} that there are")
    return int(share < LEAST)


if __name__ == "__main__":
    sys.exit(main())
