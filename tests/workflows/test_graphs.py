"""The graph holds the stages that the series needs, and the scheduler sees what each takes."""

import dataclasses
import re

import nibabel as nib
import numpy as np
import pytest
from nipype.interfaces.base import isdefined
from nipype.pipeline.engine.utils import generate_expanded_graph

from bids_sr.geometry import Grid, target_grid
from bids_sr.models.registry import CUBIC
from bids_sr.workflows.memory import peak_gb
from bids_sr.workflows.participant import _sidecar_fields, init_participant_wf
from bids_sr.workflows.plan import opening_record

TRAINED = dataclasses.replace(CUBIC, name="trained", scale_range=(1.0, 4.0))


def stages(plan):
    """Nodes of the expanded graph by name, without those that only gather."""
    workflow = init_participant_wf([plan], [opening_record(plan, "2026-01-01")])
    workflow.base_dir = "/nowhere"
    graph = generate_expanded_graph(workflow._create_flat_graph())
    return {f"{node._hierarchy}.{node.name}".split(".", 2)[2]: node for node in graph.nodes()}


def test_a_series_with_a_t1w_is_registered_restored_interpolated_fitted_saved_and_recorded(make_plan):
    names = set(stages(make_plan(TRAINED)))
    assert {
        "preprocess.gradients",
        "preprocess.register",
        "super_resolution.restore",
        "super_resolution.cubic",
        "tensor.fit_acquired",
        "tensor.fit_sr",
        "tensor.fit_cubic",
        "derivatives.save_sr",
        "derivatives.save_t1w",
        "figures",
        "record",
    } <= names
    assert "tensor.fit_truth" not in names
    assert "derivatives.save_cubic" not in names


def test_the_interpolation_is_saved_when_asked_for(make_plan):
    assert "derivatives.save_cubic" in stages(make_plan(TRAINED, options={"save_cubic": True}))


def test_the_tensor_is_kept_and_saved_when_asked_for(make_plan):
    plain = stages(make_plan(TRAINED))
    assert not {"derivatives.save_tensor_orig", "derivatives.save_tensor_sr"} & set(plain)
    assert not plain["tensor.fit_sr"].inputs.keep_elements
    asked = stages(make_plan(TRAINED, options={"save_tensor": True}))
    assert asked["tensor.fit_acquired"].inputs.keep_elements and asked["tensor.fit_sr"].inputs.keep_elements
    names = [name.rpartition("/")[2] for name in asked["derivatives.save_tensor_sr"].inputs.out_files]
    assert names[0].endswith("_model-tensor_param-tensor_desc-sr_dwimap.nii.gz")
    assert [re.search("param-(.*?)_", name)[1] for name in names] == ["tensor", "evals", "evecs"]
    assert "derivatives.save_tensor_cubic" not in asked
    both = stages(make_plan(TRAINED, options={"save_tensor": True, "save_cubic": True}))
    assert "derivatives.save_tensor_cubic" in both


def test_interpolation_as_the_model_is_computed_once(make_plan):
    names = set(stages(make_plan()))
    assert "super_resolution.cubic" not in names
    assert "tensor.fit_cubic" not in names


@pytest.mark.parametrize("parts", [{"t1w": None}, {"t1w_is_aligned": True}])
def test_a_t1w_that_is_absent_or_aligned_is_not_registered(make_plan, parts):
    names = set(stages(make_plan(**parts)))
    assert "preprocess.register" not in names
    assert "derivatives.save_t1w" not in names


def test_an_aligned_t1w_is_used_where_a_registered_one_would_be(make_plan):
    plan = make_plan(t1w_is_aligned=True)
    nodes = stages(plan)
    assert nodes["tensor.compare"].inputs.t1w_file == str(plan.series.t1w)
    assert nodes["figures"].inputs.t1w_file == str(plan.series.t1w)


GUIDED = dataclasses.replace(TRAINED, inputs=("volume", "t1w"))


