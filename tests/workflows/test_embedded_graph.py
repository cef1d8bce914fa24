"""The graph for other workflows holds the stages of the app, and refuses what they would refuse."""

import pytest
from nipype.pipeline.engine.utils import generate_expanded_graph

from bids_sr import init_super_resolution_wf
from bids_sr.errors import CertainModelError, ConfigurationError, ScaleTooLargeError
from bids_sr.interfaces.target import FindTarget
from bids_sr.workflows.participant import init_participant_wf
from bids_sr.workflows.plan import opening_record
from tests.made_models import save_tiny_model


def stages(workflow):
    """Stages by the names of their graph and their own, and what feeds them."""
    workflow.base_dir = "/nowhere"
    graph = generate_expanded_graph(workflow._create_flat_graph())
    names = {node: ".".join([node._hierarchy.rpartition(".")[2], node.name]) for node in graph.nodes()}
    return {names[node]: {names[other] for other in graph.predecessors(node)} for node in graph.nodes()}


@pytest.mark.parametrize(
    ("t1w", "registers", "waits"), [("none", False, False), ("aligned", False, False), ("native", True, True)]
)
def test_a_t1w_is_registered_where_it_has_to_be(tmp_path, t1w, registers, waits):
    card = save_tiny_model(tmp_path, ("volume", "b0"), "b0", guided=True)
    found = stages(init_super_resolution_wf(scale=2, model=card, device="cpu", t1w=t1w))
    assert ("preprocess.register" in found) is registers
    assert ("preprocess.register" in found["super_resolution.restore"]) is waits


def test_it_holds_the_stages_of_the_app_and_finds_the_grid_itself(make_plan):
    embedded = stages(init_super_resolution_wf(voxel_size=1.5, model="cubic", device="cpu", t1w="native"))
    plan = make_plan()
    app = stages(init_participant_wf([plan], [opening_record(plan, "2026-01-01")]))
    assert set(embedded) - set(app) == {"super_resolution.target"}
    assert {"preprocess.gradients", "preprocess.mask", "preprocess.register", "super_resolution.restore"} <= set(
        embedded
    )
    assert "super_resolution.target" in embedded["super_resolution.restore"]
    assert "super_resolution.target" in embedded["super_resolution.mask"]


def test_what_the_scheduler_sets_aside_is_what_was_said():
    workflow = init_super_resolution_wf(scale=2, model="cubic", device="cpu", n_threads=3, mem_gb=5.5, name="mine")
    node = workflow.get_node("super_resolution.restore")
    assert (node.n_procs, node.mem_gb, node.inputs.label) == (3, 5.5, "mine")


@pytest.mark.parametrize("grid", [{}, {"scale": 2, "voxel_size": 1}])
def test_one_grid_has_to_be_named(grid):
    with pytest.raises(ConfigurationError, match="one of scale and voxel_size"):
        init_super_resolution_wf(model="cubic", device="cpu", **grid)


def test_uncertainty_is_asked_of_models_that_tell_it():
    with pytest.raises(CertainModelError):
        init_super_resolution_wf(scale=2, model="cubic", device="cpu", uncertainty=True)


def test_the_grid_is_found_when_the_series_is_there(series, tmp_path):
    stage = FindTarget(dwi_file=series.dwi, model="cubic", scale=[2.0, 1.0, 1.0])
    assert stage.run(cwd=tmp_path).outputs.target_shape == [12, 5, 4]
    with pytest.raises(ScaleTooLargeError, match=r"sub-01_dwi\.nii\.gz"):
        FindTarget(dwi_file=series.dwi, model="light", voxel_size=[0.2, 0.2, 0.2]).run(cwd=tmp_path)
