"""A model that uses the T1w and divides by the b0 runs through the app: with the T1w, without it, with a wrong one."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_sr.cli.app import main
from bids_sr.records import failed_parts
from tests.made_models import save_tiny_model

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    """Runs the app with some options; gives its record, its restored series, the methods text and its output folder."""
    card = save_tiny_model(tmp_path_factory.mktemp("model"), ("volume", "b0"), "b0", guided=True)

    def with_options(*options):
        folder = tmp_path_factory.mktemp("run")
        words = [str(dataset), str(folder / "out"), "participant", "-w", str(folder / "work"), "--nprocs", "1"]
        words += ["--scale", "1.3", "--model", card, "--device", "cpu", "--sloppy", *options]
        assert main(words) == 0
        (record,) = (folder / "out").rglob("*record.json")
        (image,) = (folder / "out").rglob("*desc-sr_dwi.nii.gz")
        before, broke_off = record.stat().st_mtime_ns, failed_parts(json.loads(record.read_text()))
        assert main(words) == 0
        # Done before, but for a check that broke off, which is tried once more.
        assert (record.stat().st_mtime_ns == before) != bool(broke_off)
        data = nib.load(image).get_fdata(dtype=np.float32)
        return json.loads(record.read_text()), data, (folder / "out" / "CITATION.md").read_text(), folder / "out"

    return with_options


@pytest.fixture(scope="module")
def guided(run):
    return run()


@pytest.fixture(scope="module")
def alone(run):
    return run("--no-t1w")


def test_the_t1w_takes_part_and_this_is_told(guided):
    record, data, methods, _ = guided
    assert record["model"]["uses_t1w"]
    assert record["t1w"] == {"used": True, "reason": ""}
    assert not any("zeros" in warning for warning in record["warnings"])
    assert "It was guided by the T1-weighted image." in methods
    assert np.isfinite(data).all()
    assert data.min() >= 0


def test_without_it_the_model_sees_zeros_and_this_is_told_once(alone):
    record, data, methods, _ = alone
    assert record["t1w"] == {"used": False, "reason": "there is none"}
    assert sum("zeros" in warning for warning in record["warnings"]) == 1
    assert "was given zeros in its place" in methods
    assert np.isfinite(data).all()


def test_the_scan_is_checked_with_the_t1w_and_without(guided, alone):
    checks = [record["self_check"] for record, *_ in (guided, alone)]
    assert all(check["done"] for check in checks)
    assert checks[0]["rows"] != checks[1]["rows"]
    assert {row["tissue"] for row in checks[0]["rows"]} == {"brain", "WM", "GM", "CSF"}
    assert {row["measure"] for row in checks[0]["rows"]} == {"PSNR", "SSIM", "FA", "MD", "V1"}
    assert any(name.endswith("_desc-selfcheck_stats.tsv") for name in guided[0]["outputs"])
    assert "volumes of each were degraded" in guided[2]


@pytest.mark.parametrize(("desc", "field"), [("departure", "BValues"), ("t1weffect", "Volumes")])
def test_the_maps_of_the_guards_lie_on_the_acquired_grid_and_say_what_they_are(dataset, guided, desc, field):
    record, *_, out = guided
    (file,) = out.rglob(f"*_desc-{desc}_dwimap.nii.gz")
    image, acquired = nib.load(file), nib.load(next(dataset.glob("sub-*/dwi/sub-*_dwi.nii.gz")))
    assert "_res-" not in file.name
    assert image.shape[:3] == acquired.shape[:3]
    np.testing.assert_allclose(image.affine, acquired.affine)
    assert image.get_fdata().any()
    assert str(file.relative_to(out)) in record["outputs"]
    sidecar = json.loads(Path(str(file).replace(".nii.gz", ".json")).read_text())
    assert sidecar["SkullStripped"]
    assert [uri.partition("sub-")[0] for uri in sidecar["Sources"]] == ["bids:raw:", "bids::"]
    assert (out / sidecar["Sources"][1].removeprefix("bids::")).is_file()
    assert sidecar["RestoredVoxelSizes"] == record["grids"]["target"]["voxel_sizes"]
    assert len(sidecar[field]) == {"departure": image.shape[3] if image.ndim == 4 else 0, "t1weffect": 4}[desc]


def test_the_guards_are_in_the_record_and_in_the_report(guided):
    record, *_, out = guided
    report = next(out.glob("sub-*.html")).read_text()
    for part in ("departure", "t1w_effect"):
        assert record[part]["done"]
        names = [name for name in record["outputs"] if f"_desc-{part.replace('_e', 'E')}" in name]
        assert any(name.endswith(".webp") for name in names)
        assert record[part]["sentence"].split(".")[0] in report
    assert set(record["t1w_effect"]["tissues"]) == {"brain", "WM", "GM", "CSF"}
    assert record["seconds"]["guards"] > 0


def test_every_output_is_in_the_documentation(guided):
    page = (Path(__file__).parents[2] / "docs" / "outputs.md").read_text()
    names = [Path(name).name for name in guided[0]["outputs"] if "/figures/" not in name]
    kinds = {name.rpartition("_desc-")[2].removesuffix(".gz").rpartition(".")[0] for name in names}
    assert {"sr_dwi", "t1weffect_dwimap", "departure_dwimap"} <= kinds
    assert [kind for kind in kinds if f"desc-{kind}" not in page] == []


def test_without_a_t1w_there_is_nothing_of_its_effect(alone):
    record, *_, out = alone
    assert record["departure"]["done"]
    assert "t1w_effect" not in record
    assert not list(out.rglob("*t1w[eE]ffect*"))
    assert "What did the T1w change?" not in next(out.glob("sub-*.html")).read_text()


def test_the_t1w_makes_a_difference(guided, alone):
    assert not np.allclose(guided[1], alone[1])


def fails(*_, **__):
    raise MemoryError


def test_the_t1w_of_something_else_is_not_shown(dataset, run, guided, alone, capfd, monkeypatch):
    """Noise in the place of the head: the registration shares too little, and the result is that without a T1w.

    One of the guards fails in the same run, which then says so and is done all the same.
    """
    monkeypatch.setattr("bids_sr.interfaces.consistency.departure", fails)
    (file,) = dataset.rglob("*_T1w.nii.gz")
    image, content = nib.load(file), file.read_bytes()
    noise = np.random.default_rng(0).uniform(0, 1000, image.shape).astype(np.float32)
    nib.Nifti1Image(noise, image.affine).to_filename(file)
    try:
        record, data, _, out = run()
    finally:
        file.write_bytes(content)
    assert record["fingerprint"] != guided[0]["fingerprint"]
    assert record["t1w"]["used"] is False
    assert "shares little" in record["t1w"]["reason"]
    assert sum("zeros" in warning for warning in record["warnings"]) == 1
    assert "did not guide the model" in capfd.readouterr().err
    np.testing.assert_array_equal(data, alone[1])
    assert "t1w_effect" not in record
    assert record["status"] == "done"
    assert record["departure"]["failed"]
    assert sum("departs from the acquired scan could not be told" in warning for warning in record["warnings"]) == 1
    assert not list(out.rglob("*_dwimap.*"))


def test_the_sidecar_says_whether_the_t1w_took_part(guided, alone):
    for (_, _, _, out), used in ((guided, True), (alone, False)):
        (sidecar,) = out.rglob("*desc-sr_dwi.json")
        told = json.loads(sidecar.read_text())
        assert told["ModelUsesT1w"] is True and told["T1wUsed"] is used
        assert ("T1wNotUsedBecause" in told) is not used
