"""Settings are understood or refused, key by key."""

import dataclasses
import json

import pytest

from bids_sr.errors import BidsSrError, ModelCardError, SignalError, TrainingDataError
from bids_sr.models.registry import build_model, count_parameters, list_presets, read_card
from bids_sr.training.patches import PatchSettings
from bids_sr.training.settings import Adversarial, Loss, Optimization, TrainingSettings, load_settings

#: Parameters of the published networks (Wu et al. 2024, 2022; Chen et al. 2018; Du et al. 2020).
PUBLISHED = {
    "csr_dmri_paper": 6_285_188, "m2": 6_285_188, "m1": 6_283_460, "m3": 6_283_460, "arssr": 6_283_460,
    "arssr_zoom": 6_283_460,
    "dcsrn_2x": 223_633, "dcsrn_3x": 223_633, "rescnn3d_2x": 1_995_329, "rescnn3d_3x": 1_995_329, "light": 840_161,
}  # fmt: skip
#: Networks of other families, widened or narrowed to about the size of `light`.
FAMILIES = ("srcnn3d", "vdsr3d", "mdcsrn", "unet3d", "swin3d")


@pytest.mark.parametrize("name", list_presets())
def test_every_preset_is_understood_and_described(name):
    settings = load_settings(name)
    assert settings.description.endswith(".")
    assert settings.description.count(". ") <= 1
    assert read_card(name).description == settings.description or name == "light"


@pytest.mark.parametrize(("name", "parameters"), PUBLISHED.items())
def test_networks_are_as_large_as_published(name, parameters):
    settings = load_settings(name)
    assert count_parameters(build_model(settings.architecture, settings.model, len(settings.inputs))) == parameters


def test_arssr_as_published_differs_in_its_degradation_alone():
    one, published = load_settings("arssr"), load_settings("arssr_zoom")
    assert published.patches.profiles == ("zoom",)
    patches = dataclasses.replace(published.patches, profiles=("bicubic",))
    assert dataclasses.replace(published, description=one.description, patches=patches) == one


def test_the_families_differ_in_their_networks_and_not_in_their_budget_or_data():
    presets = {name: load_settings(name) for name in FAMILIES}
    for name, preset in presets.items():
        assert preset.architecture == name
        assert (preset.inputs, preset.normalization) == (("volume", "t1w"), "shell")
        assert 0.75e6 < read_card(name).parameters < 0.87e6
    assert len({(repr(preset.patches), repr(preset.loss)) for preset in presets.values()}) == 1
    assert len({dataclasses.replace(preset.optimization, learning_rate=1.0) for preset in presets.values()}) == 1


def test_the_paper_is_trained_as_the_paper_says():
    """Wu et al. 2024: Adam, 1e-4 halved every 200 of 1,000 epochs of 70 steps, 9 patches of 10^3 each, U(2, 3)."""
    paper = load_settings("paper")
    assert paper == load_settings("csr_dmri_paper")
    assert paper.inputs == ("volume", "t1w")
    assert paper.loss == Loss(l1=1, fourier=0.01, fourier_norm="backward")
    options = paper.optimization
    assert (options.max_steps, options.halve_every, options.batch_size) == (1000 * 70, 200 * 70, 9)
    assert (options.learning_rate, options.schedule, options.betas) == (1e-4, "halving", (0.9, 0.999))
    patches = paper.patches
    assert (patches.patch, patches.points, patches.scale_range, patches.scale_spacing) == (10, 0, (2, 3), "uniform")
    assert patches.profiles == ("bicubic",)


@pytest.mark.parametrize(
    ("name", "architecture", "t1w", "fourier"),
    [
        ("baseline", "rdn", False, 0), ("m1", "csr_dmri", False, 0), ("m2", "csr_dmri", True, 0),
        ("m3", "csr_dmri", False, 0.01), ("m2_literal", "rdn", True, 0), ("m3_literal", "rdn", False, 0.01),
        ("csr_dmri_paper", "csr_dmri", True, 0.01),
    ],
)  # fmt: skip
def test_ablations_differ_from_the_paper_in_what_they_leave_out_only(name, architecture, t1w, fourier):
    settings, paper = load_settings(name), load_settings("paper")
    assert (settings.architecture, "t1w" in settings.inputs, settings.loss.fourier) == (architecture, t1w, fourier)
    assert (settings.patches, settings.optimization) == (paper.patches, paper.optimization)
    assert settings.normalization == paper.normalization


