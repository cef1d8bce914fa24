"""Numbers of the self-check, the guards and the uncertainty are those of the files, computed again by other means."""

import json
import re
from dataclasses import replace
from html import unescape

import nibabel as nib
import numpy as np
import pytest
from dipy.core.gradients import gradient_table
from dipy.reconst.dti import TensorModel, fractional_anisotropy
from scipy import ndimage, stats
from skimage.metrics import structural_similarity

from bids_sr.cli.app import main
from bids_sr.demo import dataset as demo
from tests import tiny
from tests.made_models import save_tiny_model

pytestmark = pytest.mark.integration
TISSUES = {"WM": 3, "GM": 2, "CSF": 1}
SCALE = "1.4"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Dataset, output and work of a run with a small network that uses the T1w and tells how uncertain it is."""
    folder = tmp_path_factory.mktemp("checks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "SMALL", replace(tiny.TINY, n_b0=2, n_directions=26))
        demo.make_dataset(folder / "raw", small=True)
    card = save_tiny_model(folder / "model", ("volume", "b0", "shell"), guided=True, uncertain=True)
    words = [str(folder / "raw"), str(folder / "out"), "participant", "-w", str(folder / "work"), "--nprocs", "1"]
    assert main([*words, "--scale", SCALE, "--model", card, "--device", "cpu", "--uncertainty", "--sloppy"]) == 0
    return folder


@pytest.fixture(scope="module")
def record(folder):
    (file,) = folder.glob("out/sub-01/figures/*_desc-record.json")
    return json.loads(file.read_text())


@pytest.fixture(scope="module")
def page(folder):
    """Words of the report."""
    text = re.sub(r"<(style|script|svg)\b.*?</\1>", "", (folder / "out/sub-01.html").read_text(), flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", text)).replace("\N{MINUS SIGN}", "-").split())


def image(folder, pattern):
    (file,) = folder.glob(pattern)
    return nib.load(file)


def one(folder, pattern):
    """Voxels of the only file of that name."""
    return np.asarray(image(folder, pattern).dataobj).astype(np.float64)


def published(folder, ending):
    return one(folder, f"out/sub-01/dwi/sub-01_{ending}.nii.gz")


@pytest.fixture(scope="module")
def acquired(folder):
    return one(folder, "raw/sub-01/dwi/*_dwi.nii.gz")


@pytest.fixture(scope="module")
def bvals(folder):
    return np.loadtxt(next(folder.glob("raw/sub-01/dwi/*.bval")))


@pytest.fixture(scope="module")
def bvecs(folder):
    return np.loadtxt(next(folder.glob("raw/sub-01/dwi/*.bvec"))).T


@pytest.fixture(scope="module")
def mask(folder):
    return published(folder, "desc-brain_mask") > 0


@pytest.fixture(scope="module")
def regions(folder, mask):
    tissues = one(folder, "work/**/compare/tissues.nii")
    return {"brain": mask} | {name: mask & (tissues == label) for name, label in TISSUES.items()}


@pytest.fixture(scope="module")
def edges(folder):
    """Borders of the restored voxels in acquired voxels, one array per axis."""
    acquired, restored = (image(folder, p) for p in ("raw/*/dwi/*_dwi.nii.gz", "out/*/dwi/*desc-sr_dwi.nii.gz"))
    to_acquired = np.linalg.inv(acquired.affine) @ restored.affine
    return [to_acquired[a, a] * (np.arange(restored.shape[a] + 1) - 0.5) + to_acquired[a, 3] for a in range(3)]


def in_cells(fine, edges, shape):
    """Sums of fine voxels over the cells of acquired ones, each by the part that lies in the cell."""
    parts = []
    for borders, n in zip(edges, shape, strict=True):
        cells = np.arange(n)[:, None]
        parts.append(np.clip(np.minimum(borders[1:], cells + 0.5) - np.maximum(borders[:-1], cells - 0.5), 0, None))
    return np.einsum("ai,bj,ck,ijk->abc", *parts, fine, optimize=True)


def noise_of(signals, vectors, mask):
    """Deviation of the noise of a volume, from what a quadratic form of the direction leaves; the median of a cube."""
    x, y, z = vectors.T
    design = np.stack([x * x, y * y, z * z, x * y, x * z, y * z], axis=1)
    left = signals.T - design @ np.linalg.lstsq(design, signals.T, rcond=None)[0]
    low, high = (edge(np.argwhere(mask), axis=0) for edge in (np.min, np.max))
    nearest = ndimage.distance_transform_edt(
        ~mask[tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))],
        return_distances=False,
        return_indices=True,
    )
    squares = np.zeros(mask.shape)
    squares[mask] = (left**2).sum(axis=0)
    found = []
    for voxel in np.argwhere(mask):
        around = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, indexing="ij"), -1).reshape(-1, 3) + voxel
        inside = (np.clip(around, low, high) - low).T
        found.append(np.median(squares[tuple(nearest[:, *inside] + low[:, None])]))
    return np.sqrt(np.array(found) / stats.chi2.median(len(vectors) - 6))


@pytest.fixture(scope="module")
def noise(acquired, bvals, bvecs, mask):
    """Of the weighted shell; the two b0 volumes are too few to tell theirs, and take it over."""
    weighted = bvals > 50
    return noise_of(acquired[mask][:, weighted], bvecs[weighted], mask)


# What the T1w changed


@pytest.fixture(scope="module")
def changed(folder, acquired, mask, edges, noise):
    """What the T1w changed in the signal, as published and computed again; and which volumes were compared."""
    file = next(folder.glob("out/sub-01/dwi/*_desc-t1weffect_dwimap.json"))
    volumes = json.loads(file.read_text())["Volumes"]
    given, without = published(folder, "res-*_desc-sr_dwi")[..., volumes], one(folder, "work/**/ablate/restored.nii")
    fine = published(folder, "res-*_desc-brain_mask")
    total = np.zeros(int(mask.sum()))
    for volume in range(len(volumes)):
        change = in_cells(np.abs(given[..., volume] - without[..., volume]) * fine, edges, mask.shape)
        total += (change / np.maximum(in_cells(fine, edges, mask.shape), 1e-9))[mask] / noise
    again = np.zeros(mask.shape)
    again[mask] = total / len(volumes)
    return published(folder, "desc-t1weffect_dwimap"), again, volumes


def test_the_map_of_what_the_t1w_changed_is_the_difference_of_the_series(changed):
    told, again, volumes = changed
    assert len(volumes) == 7
    np.testing.assert_allclose(told if told.ndim == 3 else told[..., 0], again, rtol=2e-3, atol=1e-4)


def test_numbers_of_the_effect_are_those_of_the_map(folder, record, page, changed, regions, edges, bvals, bvecs):
    told, volumes = record["t1w_effect"], changed[2]
    change = changed[1]
    assert told["volumes"] == len(volumes) and f"{len(volumes)} volumes were restored without the T1w too" in page
    fits = [
        tensor_of(series, bvals[volumes], bvecs[volumes], published(folder, "res-*_desc-brain_mask") > 0)
        for series in (published(folder, "res-*_desc-sr_dwi")[..., volumes], one(folder, "work/**/ablate/restored.nii"))
    ]
    fine = published(folder, "res-*_desc-brain_mask")
    weight = np.maximum(in_cells(fine, edges, change.shape), 1e-9)
    pairs = [(fits[0][index], fits[1][index]) for index in range(2)]
    tensor = [in_cells(np.abs(a - b) * fine, edges, change.shape) / weight for a, b in pairs]
    for name, region in regions.items():
        row = told["tissues"][name]
        assert row["n_voxels"] == region.sum()
        assert row["mean"] == pytest.approx(change[region].mean(), abs=2e-4)
        assert row["p95"] == pytest.approx(np.quantile(change[region], 0.95), abs=5e-4)
        assert row["share"] == pytest.approx(np.mean(change[region] > 1), abs=1 / region.sum() + 1e-4)
        assert row["fa"] == pytest.approx(tensor[0][region].mean(), rel=5e-3)
        assert row["md"] == pytest.approx(tensor[1][region].mean(), rel=5e-3)
        assert f"{name} {region.sum():,} {row['mean']:.3f} {row['p95']:.3f} {100 * row['share']:.1f} %" in page
    most = np.unravel_index(change.argmax(), change.shape)
    assert told["most"]["voxel"] == [int(i) for i in most]
    affine = image(folder, "raw/*/dwi/*_dwi.nii.gz").affine
    np.testing.assert_allclose(told["most"]["centre_mm"], (affine @ [*most, 1])[:3], atol=0.051)
    assert f"changed FA by {tensor[0][regions['WM']].mean():.3f} and mean diffusivity" in page


def tensor_of(series, bvals, bvecs, mask):
    """FA, MD and V1 of the weighted fit of DIPY, on volumes of voxels."""
    signals = series[mask]
    weighted = bvals > 50
    floor = 1e-3 * np.median(signals[:, ~weighted])
    units = np.where(weighted[:, None], bvecs / np.maximum(np.linalg.norm(bvecs, axis=1, keepdims=True), 1e-9), 0)
    table = gradient_table(bvals, bvecs=units, b0_threshold=50)
    fit = TensorModel(table, fit_method="WLS", min_signal=floor).fit(np.maximum(signals, floor))
    fa, md, v1 = np.zeros(mask.shape), np.zeros(mask.shape), np.zeros((*mask.shape, 3))
    fa[mask] = fractional_anisotropy(np.maximum(fit.evals, 0))
    md[mask], v1[mask] = np.maximum(fit.evals, 0).mean(axis=-1), fit.evecs[..., 0]
    return fa, md, v1


# Departure


@pytest.fixture(scope="module")
def departed(folder, acquired, bvals, bvecs, mask, edges, noise):
    """Departures in standard errors: of voxels, and of averages over 4 mm, for b0 and the weighted shell."""
    restored = published(folder, "res-*_desc-sr_dwi")
    weights = []
    for borders, n in zip(edges, mask.shape, strict=True):
        size = borders[1] - borders[0]
        distance = ((borders[1:] + borders[:-1]) / 2)[None] - np.arange(n)[:, None]
        # A Gaussian as wide as the acquired voxel, less one as wide as the restored one, which the image holds already.
        sigma = np.sqrt((1 / size**2 - 1) / (8 * np.log(2)))
        gaussian = np.exp(-((distance / (size * sigma)) ** 2) / 2) * (np.abs(distance) <= 4 * size * sigma)
        # Tilted so that its centre of mass is where it is asked for, as it is known at whole voxels only.
        gaussian = gaussian / gaussian.sum(axis=1, keepdims=True)
        mean = (gaussian * distance).sum(axis=1, keepdims=True)
        variance = (gaussian * (distance - mean) ** 2).sum(axis=1, keepdims=True)
        gaussian = gaussian * np.clip(1 - mean / variance * (distance - mean), 0, None)
        weights.append(gaussian / gaussian.sum(axis=1, keepdims=True))
    zooms = np.array(image(folder, "raw/*/dwi/*_dwi.nii.gz").header.get_zooms()[:3])
    sigma = 4 / np.sqrt(8 * np.log(2)) / zooms
    kernel = 1
    for axis, width in enumerate(sigma):
        steps = np.exp(-0.5 * (np.arange(-1, 2) / width) ** 2)
        kernel = kernel * np.expand_dims(steps / steps.sum(), [a for a in range(3) if a != axis])

    def smooth(values):
        volume = np.zeros(mask.shape)
        volume[mask] = values
        parts = [ndimage.convolve(v, kernel, mode="constant") for v in (volume, mask.astype(float))]
        return (parts[0] / np.maximum(parts[1], 1e-9))[mask]

    weighted = bvals > 50
    regional = noise_of(np.stack([smooth(v) for v in acquired[mask].T], axis=1)[:, weighted], bvecs[weighted], mask)
    voxels, areas = [], []
    for shell in (~weighted, weighted):
        seen = np.einsum("ai,bj,ck,ijk->abc", *weights, restored[..., shell].mean(axis=-1), optimize=True)
        difference = (seen - acquired[..., shell].mean(axis=-1))[mask] * np.sqrt(shell.sum())
        voxels.append(difference / noise)
        areas.append(smooth(difference) / regional)
    return np.stack(voxels, axis=1), np.stack(areas, axis=1)


def test_the_map_of_the_departure_is_that_of_the_series(folder, mask, departed):
    told = published(folder, "desc-departure_dwimap")[mask]
    np.testing.assert_allclose(told, departed[1], rtol=1e-4, atol=1e-3)


def test_numbers_of_the_departure_are_those_of_the_map(folder, record, page, mask, departed):
    told = record["departure"]["sr"]
    single, _ = departed
    assert told["voxels"] == mask.sum()
    assert told["share"] == pytest.approx(np.mean(np.abs(single).max(axis=1) > 3), abs=1e-6)
    saved = published(folder, "desc-departure_dwimap")
    assert told["region_share"] == pytest.approx(np.mean(np.abs(saved[mask]).max(axis=1) > 3), abs=1e-6)
    assert told["expected"] == pytest.approx(2 * stats.norm.sf(3))
    assert told["expected_in_any"] == pytest.approx(1 - (1 - 2 * stats.norm.sf(3)) ** 2)
    for shell, (row, n) in enumerate(zip(told["shells"], (2, 26), strict=True)):
        z = single[:, shell]
        assert (row["volumes"], row["b"]) == (n, 1000.0 * shell)
        assert row["share"] == pytest.approx(np.mean(np.abs(z) > 3), abs=1e-6)
        assert row["region_share"] == pytest.approx(np.mean(np.abs(saved[mask][:, shell]) > 3), abs=1e-6)
        assert row["excess"] == pytest.approx(np.sqrt(max(np.mean(z**2) - 1, 0) / n), rel=1e-3)
        assert f"{100 * row['share']:.1f} %" in page and f"{row['excess']:.3f}" in page
    assert f"in {told['share']:.1%} of the brain's voxels" in page
    worst = told["regions"][0]
    place = np.unravel_index(np.abs(saved).argmax(), saved.shape)
    assert worst["voxel"] == [int(i) for i in place[:3]] and worst["b"] == 1000.0 * place[3]
    assert worst["z"] == pytest.approx(saved[place], abs=0.0051)
    affine = image(folder, "raw/*/dwi/*_dwi.nii.gz").affine
    np.testing.assert_allclose(worst["centre_mm"], (affine @ [*place[:3], 1])[:3], atol=0.051)
    sign = np.sign(saved[place])
    labels, _ = ndimage.label(sign * saved[..., place[3]] >= max(3, abs(saved[place]) / 2))
    assert worst["voxels"] == np.sum(labels == labels[place[:3]])
    assert f"{worst['voxels']} voxels, {worst['z']:+.1f} standard errors" in page


# Uncertainty


def test_numbers_of_the_uncertainty_are_those_of_the_maps(folder, record, page, bvals):
    fine = published(folder, "res-*_desc-brain_mask") > 0
    deviations, restored = (published(folder, f"res-*_desc-{name}")[fine] for name in ("uncertainty_dwimap", "sr_dwi"))
    weighted = bvals > 50
    medians = {
        "dwi": np.median(deviations[:, weighted].mean(axis=1)) / np.median(restored[:, weighted].mean(axis=1)),
        "fa": np.median(published(folder, "res-*_desc-uncertainty_FA")[fine]),
        "md": np.median(published(folder, "res-*_desc-uncertainty_ADC")[fine]),
    }
    assert record["uncertainty"]["medians"] == pytest.approx(medians, rel=1e-4)
    shown = f"{100 * medians['dwi']:.0f} % of the typical weighted signal, {medians['fa']:.3f} in FA"
    assert shown in page and f"{1000 * medians['md']:.3f} x 10^-3 mm2/s in MD" in page


def test_deviations_of_the_tensor_are_those_of_tensors_of_drawn_signals(folder, bvals, bvecs):
    """Signals drawn with the published deviations, errors shared as the card says, fitted by DIPY."""
    fine = published(folder, "res-*_desc-brain_mask") > 0
    chosen = np.zeros_like(fine)
    chosen[tuple(np.argwhere(fine)[::9].T)] = True
    deviations, restored = (published(folder, f"res-*_desc-{name}") for name in ("uncertainty_dwimap", "sr_dwi"))
    random, shared, weighted = np.random.default_rng(0), 0.4, bvals > 50
    drawn = []
    for _ in range(60):
        error = np.sqrt(1 - shared) * random.standard_normal(restored.shape)
        for group in (weighted, ~weighted):
            error[..., group] += np.sqrt(shared) * random.standard_normal((*fine.shape, 1))
        fa, md, _ = tensor_of(restored + deviations * error, bvals, bvecs, chosen)
        drawn.append((fa[chosen], md[chosen]))
    for number, suffix in enumerate(("FA", "ADC")):
        told = published(folder, f"res-*_desc-uncertainty_{suffix}")[chosen]
        found = np.std([draw[number] for draw in drawn], axis=0)
        assert np.median(told / found) == pytest.approx(1, abs=0.15)


# Self-check


@pytest.fixture(scope="module")
def checked(tmp_path_factory, folder):
    """The published table of the self-check of trilinear interpolation, the record's part and the report's words."""
    out = tmp_path_factory.mktemp("trilinear")
    words = [str(folder / "raw"), str(out / "out"), "participant", "-w", str(out / "work"), "--nprocs", "1"]
    assert main([*words, "--scale", SCALE, "--model", "trilinear", "--device", "cpu", "--no-t1w"]) == 0
    return out


def resampled(volume, factors, order, shape):
    """A volume at the centres of finer cells of the same box, clamped to the outermost of its centres."""
    axes = [
        np.clip((np.arange(n) + 0.5) / f - 0.5, 0, m - 1) for n, f, m in zip(shape, factors, volume.shape, strict=True)
    ]
    return ndimage.map_coordinates(volume, np.meshgrid(*axes, indexing="ij"), order=order, mode="mirror")


def test_numbers_of_the_self_check_are_those_of_the_scan_degraded_and_restored(
    folder, checked, acquired, bvals, bvecs, mask
):
    (file,) = checked.glob("out/sub-01/figures/*_desc-record.json")
    told = json.loads(file.read_text())["self_check"]
    table = {(row["measure"], row["tissue"]): row for row in told["rows"]}
    factors = np.array(told["scale"])
    low_shape = np.rint(mask.shape / factors).astype(int)
    factors = mask.shape / low_shape
    zooms = image(folder, "raw/*/dwi/*_dwi.nii.gz").header.get_zooms()[:3]
    np.testing.assert_allclose(told["voxel_sizes"], zooms * factors, atol=1e-3)
    chosen = np.array(told["volumes"])
    truth, b, vectors = acquired[..., chosen], bvals[chosen], bvecs[chosen]
    weighted = b > 50
    assert (told["n_b0"], told["n_weighted"]) == ((~weighted).sum(), weighted.sum()) == (2, 12)
    psf = []
    for n, n_low, factor in zip(mask.shape, low_shape, factors, strict=True):
        distance = np.arange(n)[None] - ((np.arange(n_low) + 0.5) * factor - 0.5)[:, None]
        gaussian = np.exp(-4 * np.log(2) * (distance / factor) ** 2)
        psf.append(gaussian / gaussian.sum(axis=1, keepdims=True))
    low = np.einsum("ai,bj,ck,ijkn->abcn", *psf, truth, optimize=True)
    series = {
        name: np.stack([np.maximum(resampled(v, factors, order, mask.shape), 0) for v in np.moveaxis(low, -1, 0)], -1)
        for name, order in (("cubic", 3), ("sr", 1))
    }
    true_maps = tensor_of(truth, b, vectors, mask)
    for method, restored in series.items():
        maps = tensor_of(restored, b, vectors, mask)
        ratios, similarities = [], []
        for index in np.flatnonzero(weighted):
            inside = truth[..., index][mask]
            squared = np.mean((restored[..., index][mask] - inside) ** 2)
            ratios.append(10 * np.log10(np.ptp(inside) ** 2 / squared))
            similarity = structural_similarity(
                truth[..., index], restored[..., index], win_size=7, data_range=np.ptp(inside), full=True
            )[1]
            similarities.append(similarity[mask].mean())
        cosine = np.abs((true_maps[2] * maps[2]).sum(axis=-1))[mask & (true_maps[0] > 0.3)]
        expected = {
            "PSNR": np.mean(ratios),
            "SSIM": np.mean(similarities),
            "FA": np.abs(maps[0] - true_maps[0])[mask].mean(),
            "MD": np.abs(maps[1] - true_maps[1])[mask].mean(),
            "V1": np.median(np.degrees(np.arccos(np.clip(cosine, 0, 1)))),
        }
        for measure, value in expected.items():
            assert table[measure, "brain"][method] == pytest.approx(value, rel=0.03), (measure, method)
    better = {m: row["closer"] for (m, tissue), row in table.items() if tissue == "brain"}
    page = (checked / "out/sub-01.html").read_text()
    assert told["sentence"] in unescape(page)
    assert ("did not help" in told["sentence"]) == ("sr" not in better.values())
    for row in table.values():
        assert f"{row['n_voxels']:,} voxels" in page


def test_the_table_of_the_self_check_is_that_of_the_record_and_of_the_report(checked):
    (file,) = checked.glob("out/sub-01/figures/*_desc-record.json")
    rows = json.loads(file.read_text())["self_check"]["rows"]
    heading, *lines = [
        line.split("\t") for line in next(checked.glob("out/*/dwi/*selfcheck_stats.tsv")).read_text().splitlines()
    ]
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        for name, cell in zip(heading, line, strict=True):
            is_text = isinstance(row[name], str)
            assert cell == row[name] if is_text else float(cell) == pytest.approx(row[name], rel=1e-5)
    text = (checked / "out/sub-01.html").read_text()
    table = text[text.index("Self-check by tissue") :]
    shown = [
        " ".join(re.sub(r"<[^>]+>", " ", unescape(cell)).split())
        for cell in re.findall(r"<td[^>]*>(.*?)</td>", table[: table.index("</table>")], flags=re.DOTALL)
    ]
    wanted = [row[method] * (1000 if row["measure"] == "MD" else 1) for row in rows for method in ("cubic", "sr")]
    assert len(shown) == len(wanted)
    for cell, value in zip(shown, wanted, strict=True):
        assert float(cell) == pytest.approx(value, abs=0.501 * 10 ** -len(cell.partition(".")[2]))
