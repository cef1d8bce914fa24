"""Which figures land in which cell."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.table_layout import (
    LIGHT_PRESETS,
    SCALES,
    TABLES,
    Cost,
    figure_table,
    groups,
    order_found,
    over_seeds,
    overview_table,
    published_table,
    read_published,
    signal_table,
)
from bids_sr.models.grid import NETWORKS as NETWORKS_ON_GRIDS
from bids_sr.models.registry import AT_TARGET, build_model, count_parameters, list_models
from bids_sr.training.settings import load_settings

FIGURES = (
    "psnr_mask", "ssim_mask", "psnr_volume", "ssim_volume", "fa_error", "md_error", "seconds_per_volume", "peak_gb"
)  # fmt: skip


def results(table, seeds=(0, 1, 2)):
    """A number of its own for each model and scale; seeds differ by one, so that their deviation is one too."""
    models = list(dict.fromkeys(name for method in table.methods for name in method.models.values()))
    return {
        (model, seed, scale): dict.fromkeys(FIGURES, 10.0 * place + scale + seed)
        for place, model in enumerate(models)
        for scale in SCALES
        for seed in (seeds if model != "cubic" else (0,))
    }


def cells(markdown, label):
    """The cells of the row of a method."""
    (line,) = [line for line in markdown.splitlines() if line.startswith(f"| {label} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_fixed_networks_serve_other_scales_by_the_3x_one_and_the_fair_row_asks_for_the_scale_itself():
    methods = {method.label: method.models for method in TABLES["1"].methods}
    assert methods["DCSRN"] == {2.0: "dcsrn_2x", 3.0: "dcsrn_3x", 4.0: "dcsrn_3x", 2.4: "dcsrn_3x"}
    fair = methods["DCSRN, asked for the scale itself"]
    assert fair == {2.0: "dcsrn_2x", 3.0: "dcsrn_3x", 4.0: "dcsrn_3x@target", 2.4: "dcsrn_3x@target"}
    assert set(methods["CSR-dMRI"].values()) == {"csr_dmri"}


def test_a_cell_is_mean_and_deviation_over_seeds():
    table = TABLES["1"]
    figures = results(table)
    assert over_seeds(table.methods[1], 2.0, figures).mean("psnr_mask") == 10 + 2 + 1
    assert cells(figure_table(table, figures, "fa_error", 1), "DCSRN")[0] == "13.0 ± 1.0"
    assert cells(figure_table(table, figures, "fa_error", 1, 10), "DCSRN")[0] == "130.0 ± 10.0"
    assert cells(signal_table(table, figures, "mask"), "Bicubic") == [f"{s:.2f} / {s:.3f}" for s in SCALES]


def test_the_overview_has_costs_and_all_scales_in_a_row():
    table = TABLES["1"]
    costs = {"dcsrn_2x": Cost(1000, 5.4), "dcsrn_3x": Cost(2000, 6.0), "csr_dmri": Cost(3000)}
    text = overview_table(table, results(table, seeds=(0,)), costs)
    signals = ["12.00 / 12.000", "23.00 / 23.000", "24.00 / 24.000", "22.40 / 22.400"]
    errors = ["12.0000", "120000.000", "12.0", "12.0"]
    assert cells(text, "DCSRN") == ["1,000 + 2,000", "5 + 6", *signals, *errors]
    # What the table did not train has no time of training, what learns nothing no parameters either.
    assert cells(text, "CSR-dMRI")[:2] == ["3,000", "–"]
    assert cells(text, "Bicubic")[:2] == ["–", "–"]
    assert cells(overview_table(table, {}, {}), "ArSSR")[2:] == ["– / –"] * 4 + ["–"] * 4


def test_what_was_not_tested_is_a_dash():
    table = TABLES["1"]
    only_cubic = {key: value for key, value in results(table).items() if key[0] == "cubic"}
    assert cells(signal_table(table, only_cubic, "volume"), "ArSSR") == ["– / –"] * 4
    assert cells(published_table(table, only_cubic), "ArSSR") == ["–"] * 8
    assert {group.model for group in groups(table, only_cubic)} == {"Bicubic"}


def test_published_figures_stand_beside_ours():
    shown = cells(published_table(TABLES["1"], results(TABLES["1"])), "CSR-dMRI")
    assert shown[1::2] == ["27.36 / 0.946", "26.08 / 0.924", "24.51 / 0.875", "27.12 / 0.941"]
    assert cells(published_table(TABLES["1"], {}), "Bicubic")[1::2][0] == "25.89 / 0.908"


def test_the_papers_gains_over_bicubic_are_those_of_its_printed_figures():
    published = read_published()
    gains = [published["csr_dmri"][scale][0] - published["bicubic"][scale][0] for scale in (2.0, 2.4, 3.0, 4.0)]
    np.testing.assert_allclose(gains, [1.5, 2.5, 2.4, 1.8], atol=0.05)


def test_the_order_is_told_either_way():
    table = TABLES["1"]
    rising = results(table)
    lines = order_found(table, rising).splitlines()
    assert lines[0] == "- 2x: CSR-dMRI > ArSSR > ResCNN3D > DCSRN > Bicubic (the paper's order)"
    falling = {key: {"psnr_mask": -figures["psnr_mask"]} for key, figures in rising.items()}
    assert order_found(table, falling).splitlines()[0].endswith("CSR-dMRI (not the paper's order)")
    # An order is only compared where there is one in print.
    assert "paper" not in order_found(TABLES["2"], results(TABLES["2"]))


NETWORKS = sorted({name for table in TABLES.values() if not table.full_size for name in table.trained})
PAPERS = sorted({name for key in ("1", "2", "literal") for name in TABLES[key].trained})
FAMILIES = sorted(set(NETWORKS) - set(PAPERS))


def test_every_network_of_a_table_has_a_preset_and_no_light_preset_is_left_over():
    assert [path.stem for path in sorted(LIGHT_PRESETS.glob("*.toml"))] == NETWORKS
    for table in TABLES.values():
        assert all((table.presets / f"{name}.toml").is_file() for name in table.trained)
        assert not any(name.endswith(AT_TARGET) for name in table.trained)


def settings_of(name):
    """The settings of a network's light preset."""
    return load_settings(str(LIGHT_PRESETS / f"{name}.toml"))


