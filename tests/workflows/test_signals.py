"""A request to stop ends in its own status, whatever it passed through."""

import subprocess
import sys

import pytest

CODE = """
import os, signal, sys
from bids_sr.workflows.engine import Signals, stopping_on

signals = Signals()
with stopping_on(signals):
    try:
        # Named tuples and parts of nipype run code that was made from text.
        exec("os.kill(os.getpid(), signal.{name})")
    except KeyboardInterrupt:
        pass
    try:
        signals.check()
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_the_status_of_a_request_to_stop_is_130(tmp_path, name):
    (tmp_path / "asked.py").write_text(CODE.format(name=name))
    ended = subprocess.run([sys.executable, "-m", "asked"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (130, "")


def test_nothing_was_asked_of_a_new_run():
    from bids_sr.workflows.engine import Signals

    Signals().check()
