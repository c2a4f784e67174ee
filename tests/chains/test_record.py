import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.chains import ChainRecord, ChainStep, read_record
from halve.errors import RunFolderError

scalars = st.one_of(st.text(max_size=5), st.integers(-5, 5), st.booleans(), st.floats(-5, 5))
steps = st.builds(
    ChainStep,
    technique=st.sampled_from(["pruning", "distillation", "quantization", "mixture_of_experts"]),
    parameters=st.dictionaries(st.text(min_size=1, max_size=5), scalars, max_size=3),
    figures=st.dictionaries(st.text(min_size=1, max_size=5), st.floats(-5, 5), max_size=3),
)


def record(*made):
    return ChainRecord(
        parent="teacher", parent_fingerprint="f" * 64, training_sha256="d" * 64, n_training=7, seed=3, steps=made
    )


@given(st.lists(steps, max_size=3))
def test_what_is_read_equals_what_was_written(tmp_path_factory, made):
    folder = tmp_path_factory.mktemp("record")
    before = record(*made)
    before.write(folder)
    after = read_record(folder)
    assert after.steps == before.steps
    assert (after.parent, after.n_training, after.seed) == ("teacher", 7, 3)
    assert [path.name for path in folder.iterdir()] == ["recipe.json"]
    after.write(folder)
    assert read_record(folder) == after


def test_steps_are_added_at_the_end_and_the_chain_names_them():
    empty = record()
    cut = empty.with_step(ChainStep(technique="pruning"))
    taught = cut.with_step(ChainStep(technique="distillation", parameters={"alpha": 0.9}))
    assert (empty.chain, cut.chain, taught.chain) == ("", "pruning", "pruning > distillation")
    assert empty.steps == (), "a record is not changed, a new one is returned"


def test_the_versions_of_what_made_it_stand_in_the_file(tmp_path):
    record().write(tmp_path)
    document = json.loads((tmp_path / "recipe.json").read_text())
    assert document["schema"] == "halve.recipe/1"
    assert {"halve", "numpy", "torch", "onnxruntime"} <= set(document["versions"])


@pytest.mark.parametrize("content", [None, "", "{}", '{"schema": "halve.recipe/2"}'])
def test_a_missing_or_damaged_record_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "recipe.json").write_text(content)
    with pytest.raises(RunFolderError, match=r"recipe\.json is damaged or was not written by halve"):
        read_record(tmp_path)
