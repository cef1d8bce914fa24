"""All steps of a graph as SLURM jobs that wait for each other, and this process for all of them."""

from __future__ import annotations

import logging
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nipype.pipeline.engine import Node
from nipype.pipeline.plugins.slurmgraph import SLURMGraphPlugin

from bids_sr.errors import PluginFileError, WorkerKilledError
from bids_sr.interfaces.failure import MEMORY_EXIT_CODE, Failure

POLL_SECONDS = 10.0
#: How long what a job wrote may take to be seen here, on a file system shared by computers.
FILE_SYSTEM_SECONDS = 30.0
logger = logging.getLogger("bids_sr")


@dataclass(frozen=True)
class Job:
    """A step that was handed to SLURM.

    Attributes
    ----------
    number : str
        As SLURM counts.
    node : Node
        The step.
    before : tuple of int
        Places, in the list of all jobs, of those that must be done before.
    script : Path
        What the job runs; its output and its exit status are kept beside it.
    """

    number: str
    node: Node
    before: tuple[int, ...]
    script: Path

    @property
    def output_file(self) -> Path:
        """What the job printed."""
        return self.script.with_suffix(".log")

    @property
    def status(self) -> int | None:
        """Exit status of the step; None where the job never came to its end."""
        try:
            return int(self.script.with_suffix(".status").read_text())
        except (OSError, ValueError):
            return None


class WaitingSLURMGraphPlugin(SLURMGraphPlugin):
    """nipype's SLURMGraph, which comes back when its jobs are done and tells of those that failed.

    nipype's own returns as soon as the jobs are queued, loses the reason where SLURM refuses one, and leaves jobs whose
    predecessor failed in the queue for ever.

    Parameters
    ----------
    plugin_args : mapping
        ``sbatch_args``, ``template`` (first lines of each job, or a file that holds them), ``poll_seconds``, and
        ``status_callback``, called with a step and ``start`` or ``exception``.
    file : Path
        Plugin file of the user, which messages name.
    """

    def __init__(self, plugin_args: dict[str, Any], file: Path) -> None:
        self._file = file
        self._tell = plugin_args["status_callback"]
        self._seconds = float(plugin_args.get("poll_seconds", POLL_SECONDS))
        super().__init__(plugin_args={key: value for key, value in plugin_args.items() if key != "status_callback"})

    def _submit_graph(self, pyfiles: Sequence[str], dependencies: Mapping[int, list[int]], nodes: list[Node]) -> None:
        """Hand over all jobs and wait for them; nipype calls this with its steps in an order that can be run."""
        jobs: list[Job] = []
        try:
            for index, (program, node) in enumerate(zip(pyfiles, nodes, strict=True)):
                jobs.append(self._submit(Path(program), node, jobs, tuple(dependencies.get(index, ()))))
            logger.info("SLURM: %d jobs, %s to %s", len(jobs), jobs[0].number, jobs[-1].number)
            self._wait(jobs)
        except BaseException:
            cancel(jobs)
            raise
        for job in failed_jobs(jobs):
            leave_reason(job)
            self._tell(job.node, "exception")

    def _submit(self, program: Path, node: Node, jobs: Sequence[Job], before: tuple[int, ...]) -> Job:
        """Hand one step to SLURM."""
        template, arguments = self._get_args(node, ["template", "sbatch_args"])
        script = program.with_suffix(".sh")
        job = Job("", node, before, script)
        script.with_suffix(".status").unlink(missing_ok=True)
        script.write_text(job_script(template, program), encoding="utf-8")
        after = ":".join(jobs[index].number for index in before)
        words = [
            *("sbatch", "--parsable", f"--job-name={node.name}", f"--output={job.output_file}"),
            *(["--kill-on-invalid-dep=yes", f"--dependency=afterok:{after}"] if after else []),
            *shlex.split(arguments),
        ]
        return replace(job, number=self._sbatch([*words, str(script)]))

    def _sbatch(self, words: Sequence[str]) -> str:
        """Number of a new job.

        Raises
        ------
        PluginFileError
            If SLURM is not there or refuses the job.
        """
        try:
            answer = run_quietly(words)
        except FileNotFoundError as error:
            reason = "the command sbatch is not there; start bids_sr where jobs can be submitted."
            raise PluginFileError(path=self._file, reason=reason) from error
        number = re.match(r"\d+", answer.stdout)
        if answer.returncode != 0 or number is None:
            reason = f"SLURM refused a job: {' '.join(answer.stderr.split()) or answer.stdout.strip()}"
            raise PluginFileError(path=self._file, reason=reason)
        return number[0]

    def _wait(self, jobs: Sequence[Job]) -> None:
        """Come back when none of the jobs is queued or running, and tell of each that begins."""
        waiting, quiet = {job.number: job for job in jobs}, {job.number for job in jobs}
        while waiting:
            states = queue_states()
            if states is not None:
                for number in sorted(quiet, key=int):
                    if states.get(number) == "RUNNING" or (number not in states and waiting[number].status is not None):
                        quiet.remove(number)
                        self._tell(waiting[number].node, "start")
                waiting = {number: job for number, job in waiting.items() if number in states}
                quiet &= set(waiting)
            if waiting:
                time.sleep(self._seconds)
        until = time.monotonic() + FILE_SYSTEM_SECONDS
        while any(job.status is None for job in failed_jobs(jobs)) and time.monotonic() < until:
            time.sleep(1)


def job_script(template: str, program: Path) -> str:
    """Text of a job that runs a program of Python and leaves its exit status beside it."""
    status = shlex.quote(str(program.with_suffix(".status")))
    command = shlex.join([sys.executable, str(program)])
    return f"{template.rstrip()}\n{command}\nstatus=$?\necho $status > {status}\nexit $status\n"


def queue_states() -> dict[str, str] | None:
    """State of each job of this user that has not ended, by its number; None where SLURM does not answer now."""
    with suppress(OSError, subprocess.TimeoutExpired):
        answer = run_quietly(["squeue", "--noheader", f"--user={os.getuid()}", "--format=%i %T"])
        if answer.returncode == 0:
            return dict(line.split(maxsplit=1) for line in answer.stdout.splitlines() if " " in line.strip())
    return None


def failed_jobs(jobs: Sequence[Job]) -> Iterator[Job]:
    """Jobs that failed by themselves, not for want of what an earlier one should have made."""
    done = [job.status == 0 for job in jobs]
    for job, ended_well in zip(jobs, done, strict=True):
        if not ended_well and all(done[index] for index in job.before):
            yield job


def leave_reason(job: Job) -> None:
    """Write why a job failed into the folder of its step, where the step could not do so itself."""
    folder = Path(job.node.output_dir())
    if Failure.read(folder) is not None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    if job.status == MEMORY_EXIT_CODE:
        Failure.of(WorkerKilledError()).write(folder)
        return
    ended = "did not come to its end (time limit, memory, or cancelled)"
    if job.status is not None:
        ended = f"ended with status {job.status}"
    Failure(f"SLURM job {job.number} {ended}; see {job.output_file}", 1).write(folder)


def cancel(jobs: Sequence[Job]) -> None:
    """Take jobs out of the queue, in whatever state they are."""
    if jobs:
        logger.error("SLURM: cancelling %d jobs", len(jobs))
        with suppress(OSError, subprocess.TimeoutExpired):
            run_quietly(["scancel", *(job.number for job in jobs)])


def run_quietly(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command of SLURM and keep what it says."""
    return subprocess.run(list(words), capture_output=True, text=True, check=False, timeout=120)  # noqa: S603