def test_the_light_model_stays_what_it_was():
    card, settings = read_card("light"), load_settings("light")
    assert (card.architecture, card.inputs, card.normalization) == ("csr_dmri", settings.inputs, settings.normalization)
    assert card.arguments == settings.model | {"spread": True}
    recipe = json.loads(json.dumps(dataclasses.asdict(settings.patches)))
    trained = {key: value for key, value in card.training["patches"].items() if key != "isotropic_share"}
    assert {key: recipe[key] for key in trained} == trained


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[patches]\npatsh = 3", "[patches]: unknown key patsh"),
        ("[modle]", "unknown key modle"),
        ("[model]\nwidth = 3", "width"),
        ("[model]\nfeatures = -3", "csr_dmri"),
        ("[optimization]\nmax_step = 3", "[optimization]: unknown key max_step"),
        ('[optimization]\nmax_steps = "many"', "max_steps = 'many' is not a whole number"),
        ("[optimization]\nmax_steps = 2.5", "max_steps = 2.5 is not a whole number"),
        ("[optimization]\nmax_steps = true", "max_steps = True is not a whole number"),
        ("[optimization]\nmax_steps = 0", "max_steps = 0 is not positive"),
        ("[optimization]\nlearning_rate = -1", "learning_rate"),
        ("[optimization]\nlearning_rate = nan", "[optimization]: learning_rate = nan is not finite"),
        ("[loss]\nfourier = nan", "[loss]: fourier = nan is not finite"),
        ("[adversarial]\npenalty = nan", "[adversarial]: penalty = nan is not finite"),
        ("[patches]\nnoise_range = inf", "[patches]: noise_range = inf is not finite"),
        ("[patches]\nscale_range = [1.5, inf]", "scale_range = [1.5, inf] is not finite"),
        ("[patches.guide]\nmade = nan", "[guide]: made = nan is not finite"),
        ("[model]\nhidden = nan", "[model]: hidden = nan is not finite"),
        ("[optimization]\nbetas = [0.9]", "betas = [0.9] is not a list of 2 numbers"),
        ('[optimization]\nprecision = "64"', "one of 32-true, bf16-mixed, 16-mixed"),
        ('[optimization]\nschedule = "halving"', "halve_every"),
        ("[optimization]\nema = 1.0", "ema"),
        ('[optimization]\nfreeze_encoder = "no"', "true or false"),
        ('architecture = "dcsrn"\n[optimization]\nfreeze_encoder = true\n[patches]\npoints = 0', "no encoder"),
        ("[loss]\nl1 = -1", "[loss]"),
        ("[loss]\nl1 = 0", "not all zero"),
        ("[loss]\nfourier = 0.01", "points = 0"),
        ("[loss]\nssim = 0.1", "the ssim term needs whole patches: points = 0"),
        ("[loss]\nssim = 0.1\n[patches]\npoints = 0\npatch = 5", "fine patches of 7 voxels and more"),
        ("[loss]\nssim = -0.1", "[loss]"),
        ("[loss.perceptual]\nweight = 0.1", "needs weights, the path of a file"),
        ('[loss.perceptual]\nweights = "x"\nweight = 0', "leave the table out"),
        ('[loss.perceptual]\nweights = "x"\nlayer = "1_1"', "one of 1_2, 2_2, 3_4, 4_4, 5_4"),
        ('[loss.perceptual]\nweights = "x"', "the perceptual term needs whole patches: points = 0"),
        ("[loss]\nperceptual = 0.1", "perceptual = 0.1 is not a table"),
        ("[loss]\ntensor = 0.1", "the tensor term needs places in several volumes: volumes = 7 and more"),
        ("[patches]\nvolumes = 6", "volumes = 6 cannot be used"),
        ("[patches]\nvolumes = 7\n[optimization]\nbatch_size = 12", "batch_size = 12 is no multiple of volumes = 7"),
        ("[adversarial]\nweight = 0.01", "[adversarial]: a discriminator needs whole patches: points = 0"),
        ("[adversarial]\nweight = 0", "leave the table out"),
        ("[adversarial]\nsteps = 0", "steps = 0 is not positive"),
        ("[adversarial]\nbetas = [0.5, 1.0]", "betas"),
        ('[adversarial]\nloss = "hinge"', "one of bce, least-squares, wasserstein-gp"),
        ("[adversarial]\nstart = 3", "[adversarial]: unknown key start"),
        ("adversarial = true", "adversarial = True is not a table"),
        ('architecture = "rdn"', "points = 0"),
        ('architecture = "gan"', "gan"),
        ('inputs = ["b0"]', "volume"),
        ("inputs = [1]", "a list, each a text"),
        ('inputs = "volume"', "a list, each a text"),
        ('normalization = "none"', "none"),
        ("loss = 3", "a table"),
        ("model = 3", "a table"),
        ("[patches]\nsimulated_share = 'half'", "a number or left out"),
        ("not toml", "line 1"),
        (None, "No such file"),
    ],
)
def test_other_presets_are_refused_in_one_line_that_names_key_and_file(tmp_path, text, message):
    file = tmp_path / "x.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(TrainingDataError) as caught:
        load_settings(str(file))
    assert message in str(caught.value)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_is_refused():
    with pytest.raises(TrainingDataError, match="preset heavy"):
        load_settings("heavy")


def test_values_given_instead_are_checked_too():
    assert load_settings("toy", {"max_steps": 7}).optimization.max_steps == 7
    with pytest.raises(TrainingDataError, match="precision"):
        load_settings("toy", {"precision": "half"})


@pytest.mark.parametrize(
    "parts",
    [{"architecture": "rdn"}, {"loss": Loss(fourier=1.0)}, {"inputs": ("t1w",)}, {"model": {"features": "wide"}}],
)
def test_parts_that_do_not_fit_are_refused_without_a_file_too(parts):
    with pytest.raises((TrainingDataError, SignalError, ModelCardError)):
        TrainingSettings(**parts)


def test_a_table_of_a_discriminator_is_understood(tmp_path):
    file = tmp_path / "x.toml"
    file.write_text('[patches]\npoints = 0\n[adversarial]\nloss = "least-squares"\ndiscriminator = "patch"\nsteps = 2')
    assert load_settings(str(file)).adversarial == Adversarial(loss="least-squares", discriminator="patch", steps=2)
    assert load_settings("toy").adversarial is None


def test_whole_numbers_pass_for_numbers():
    settings = TrainingSettings(patches=PatchSettings(), optimization=Optimization(learning_rate=1))
    assert dataclasses.asdict(settings)["optimization"]["learning_rate"] == 1
    assert issubclass(TrainingDataError, BidsSrError)
