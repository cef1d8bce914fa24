"""Runs of the program in processes of their own, and what is left of them."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: A program that does not end by itself within this time hangs, even where other programs take most of the computer.
LIMIT = 300


def _comparison():
    """The script that compares two results byte by byte."""
    spec = importlib.util.spec_from_file_location("same_derivatives", ROOT / ".ci" / "same_derivatives.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


differences = _comparison().differences


@dataclass(frozen=True)
class Finished:
    """How a run ended."""

    code: int
    text: str
    seconds: float


@dataclass(frozen=True)
class Place:
    """Where a run reads and writes."""

    dataset: Path
    out: Path
    work: Path

    def words(self, *options: str, model: str = "cubic", nprocs: int = 1, session: str = "1") -> list[str]:
        words = [str(self.dataset), str(self.out), "participant", "-w", str(self.work), "--session-label", session]
        return [*words, "--scale", "2", "--model", model, "--device", "cpu", "--nprocs", str(nprocs), *options]


def start(words: Sequence[str], before: str = "", limits: Callable[[], None] | None = None) -> subprocess.Popen:
    """Start the program in a session of its own, after some Python that changes it."""
    ended = "from bids_sr.cli.app import console\n    sys.exit(console())"
    code = f"import sys\nif __name__ == '__main__':\n{before}\n    {ended}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    program = ["-m", "bids_sr"] if not before else ["-c", code]
    return subprocess.Popen(
        [sys.executable, *program, *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=environment,
        start_new_session=True,
        preexec_fn=limits,
    )


def finish(process: subprocess.Popen) -> Finished:
    """Wait for the end of a run."""
    begin = time.monotonic()
    try:
        text = process.communicate(timeout=LIMIT)[1]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return Finished(process.returncode, text, time.monotonic() - begin)


def run(words: Sequence[str], before: str = "", limits: Callable[[], None] | None = None) -> Finished:
    """Run the program from its start to its end."""
    return finish(start(words, before, limits))


def wait_for(process: subprocess.Popen, words: str) -> str:
    """Read what a run says up to a line with some words."""
    text = ""
    for line in process.stderr:
        text += line
        if words in line:
            return text
    raise AssertionError(f"it never said {words!r}: {text}")


def processes_of(session: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                state, *numbers = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            except OSError:
                continue
            if state not in "ZX" and int(numbers[2]) == session:
                found.append(int(folder.name))
    return found


def assert_gone(session: int, seconds: float = 20) -> None:
    """No process of a session lives on."""
    deadline = time.monotonic() + seconds
    while (left := processes_of(session)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []


def hidden(out: Path) -> list[str]:
    """Files that were half written."""
    return [str(file) for file in out.rglob(".*") if file.name != ".bidsignore"]


def images_and_tables(out: Path) -> dict[str, bytes]:
    """Content of every result of the series, apart from records, which hold times, and files being written."""
    files = [file for file in out.glob("sub-*/**/*") if file.is_file() and not file.name.startswith(".")]
    return {str(file.relative_to(out)): file.read_bytes() for file in files if "desc-record" not in file.name}


def assert_whole(out: Path, reference: Path) -> None:
    """Whatever is there is as it should be at the end: files appear whole or not at all."""
    should = images_and_tables(reference)
    assert [name for name, content in images_and_tables(out).items() if should.get(name) != content] == []


def assert_same(out: Path, reference: Path) -> None:
    """The result is that of a run that nothing disturbed, and nothing else lies beside it."""
    found = differences(reference, out)
    assert not found, found
    assert hidden(out) == []
    assert list((out / "logs").glob("*.lock")) == []
