"""Nothing is written outside the output and work folders, whatever libraries would like."""

import configparser
import dataclasses
import os
import subprocess
import sys
from pathlib import Path

from bids_sr.workflows.environment import isolated_environment


def test_every_cache_is_in_the_work_folder(config):
    with isolated_environment(config):
        for name in ("MPLCONFIGDIR", "XDG_CACHE_HOME", "TORCH_HOME", "DIPY_HOME", "NIPYPE_CONFIG_DIR"):
            folder = Path(os.environ[name])
            assert folder.is_relative_to(config.work_dir)
            assert folder.is_dir()
        assert os.environ["NIPYPE_NO_ET"] == "1"


def test_the_environment_is_put_back(config, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("NIPYPE_CONFIG_DIR", raising=False)
    with isolated_environment(config):
        assert os.environ["OMP_NUM_THREADS"] == "1"
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert "NIPYPE_CONFIG_DIR" not in os.environ


def test_workers_read_settings_that_nipype_understands(config):
    with isolated_environment(config):
        settings = configparser.ConfigParser()
        settings.read(Path(os.environ["NIPYPE_CONFIG_DIR"]) / "nipype.cfg")
    assert settings["execution"]["crashfile_format"] == "txt"
    assert settings["execution"]["crashdump_dir"] == str(config.output_dir / "logs" / "run1")
    assert settings["logging"]["workflow_level"] == "CRITICAL"


def test_a_user_without_name_and_home_gets_a_home_for_the_run(config, monkeypatch):
    def nobody(number):
        raise KeyError(number)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", nobody)
    with isolated_environment(config):
        assert Path.home().is_relative_to(config.work_dir)
    assert "HOME" not in os.environ


def test_a_home_is_left_as_it_is(config, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    with isolated_environment(config):
        assert Path.home() == tmp_path


def test_a_missing_logname_is_made_up(config, monkeypatch):
    monkeypatch.delenv("LOGNAME", raising=False)
    with isolated_environment(config):
        assert os.environ["LOGNAME"]


CRASH = """
import sys
from pathlib import Path
from bids_sr.config import Config
from bids_sr.workflows.environment import (
    crash_folder, execution_settings, isolated_environment, name_crash_folder
)

config = Config.from_toml(sys.stdin.read())
with isolated_environment(config):
    from nipype import Function, Node, Workflow
    from nipype import config as settings
    assert settings.get("execution", "crashdump_dir") == str(crash_folder(config))
    assert settings.get("logging", "log_directory") == str(config.output_dir / "logs")
    settings.update_config({"execution": execution_settings(config)})
    assert settings.get("execution", "crashdump_dir") == str(crash_folder(config))
    workflow, inner = Workflow("outer", base_dir=config.work_dir), Workflow("inner")
    inner.add_nodes([Node(Function(function="def fail(): 1 / 0"), "failing")])
    workflow.add_nodes([inner])
    name_crash_folder(workflow, config)
    try:
        workflow.run(plugin="Linear")
    except Exception:
        print(*(file.parent for file in Path(config.output_dir).rglob("crash-*.txt")))
"""


def test_a_percent_sign_in_the_path_of_the_output_is_no_reference(config, tmp_path):
    """nipype reads its settings with interpolation, and its nodes without."""
    config = dataclasses.replace(config, output_dir=tmp_path / "100%_%(here)s")
    ran = subprocess.run(
        [sys.executable, "-c", CRASH], input=config.to_toml(), capture_output=True, text=True, check=False
    )
    assert ran.stdout.strip() == str(config.output_dir / "logs" / "run1"), ran.stderr
    assert not (tmp_path / "100%%_%%(here)s").exists()
