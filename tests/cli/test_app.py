"""The command line takes the words that users of other BIDS Apps know, and refuses others with one line."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bids_sr.cli.app import build_parser, main, parse_args
from bids_sr.config import Config
from bids_sr.errors import ConfigurationError, InputError, NoSuchSubjectError
from tests.skeleton import Skeleton

HEAVY = ("bids", "dipy", "matplotlib", "nibabel", "nipype", "numpy", "pandas", "scipy", "torch")


@pytest.fixture
def raw(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    skeleton = Skeleton(tmp_path / "raw")
    skeleton.dwi("sub-01_dir-AP")
    skeleton.dwi("sub-02")
    skeleton.t1w("sub-02")
    return skeleton


def parse(*words):
    return parse_args(["raw", "out", "participant", *words])


@pytest.mark.usefixtures("raw")
class TestOptions:
    def test_defaults(self, tmp_path):
        config = parse("--scale", "2")
        assert config.bids_dir == tmp_path / "raw"
        assert config.work_dir == tmp_path / "work"
        assert config.scale == (2.0, 2.0, 2.0)
        assert config.output_resolution is None
        assert config.participants == ()
        assert 1 <= config.omp_nthreads <= min(config.nprocs, 8)
        assert config.command_line == "bids_sr raw out participant --scale 2"

    def test_every_value_has_its_field(self):
        values = vars(build_parser().parse_args(["a", "b", "participant", "--scale", "2"]))
        assert set(values) - {"config_file"} == set(Config.__dataclass_fields__) - {"run_id", "command_line"}

    @pytest.mark.parametrize("words", [["1.25"], ["1.25", "1.25", "1.25"]])
    @pytest.mark.parametrize("spelling", ["--output-resolution", "--output_resolution"])
    def test_resolution(self, spelling, words):
        assert parse(spelling, *words).output_resolution == (1.25, 1.25, 1.25)

    @pytest.mark.parametrize("words", [["01", "02"], ["01,02"], ["sub-01", "sub-02"], ["sub-01,02", "01"]])
    @pytest.mark.parametrize("option", ["--participant-label", "--participant_label"])
    def test_participants(self, option, words):
        assert parse("--scale", "2", option, *words).participants == ("01", "02")

    @pytest.mark.parametrize("option", ["--session-label", "--session-id", "--session_id"])
    def test_sessions(self, option):
        assert parse("--scale", "2", option, "ses-1", "2").sessions == ("1", "2")

    def test_values_keep_their_underscores(self, tmp_path):
        assert parse("--scale", "2", "--work_dir=my_work").work_dir == tmp_path / "my_work"

    def test_derivatives_join(self, tmp_path):
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
        config = parse("--scale", "2", "--derivatives", "a=a", "-d", "b=b")
        assert config.derivatives == {"a": tmp_path / "a", "b": tmp_path / "b"}

    def test_filter_file(self, tmp_path):
        (tmp_path / "filter.json").write_text('{"dwi": {"direction": null}, "flair": {"x": "*"}}')
        assert parse("--scale", "2", "--bids-filter-file", "filter.json").filters["dwi"] == {"direction": None}

    def test_switches(self):
        config = parse("--scale", "2", "--no-t1w", "--skip_bids_validator", "--notrack", "-vv", "--mem", "1.5G")
        assert (config.use_t1w, config.validate, config.verbosity, config.memory_gb) == (False, False, 2, 1.5)

    def test_the_scan_is_checked_unless_told_otherwise(self):
        assert parse("--scale", "2").self_check
        assert not parse("--scale", "2", "--no-self-check").self_check

    @pytest.mark.parametrize("switch", ["--reports-only", "--boilerplate-only"])
    def test_no_grid_is_needed_for_text(self, switch):
        assert parse(switch).scale is None

    def test_plugin(self, tmp_path):
        (tmp_path / "plugin.yml").write_text("plugin: Linear\n")
        assert parse("--scale", "2", "--use-plugin", "plugin.yml").plugin_file == tmp_path / "plugin.yml"

    def test_run_ids_differ(self):
        assert parse("--scale", "2").run_id != parse("--scale", "2").run_id

    def test_config_file_gives_defaults_that_words_override(self, tmp_path):
        written = parse("--scale", "2", "--b0-threshold", "70", "--participant-label", "01", "--no-t1w")
        (tmp_path / "run.toml").write_text(written.to_toml())
        again = parse("--config-file", "run.toml", "--participant-label", "02")
        assert (again.scale, again.b0_threshold, again.use_t1w) == ((2.0, 2.0, 2.0), 70.0, False)
        assert again.participants == ("02",)
        assert again.run_id != written.run_id

    def test_grid_of_the_words_replaces_that_of_the_config_file(self, tmp_path):
        (tmp_path / "run.toml").write_text("scale = 2.0\n")
        config = parse("--config-file", "run.toml", "--output-resolution", "1")
        assert (config.scale, config.output_resolution) == (None, (1.0, 1.0, 1.0))

    def test_threads_of_the_config_file_are_no_more_than_the_processors(self, tmp_path):
        """They were chosen for another run, perhaps on another computer."""
        (tmp_path / "run.toml").write_text("omp_nthreads = 8\nscale = 2\n")
        threads = {n: parse("--config-file", "run.toml", "--nprocs", n).omp_nthreads for n in ("4", "16")}
        assert threads == {"4": 4, "16": 8}
        assert parse("--config-file", "run.toml", "--nprocs", "4", "--omp-nthreads", "2").omp_nthreads == 2
        with pytest.raises(ConfigurationError, match="--omp-nthreads"):
            parse("--config-file", "run.toml", "--nprocs", "4", "--omp-nthreads", "8")

    @pytest.mark.parametrize("line", ["omp_nthreads = 0", "omp_nthreads = -1"])
    def test_no_threads_in_the_config_file_are_refused(self, tmp_path, line):
        (tmp_path / "run.toml").write_text(f"{line}\nscale = 2\n")
        with pytest.raises(ConfigurationError, match="at least one"):
            parse("--config-file", "run.toml")

    def test_folders_of_the_config_file_are_looked_for_where_the_command_is_given(self, tmp_path):
        (tmp_path / "qp").mkdir()
        (tmp_path / "run.toml").write_text('scale = 2\nwork_dir = "scratch"\n[derivatives]\nqsiprep = "qp"\n')
        config = parse("--config-file", "run.toml")
        assert config.derivatives == {"qsiprep": tmp_path / "qp"}
        assert config.work_dir == tmp_path / "scratch"

    def test_a_logged_filter_asks_for_the_same(self, tmp_path):
        filters = {"dwi": {"direction": ["AP", None], "run": None}}
        (tmp_path / "filter.json").write_text(json.dumps(filters))
        (tmp_path / "run.toml").write_text(parse("--scale", "2", "--bids-filter-file", "filter.json").to_toml())
        assert parse("--config-file", "run.toml").filters == filters

    @pytest.mark.parametrize("words", [["--work-dir", "~nobody0/x"], ["--config-file", "run.toml"]])
    def test_the_home_of_nobody_is_refused(self, tmp_path, words):
        (tmp_path / "run.toml").write_text('work_dir = "~nobody0/x"\n')
        with pytest.raises(InputError, match="no such home folder"):
            parse("--scale", "2", *words)

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ([], "--output-resolution"),
            (["--scale", "2", "--output-resolution", "1"], "not allowed with"),
            (["--scale", "2", "2"], "one number or three"),
            (["--scale", "two"], "--scale"),
            (["--scale", "2", "--mem", "1Q"], "amount of memory"),
            (["--scale", "2", "--participant-label", "sub-0_1"], "not a BIDS label"),
            (["--scale", "2", "--derivatives", "path"], "NAME=PATH"),
            (["--scale", "2", "--derivatives", "raw=raw"], "NAME=PATH"),
            (["--scale", "2", "--bids-filter-file", "nowhere.json"], "does not exist"),
            (["--scale", "2", "--bids-filter-file", "raw"], "raw is not valid text"),
            (["--scale", "2", "--bids-filter-file", "broken"], "not valid JSON"),
            (["--scale", "2", "--bids-filter-file", "list"], "must have the form"),
            (["--scale", "2", "--use-plugin", "broken"], "not valid YAML"),
            (["--scale", "2", "--use-plugin", "list"], "key plugin"),
            (["--config-file", "broken"], "not valid TOML"),
            (["--scale", "2", "--low-mem"], "unrecognized"),
            (["--scale", "2", "--dry"], "unrecognized"),
        ],
    )
    def test_wrong_words(self, tmp_path, words, message):
        (tmp_path / "broken").write_text("{a: [")
        (tmp_path / "list").write_text("[1]")
        with pytest.raises(InputError, match=message) as caught:
            parse(*words)
        assert caught.value.exit_code == 2
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("level", ["Participant", "session"])
def test_other_levels_are_refused(level):
    with pytest.raises(ConfigurationError, match="not an analysis level; there are participant, group"):
        parse_args(["raw", "out", level, "--scale", "2"])


@pytest.mark.usefixtures("raw")
def test_the_group_level_needs_no_grid_and_both_levels_do():
    assert parse_args(["raw", "out", "group"]).analysis_levels == ("group",)
    both = parse_args(["raw", "out", "participant", "group", "--scale", "2"])
    assert both.analysis_levels == ("participant", "group")
    with pytest.raises(ConfigurationError, match="--output-resolution"):
        parse_args(["raw", "out", "participant", "group"])


def test_the_group_level_may_be_called_from_the_dataset(raw, monkeypatch):
    """It needs no work folder, whose place is the current folder."""
    monkeypatch.chdir(raw.root)
    assert parse_args([".", "../out", "group"]).output_dir == raw.root.parent / "out"
    with pytest.raises(InputError, match="work"):
        parse_args([".", "../out", "participant", "group", "--scale", "2"])


# The program


def run_program(*words):
    start = time.perf_counter()
    command = [sys.executable, "-m", "bids_sr", *words]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    return result, time.perf_counter() - start


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_import_nothing_heavy(option):
    code = (
        "import sys\nfrom bids_sr.cli.app import main\n"
        f"try: main(['{option}'])\nexcept SystemExit as end: print('exit', end.code)\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.endswith("exit 0\n[]\n")


def test_version_of_the_program():
    result, _ = run_program("--version")
    assert result.returncode == 0
    assert result.stdout.startswith("bids_sr 0.")


def test_a_mistake_is_one_line_and_status_2():
    result, _ = run_program("/nowhere", "out", "participant", "--scale", "2")
    assert result.returncode == 2
    assert result.stderr.startswith("bids_sr: error: BIDS_DIR: /nowhere does not exist.")
    assert result.stderr.count("\n") == 1


def test_traceback_on_request():
    result, _ = run_program("/nowhere", "out", "participant", "--scale", "2", "-v")
    assert result.returncode == 2
    assert "Traceback" in result.stderr


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (NoSuchSubjectError(missing="09", bids_dir="raw", available="01"), 2, "no sub-09"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 137, "out of memory"),
        (ZeroDivisionError("division by zero"), 1, "this is a bug"),
    ],
)
def test_status_of_what_a_run_raises(raw, monkeypatch, capsys, error, status, text):
    def fail(_):
        raise error

    monkeypatch.setattr("bids_sr.cli.app._run", fail)
    assert main(["raw", "out", "participant", "--scale", "2"]) == status
    message = capsys.readouterr().err
    assert text in message
    assert message.count("\n") == 1


def test_configuration_reaches_the_engine(raw, monkeypatch):
    seen = []
    engine = type(sys)("bids_sr.workflows.engine")
    engine.run = lambda config: seen.append(config) or 7
    monkeypatch.setitem(sys.modules, "bids_sr.workflows.engine", engine)
    assert main(["raw", "out", "participant", "--scale", "2"]) == 7
    assert seen[0].bids_dir == raw.root


# --dry-run


def dry_run(capsys, *words):
    status = main(["raw", "out", "participant", "--dry-run", "--model", "cubic", "--device", "cpu", *words])
    return status, capsys.readouterr()


@pytest.mark.usefixtures("raw")
class TestDryRun:
    def test_table_tells_series_t1w_and_grids(self, capsys, tmp_path):
        status, printed = dry_run(capsys, "--output-resolution", "1")
        assert status == 0
        heading, first, second, *_ = printed.out.splitlines()
        names = ["series", "volumes", "t1w", "mask", "acquired", "asked", "self-check", "time", "memory"]
        assert heading.split() == names
        assert first.startswith("sub-01 dir-AP")
        assert "none" in first
        assert "sub-02_T1w.nii.gz (same session)" in second
        assert "6x6x4 @ 2x2x2 mm" in second
        assert "12x12x8 @ 1x1x1 mm" in second
        assert not (tmp_path / "out").exists()
        assert not (tmp_path / "work").exists()

    def test_a_series_that_cannot_run_is_told_and_the_others_listed(self, raw, capsys):
        raw.dwi("sub-03", size=4.0)
        status, printed = dry_run(capsys, "--output-resolution", "3")
        assert status == 2
        assert "sub-03" in printed.out
        assert printed.out.count("cannot run: ") == 2

    def test_images_that_are_not_series(self, raw, capsys):
        raw.image("sub-01_dir-AP", "dwi", "dwi", shape=(4, 4, 4))
        (raw.root / "sub-02/dwi/sub-02_dwi.nii.gz").write_bytes(b"not an image")
        status, printed = dry_run(capsys, "--scale", "2")
        assert status == 2
        assert "four dimensions" in printed.out
        assert "cannot be read as a NIfTI image" in printed.out

    def test_missing_subject(self, capsys):
        status, printed = dry_run(capsys, "--scale", "2", "--participant-label", "09")
        assert status == 2
        assert "no sub-09" in printed.err

    def test_filter_applies(self, capsys, tmp_path):
        (tmp_path / "f.json").write_text(json.dumps({"dwi": {"direction": "AP"}}))
        _, printed = dry_run(capsys, "--scale", "2", "--bids-filter-file", "f.json")
        assert "sub-01" in printed.out
        assert "sub-02" not in printed.out


def test_a_signal_after_the_work_leaves_its_status():
    code = (
        "import os, signal, sys\nfrom bids_sr.cli import app\napp.main = lambda: 7\n"
        "code = app.console()\n"
        "for number in (signal.SIGTERM, signal.SIGINT): os.kill(os.getpid(), number)\n"
        "sys.exit(code)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 7


def test_a_model_is_looked_for_where_the_command_is_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.json").write_text("{}")
    words = ["raw", "out", "participant", "--scale", "2", "--model"]
    (tmp_path / "raw").mkdir()
    assert parse_args([*words, "mine.json"]).model == str(tmp_path / "mine.json")
    assert parse_args([*words, "mine.json@target"]).model == f"{tmp_path / 'mine.json'}@target"
    assert parse_args([*words, "light"]).model == "light"
    assert parse_args([*words, "other.json"]).model == "other.json"