@pytest.mark.parametrize("n_volumes", [8, 65, 400])
@pytest.mark.parametrize("options", [{}, {"save_tensor": True}, {"self_check": False}])
@pytest.mark.parametrize("side", [20, 100])
def test_the_memory_told_is_that_of_the_largest_stage(make_plan, n_volumes, options, side):
    plan = make_plan(GUIDED, options={"memory_gb": 1e3, **options})
    source = Grid((side, side, side), np.diag([-2.0, 2.0, 3.0, 1.0]))
    large = dataclasses.replace(
        plan, source=source, target=source.scaled(np.full(3, 2.0)), n_volumes=n_volumes, t1w_shape=(200, 200, 200)
    )
    assert peak_gb(large) == pytest.approx(max(node.mem_gb for node in stages(large).values()))


def feeds(plan, source, target):
    """Which outputs of one stage are which inputs of another."""
    workflow = init_participant_wf([plan], [opening_record(plan, "2026-01-01")])
    workflow.base_dir = "/nowhere"
    graph = generate_expanded_graph(workflow._create_flat_graph())
    edges = graph.edges(data=True)
    return [pair for a, b, data in edges if (a.name, b.name) == (source, target) for pair in data["connect"]]


def test_the_registered_t1w_and_its_agreement_reach_a_model_that_uses_them(make_plan):
    plan = make_plan(GUIDED)
    assert set(feeds(plan, "register", "restore")) == {("t1w_file", "t1w_file"), ("summary", "registration")}
    assert feeds(plan, "register", "cubic") == []
    assert ("t1w", "t1w") in feeds(plan, "restore", "record")


def test_a_model_that_does_not_use_the_t1w_need_not_wait_for_it(make_plan):
    assert feeds(make_plan(TRAINED), "register", "restore") == []


def test_an_aligned_t1w_guides_the_model_as_it_is(make_plan):
    plan = make_plan(GUIDED, t1w_is_aligned=True)
    node = stages(plan)["super_resolution.restore"]
    assert node.inputs.t1w_file == str(plan.series.t1w)
    assert not isdefined(node.inputs.registration)


def test_without_a_t1w_a_model_that_uses_it_gets_none(make_plan):
    node = stages(make_plan(GUIDED, t1w=None))["super_resolution.restore"]
    assert not isdefined(node.inputs.t1w_file)


def test_a_given_mask_reaches_its_stage(make_plan, series, tmp_path):
    acquired = nib.load(series.dwi)
    mask = tmp_path / "in" / "sub-01" / "dwi" / "mask.nii"
    nib.Nifti1Image(np.ones(acquired.shape[:3], np.uint8), acquired.affine).to_filename(mask)
    assert stages(make_plan(mask=mask))["preprocess.mask"].inputs.given_file == str(mask)


def test_only_the_network_takes_the_gpu_and_only_one_slot_of_it(make_plan):
    nodes = stages(make_plan(TRAINED, device="cuda:0", options={"nprocs": 8, "omp_nthreads": 8}))
    on_gpu = {name: node.n_procs for name, node in nodes.items() if node.is_gpu_node()}
    assert on_gpu == {"super_resolution.restore": 1}
    assert nodes["super_resolution.cubic"].inputs.device == "cpu"


def test_no_node_asks_for_more_processors_than_there_are(make_plan):
    nodes = stages(make_plan(TRAINED, options={"nprocs": 2, "omp_nthreads": 8}))
    assert nodes["super_resolution.restore"].n_procs == 2
    assert nodes["super_resolution.restore"].inputs.num_threads == 2
    assert max(node.n_procs for node in nodes.values()) == 2


def test_memory_grows_with_the_target_grid(make_plan):
    small, large = (stages(make_plan(TRAINED, options={"scale": (factor,) * 3})) for factor in (1.0, 4.0))
    for name in ("super_resolution.restore", "tensor.fit_sr", "figures", "derivatives.save_sr"):
        assert small[name].mem_gb < large[name].mem_gb
    assert all(node.mem_gb > 0 for node in small.values())