def test_all_networks_have_one_budget():
    assert len({settings_of(name).optimization for name in PAPERS}) == 1
    # Families differ in what their method asks for, not in how long they learn.
    free = {"learning_rate": 1e-4, "ema": 0.0, "batch_size": 4, "validate_every": 500}
    assert len({replace(settings_of(name).optimization, **free) for name in NETWORKS}) == 1


@pytest.mark.parametrize("name", FAMILIES)
def test_families_see_all_scales_of_the_table_and_no_more_than_the_others(name):
    settings = settings_of(name)
    assert settings.patches.scale_range == (min(SCALES), max(SCALES))
    assert "scale" not in settings.model
    voxels = settings.optimization.batch_size * settings.patches.patch**3
    assert voxels <= 4 * settings_of("csr_dmri").patches.patch ** 3
    # A tensor needs b0 and weighted volumes of each place; the others have one volume of each.
    assert settings.patches.volumes == (settings.optimization.batch_size if settings.loss.tensor else 0)


def test_the_rows_of_the_families_are_architectures_of_the_registry_or_models_that_are_ready():
    table = TABLES["families"]
    trained = {settings_of(name).architecture for name in table.trained}
    ready = {name for method in table.methods for name in method.models.values()} - set(table.trained)
    assert trained == {*NETWORKS_ON_GRIDS, "csr_dmri"} - {"rdn"}
    # Trilinear interpolation is the only one that is left out.
    assert ready == set(list_models()) - {"trilinear"}


def test_a_family_is_told_from_its_variants_by_one_thing():
    plain, tensor, adversarial = (settings_of(name) for name in ("unet3d", "unet3d_tensor", "unet3d_adversarial"))
    assert plain.model == tensor.model == adversarial.model
    assert adversarial.adversarial.start_after == plain.optimization.max_steps / 2
    alike = {"adversarial": None, "description": ""}
    assert replace(adversarial, **alike) == replace(plain, **alike)
    strong = settings_of("unet3d_adversarial_strong")
    assert strong.adversarial.weight == 20 * adversarial.adversarial.weight
    assert replace(strong.adversarial, weight=0.01, start_after=250) == adversarial.adversarial
    assert replace(strong, adversarial=None) == replace(adversarial, adversarial=None)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_of_one_size_and_see_the_same_geometry(name):
    settings = settings_of(name)
    with torch.device("meta"):
        parameters = count_parameters(build_model(settings.architecture, settings.model, len(settings.inputs)))
    # Attention takes longer than convolutions of as many parameters.
    assert (0.4e6 if name == "swin3d" else 0.7e6) < parameters < (0.9e6 if name in PAPERS else 0.86e6)
    assert settings.patches.points == 0
    assert settings.patches.noise_share == 0
    literal = name == "csr_dmri_literal"
    assert settings.patches.profiles == (("bicubic",) if literal else ("gaussian",))
    assert settings.normalization == ("b0" if literal else "shell")
    if name[-2:] in ("2x", "3x"):
        scale = int(name[-2])
        assert settings.model["scale"] == scale
        assert settings.patches.scale_range == (scale, scale)
        assert settings.patches.patch * scale in (20, 21)


@pytest.mark.parametrize("name", ["1", "2", "families", "paper1", "paper2"])
def test_networks_are_tested_by_the_degradation_that_they_learned_from(name):
    table = TABLES[name]
    for network in table.trained:
        assert load_settings(str(table.presets / f"{network}.toml")).patches.profiles == (table.profile,), network
