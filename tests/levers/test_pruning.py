import json

import pytest

from halve import chains
from halve.chains.pruned import SPECIFICATION_NAME
from halve.levers.pruning import Pruning
from halve.techniques.compression.pruning import RebuildSpecification

RATIOS = (0.6,)

WIDE = """
from halve.testing.tiny_service import teacher


def wide():
    return teacher(width=1024)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory, open_training_bench):
    """Bench, stack and everything that pruning proposed for it: a network that is much too wide."""
    folder = tmp_path_factory.mktemp("pruned")
    (folder / "wide_models.py").write_text(WIDE)
    changes = {"model": {"name": "teacher", "entry": "wide_models:wide"}}
    with open_training_bench(folder, changes=changes) as (bench, stack):
        lever = Pruning(ratios=RATIOS)
        yield bench, stack, list(lever.propose(stack, bench)), lever


def folder_of(bench, model):
    return (bench.model_folder(model) / model.files[0].path).parent


def test_each_ratio_is_proposed_in_fp32_and_in_integers(made):
    _, stack, changes, lever = made
    wanted = [f"teacher-pruned-{round(100 * ratio)}{kind}" for ratio in RATIOS for kind in ("", "-int8")]
    assert [change.after.models[0].name for change in changes] == wanted, lever.nothing(stack, made[0])
    for change in changes:
        assert len(change.after.models) == 1


def test_the_chain_is_written_in_the_models_record(made):
    bench, _, changes, _ = made
    chains_found = [chains.read_record(folder_of(bench, change.after.models[0])).chain for change in changes]
    assert chains_found == ["pruning > distillation", "pruning > distillation > quantization"] * len(RATIOS)
    for change, ratio in zip(changes[::2], RATIOS, strict=True):
        first = chains.read_record(folder_of(bench, change.after.models[0])).steps[0]
        assert first.parameters["target_latency_ratio"] == ratio
        assert first.figures["measured_ratio"] <= ratio


def test_the_pruned_model_is_physically_smaller_and_says_how_to_rebuild_it(made):
    bench, stack, changes, _ = made
    parent = bench.load(stack.models[0])
    before = sum(part.numel() for part in parent.runtime_model.parameters())
    parent.close()
    for change in changes[::2]:
        folder = folder_of(bench, change.after.models[0])
        specification = RebuildSpecification.from_json((folder / SPECIFICATION_NAME).read_text())
        assert all(group.after <= group.before for group in specification.groups)
        assert (folder / "weights.safetensors").stat().st_size < 4 * before


def test_it_has_learned_its_parents_answers_again(made):
    bench, stack, changes, _ = made
    parent = bench.outcomes(stack.models[0]).answers
    for change in changes[:2]:
        assert (bench.outcomes(change.after.models[0]).answers == parent).mean() > 0.75


def test_a_build_that_was_killed_keeps_the_widths_that_it_had_chosen(made):
    bench, _, changes, _ = made
    name = changes[0].after.models[0].name
    kept = bench.workspace(f"pruning-{name}")
    figures = json.loads((kept / "figures.json").read_text())
    assert (kept / SPECIFICATION_NAME).read_text() == (
        folder_of(bench, changes[0].after.models[0]) / SPECIFICATION_NAME
    ).read_text()
    assert figures["measured_ratio"] <= RATIOS[0]


def test_without_training_data_it_says_so(tmp_path, open_training_bench):
    with open_training_bench(tmp_path, changes={"training": None, "students": []}) as (bench, stack):
        assert list(Pruning().propose(stack, bench)) == []
        assert Pruning().nothing(stack, bench) == "not tried: the config names no training data"


def test_a_table_cannot_be_pruned(table_bench, baseline_of, tmp_path):
    bench = table_bench(tmp_path)
    assert list(Pruning().propose(baseline_of(bench), bench)) == []