def test_other_options_work_in_another_folder(make_plan):
    names = {make_plan(options={"scale": (factor,) * 3, "sloppy": sloppy}).workflow_name for factor, sloppy in
             [(1.5, False), (2.0, False), (2.0, True)]}  # fmt: skip
    assert len(names) == 3
    assert all(name.isidentifier() for name in names)


def with_grid(plan, shape):
    """The plan of a series with more voxels; its scale stays."""
    source = Grid(shape, plan.source.affine)
    target = target_grid(source, plan.config.output_resolution, plan.config.scale, "dwi")
    return dataclasses.replace(plan, source=source, target=target)


def test_the_series_is_checked_by_the_model_and_the_t1w_that_restored_it(make_plan):
    plan = with_grid(make_plan(GUIDED, options={"scale": (2.0, 1.0, 3.0)}), (24, 24, 20))
    node = stages(plan)["self_check"]
    assert node.inputs.scale == (2.0, 1.0, 1.0)
    assert node.inputs.model == plan.config.model
    assert node.mem_gb == plan.self_check_gb
    assert feeds(plan, "restore", "self_check") == [("t1w", "t1w")]
    assert feeds(plan, "compare", "self_check") == [("tissue_file", "tissue_file")]
    assert ("self_check", "self_check") in feeds(plan, "self_check", "record")
    assert feeds(plan, "self_check", "save_self_check") == [("rows", "rows")]
    assert stages(plan)["derivatives.save_self_check"].inputs.out_file.endswith("_desc-selfcheck_stats.tsv")


def test_without_the_check_nothing_of_it_is_there(make_plan):
    plan = with_grid(make_plan(TRAINED, options={"self_check": False}), (24, 24, 20))
    nodes = stages(plan)
    assert not {"self_check", "derivatives.save_self_check"} & set(nodes)
    assert not isdefined(nodes["record"].inputs.self_check)


@pytest.mark.parametrize(
    ("card", "shape", "options", "words"),
    [
        (CUBIC, (24, 24, 20), {}, "cubic interpolation itself"),
        (TRAINED, (14, 14, 14), {}, "fewer than 8 voxels"),
        (TRAINED, (24, 24, 20), {"scale": (1.0, 1.0, 1.0)}, "those acquired"),
    ],
)
def test_a_check_that_cannot_be_done_says_why_in_the_record(make_plan, card, shape, options, words):
    nodes = stages(with_grid(make_plan(card, options=options), shape))
    assert not {"self_check", "derivatives.save_self_check"} & set(nodes)
    part = nodes["record"].inputs.self_check
    assert not part["done"] and not part["failed"]
    assert words in part["reason"]


def test_a_check_for_which_memory_is_short_is_left_out(make_plan):
    plan = with_grid(make_plan(TRAINED), (200, 200, 200))
    assert plan.checks_itself
    poor = dataclasses.replace(plan, config=dataclasses.replace(plan.config, memory_gb=1.5))
    assert "of memory" in stages(poor)["record"].inputs.self_check["reason"]


def test_the_check_shares_the_gpu_with_the_restoration(make_plan):
    plan = with_grid(make_plan(TRAINED, device="cuda:0", options={"nprocs": 8, "omp_nthreads": 8}), (24, 24, 20))
    on_gpu = {name: node.n_procs for name, node in stages(plan).items() if node.is_gpu_node()}
    assert on_gpu == {"super_resolution.restore": 1, "self_check": 1}


def test_the_result_is_compared_with_the_scan_whatever_the_model_and_the_options(make_plan):
    for plan in (make_plan(), make_plan(TRAINED, options={"self_check": False})):
        assert ("departure", "departure") in feeds(plan, "guard", "record")
        assert feeds(plan, "guard", "save_departure") == [("departure_fields", "found")]
        assert feeds(plan, "guard", "gather_departure") == [("departure_file", "in1")]
        saved = stages(plan)["derivatives.save_departure"].inputs
        assert saved.out_files[0].endswith("/dwi/sub-01_desc-departure_dwimap.nii.gz")
        assert saved.optional
    assert feeds(make_plan(TRAINED), "cubic", "guard") == [("dwi_file", "cubic_file")]


