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


def test_after_an_interrupt_nipype_imports_nothing_as_python_ends():
    """What was being imported when the signal came may be half there, and a traceback would follow the last line."""
    code = (
        "import sys\n"
        "import nipype.utils.config as config\n"
        "from bids_sr.workflows import engine\n"
        "sys.modules['nipype.config'] = config.config = None\n"
        "del sys.modules['nipype'].config\n"
        "engine._forget_display() if sys.argv[1] == 'yes' else None\n"
    )
    texts = [
        subprocess.run([sys.executable, "-c", code, word], capture_output=True, text=True, check=True).stderr
        for word in ("no", "yes")
    ]
    assert "Traceback" in texts[0]
    assert "Traceback" not in texts[1]
