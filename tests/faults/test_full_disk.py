"""On a disk that fills up at any write, nothing half written stays, and with more room the same command finishes."""

import shlex
import shutil
import subprocess
import sys

import pytest

from tests.faults.runs import ROOT, Place, assert_same, assert_whole

pytestmark = pytest.mark.faults
NAMESPACE = (["unshare", "--mount"], ["unshare", "--mount", "--map-root-user"])

SCRIPT = """
mount -t tmpfs -o size={kilobytes}k none {disk} || exit 99
{command} 2> {results}/first; echo $? > {results}/code
cp -r {disk}/out {results}/left 2> {results}/copied
mount -o remount,size=200m {disk}
{command} 2> {results}/second; code=$?
cp -r {disk}/out {results}/out
exit $code
"""


@pytest.fixture(scope="module")
def namespace():
    """Words that give a command mounts of its own."""
    for words in NAMESPACE:
        if (
            shutil.which(words[0])
            and not subprocess.run(
                [*words, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False
            ).returncode
        ):
            return words
    pytest.skip("needs the right to mount a small file system (root, or user namespaces)")


#: In kB. Both folders of an undisturbed run hold about 4500, its output 1600.
SIZES = [(size, True) for size in (8, 160, 320, 640, 960, 1300, 1700, 2200, 2800, 3600)]
SIZES += [(size, False) for size in (24, 80, 400, 900, 1400)]


@pytest.mark.parametrize(("kilobytes", "work_too"), SIZES)
def test_what_is_written_is_whole_and_the_rest_follows(dataset, tmp_path, reference, namespace, kilobytes, work_too):
    disk, results = tmp_path / "disk", tmp_path / "results"
    disk.mkdir()
    results.mkdir()
    words = Place(dataset, disk / "out", (disk if work_too else tmp_path) / "work").words()
    command = shlex.join(["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "bids_sr", *words])
    script = SCRIPT.format(kilobytes=kilobytes, disk=disk, results=results, command=command)
    process = subprocess.run([*namespace, "sh", "-c", script], capture_output=True, text=True, check=False)
    first = (results / "first").read_text()
    if (results / "code").read_text().strip() != "0":
        assert (results / "code").read_text().strip() == "2", first
        assert "disk is full" in first
        assert "Traceback" not in first
    assert_whole(results / "left", reference.out)
    assert process.returncode == 0, (results / "second").read_text()
    assert_same(results / "out", reference.out)