def test_interpolation_is_not_compared_with_itself(make_plan):
    assert feeds(make_plan(), "restore", "guard") == [("dwi_file", "sr_file")]


def test_what_the_t1w_changed_is_tried_by_the_model_and_the_grid_of_the_run(make_plan):
    plan = make_plan(GUIDED)
    node, restore = stages(plan)["ablate"], stages(plan)["super_resolution.restore"]
    assert feeds(plan, "restore", "ablate") == [("t1w", "t1w")]
    assert feeds(plan, "register", "ablate") == []
    assert {"without_t1w_file", "without_t1w_volumes", "without_t1w_failure"} == {
        name for _, name in feeds(plan, "ablate", "guard")
    }
    for name in ("target_shape", "target_affine", "model", "device", "b0_threshold"):
        assert getattr(node.inputs, name) == getattr(restore.inputs, name)
    assert (node.mem_gb, node.n_procs) == (restore.mem_gb, restore.n_procs)
    names = [name.rpartition("sub-01_")[2] for name in stages(plan)["derivatives.save_t1w_effect"].inputs.out_files]
    assert names == [f"desc-t1weffect_{suffix}.nii.gz" for suffix in ("dwimap", "FA", "ADC")]


@pytest.mark.parametrize(
    ("card", "options", "parts"), [(TRAINED, {}, {}), (GUIDED, {}, {"t1w": None}), (GUIDED, {"self_check": False}, {})]
)
def test_without_a_t1w_or_the_wish_there_is_nothing_of_what_it_changed(make_plan, card, options, parts):
    nodes = stages(make_plan(card, options=options, **parts))
    assert not {"ablate", "derivatives.save_t1w_effect"} & set(nodes)


def test_a_guided_run_without_the_t1w_shares_the_gpu_too(make_plan):
    nodes = stages(make_plan(GUIDED, device="cuda:0", options={"nprocs": 8, "omp_nthreads": 8}))
    on_gpu = {name: node.n_procs for name, node in nodes.items() if node.is_gpu_node()}
    assert on_gpu == {"super_resolution.restore": 1, "ablate": 1}


def test_memory_of_the_guards_grows_with_both_grids(make_plan):
    small, large = (make_plan(GUIDED, options={"scale": (factor,) * 3}) for factor in (1.0, 4.0))
    assert stages(small)["guard"].mem_gb < stages(large)["guard"].mem_gb
    assert stages(small)["guard"].mem_gb < stages(with_grid(small, (64, 64, 40)))["guard"].mem_gb
    assert stages(make_plan(TRAINED))["guard"].mem_gb < stages(make_plan(GUIDED))["guard"].mem_gb


@pytest.mark.parametrize(
    ("t1w", "fields"),
    [
        ({}, {}),
        ({"used": True, "reason": ""}, {"T1wUsed": True}),
        (
            {"used": False, "reason": "it is blank"},
            {
                "T1wUsed": False,
                "T1wNotUsedBecause": "it is blank",
                "Warnings": ["The T1w image did not guide the model, which was given zeros in its place: it is blank."],
            },
        ),
    ],
)
def test_the_sidecar_of_the_restored_series_says_whether_the_t1w_took_part(make_plan, t1w, fields):
    assert _sidecar_fields([t1w, {}, {}]) == fields
    registration = {"agreement": 0.2, "rotation_degrees": 3.0, "translation_mm": 49.0}
    warnings = _sidecar_fields([t1w, {}, {"volume_ml": 20.0}, registration])["Warnings"]
    assert all(any(words in warning for warning in warnings) for words in ("moved by 49 mm", "holds 20 ml"))
    assert not stages(make_plan(TRAINED))["derivatives.save_sr"].inputs.optional
