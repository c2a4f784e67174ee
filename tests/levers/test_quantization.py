import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from halve.gate import PairedGate
from halve.levers.quantization import KINDS, Quantization
from halve.optimize import climb
from halve.testing.tiny_service import BUILT_LOG

CANNOT_BE_EXPORTED = '''
class Stubborn(torch.nn.Module):
    """Chooses by a value: there is no graph of it."""

    def forward(self, inputs):
        picked = [row[:3] if float(row[0]) > 0 else row[1:4] for row in inputs]
        return torch.stack(picked)


def stubborn():
    return Stubborn().eval()
'''


@pytest.fixture(scope="module")
def made(tmp_path_factory, open_training_bench):
    """Bench, stack and everything that quantization proposed for it."""
    yield from _proposed(open_training_bench, tmp_path_factory.mktemp("quantized"), entry="tiny_models:teacher")


@pytest.fixture(scope="module")
def refused(tmp_path_factory, open_training_bench):
    yield from _proposed(open_training_bench, tmp_path_factory.mktemp("stubborn"), entry="stubborn_models:stubborn")


def _proposed(open_bench, folder, *, entry):
    (folder / "stubborn_models.py").write_text("import torch\n" + CANNOT_BE_EXPORTED)
    changes = {"model": {"name": "teacher", "entry": entry}, "training": None, "students": []}
    with open_bench(folder, changes=changes) as (bench, stack):
        lever = Quantization()
        yield bench, stack, lever, list(lever.propose(stack, bench))


def test_every_kind_is_proposed_once_from_least_to_most_change(made):
    _, stack, _, changes = made
    assert [change.after.models[0].name for change in changes] == [f"teacher-{kind}" for kind in KINDS]
    assert [change.description for change in changes] == [f"teacher as {text}" for text in KINDS.values()]
    for change in changes:
        assert change.after.deployments[0] == replace(stack.deployments[0], model=change.after.models[0].name)
        assert "bit" in change.reason


def test_every_variant_has_a_manifest_a_parent_and_a_recipe(made):
    bench, _, _, changes = made
    for kind, change in zip(KINDS, changes, strict=True):
        (model,) = change.after.models
        assert (model.engine, model.entry, model.parent) == ("onnxruntime", None, "teacher")
        assert model.recipe.technique == "quantization"
        assert model.recipe.parameters["kind"] == kind
        assert model.recipe.parameters["weight_bits"] in ({32} if kind == "fp32" else {7, 8})
        names = ["model.onnx"] if kind == "fp32" else ["manifest.json", "model.onnx"]
        assert [Path(file.path).name for file in model.files] == names
        for file in model.files:
            path = bench.model_folder(model) / file.path
            assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
            assert file.size_bytes == path.stat().st_size


def test_the_variants_answer_nearly_as_their_parent(made):
    bench, _, _, changes = made
    parent = bench.outcomes(bench.baseline)
    for change, least in zip(changes, (1.0, 0.97, 0.97), strict=True):
        same = float((bench.outcomes(change.after.models[0]).answers == parent.answers).mean())
        assert same >= least
    sizes = [change.after.models[0].size_bytes for change in changes]
    assert max(sizes[1:]) < 0.6 * sizes[0], "eight bits take a quarter of thirty-two"


def test_asking_again_converts_and_loads_nothing(made):
    bench, stack, _, changes = made
    log = bench.folder.parent.parent / BUILT_LOG
    log.unlink(missing_ok=True)
    assert [change.after for change in Quantization().propose(stack, bench)] == [change.after for change in changes]
    assert not log.exists()


def test_what_was_converted_is_not_converted_again(made):
    bench, _, _, changes = made
    lever = Quantization()
    assert list(lever.propose(changes[0].after, bench)) == []
    assert lever.nothing(changes[0].after, bench) == "every model of the stack was converted already"


def test_a_model_that_cannot_be_exported_is_reported_and_the_ladder_goes_on(refused):
    bench, stack, lever, changes = refused
    assert changes == []
    reason = lever.nothing(stack, bench)
    assert reason.startswith("teacher-fp32 could not be made: ")
    assert "Traceback" not in reason
    assert "\n" not in reason
    rungs = []
    reached = climb(
        stack,
        levers=[Quantization()],
        bench=bench,
        gate=PairedGate(objective=bench.workload.objective),
        baseline=bench.measure(stack),
        record=rungs.append,
    )
    assert reached.stack == stack
    (rung,) = rungs
    assert (rung.verdict.decision, rung.verdict.reason) == ("reject", reason)
    assert not [*bench.folder.rglob("*.partial")]


def test_tables_cannot_be_converted_and_are_left_alone(table_bench, baseline_of, tmp_path):
    bench = table_bench(tmp_path)
    assert list(Quantization().propose(baseline_of(bench), bench)) == []
    assert bench.engines.loaded == []
