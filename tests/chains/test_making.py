import numpy as np
import pytest

from halve.chains import ChainRecord, ChainStep, Maker, read_record, write_module
from halve.chains.making import search_inputs
from halve.core import Model, Preprocess
from halve.engines import engine
from halve.errors import ModelError
from halve.measure.artifacts import adopt_files

INPUTS = {"input": np.random.default_rng(0).standard_normal((40, 2)).astype(np.float32)}
RECORD = ChainRecord(
    parent="full",
    parent_fingerprint="f",
    training_sha256="d",
    n_training=40,
    seed=0,
    steps=(ChainStep(technique="distillation"),),
)


def small_network():
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 3))


@pytest.fixture
def bench(table_bench, tmp_path):
    """A bench of tables whose made models run in onnxruntime."""
    bench = table_bench(tmp_path)
    bench.engine = engine
    return bench


def test_a_model_is_made_in_fp32_and_in_integers_and_only_once(bench):
    built = []

    def build(folder):
        built.append(folder)
        write_module(folder, small_network(), INPUTS, record=RECORD)

    maker = Maker(bench=bench, technique="distillation")
    arguments = {"parent": bench.baseline, "reads": bench.baseline, "parameters": {"epochs": 3}, "build": build}
    made, integers = maker.make("tiny-distilled", **arguments)
    assert (made.name, made.parent, made.engine) == ("tiny-distilled", "full", "onnxruntime")
    assert (integers.name, integers.parent) == ("tiny-distilled-int8", "tiny-distilled")
    assert made.recipe.technique == "distillation"
    assert made.recipe.parameters == {"epochs": 3}
    assert integers.recipe.technique == "quantization"
    assert integers.recipe.parameters["chain"] == "distillation > quantization"
    assert integers.recipe.parameters["weight_bits"] in (7, 8)
    folder = (bench.model_folder(integers) / integers.files[0].path).parent
    assert read_record(folder).chain == "distillation > quantization"
    assert len(bench.outcomes(integers).answers) == len(bench.workload.search)

    assert maker.make("tiny-distilled", **arguments) == [made, integers]
    assert len(built) == 1
    longer = maker.make("tiny-distilled", **{**arguments, "parameters": {"epochs": 4}})
    assert len(built) == 2
    assert longer[0].files[0].path != made.files[0].path
    assert maker.problems == {}


def test_a_reader_of_texts_keeps_its_tokenizer(bench, tmp_path):
    (tmp_path / "user").mkdir()
    for name in ("tokenizer.json", "weights.bin"):
        (tmp_path / "user" / name).write_text("{}")
    files = adopt_files(tmp_path / "user", relative_to=tmp_path)
    preprocess = Preprocess(kind="wordpiece", tokenizer_file="user/tokenizer.json")
    reads = Model(name="reader", engine="torch", files=files, preprocess=preprocess)
    maker = Maker(bench=bench, technique="distillation")

    def build(folder):
        write_module(folder, small_network(), INPUTS, record=RECORD)

    made = maker.make("tables", parent=bench.baseline, reads=reads, parameters={}, build=build)
    assert made[0].preprocess == preprocess
    assert made[0].files[0].path == "user/tokenizer.json"
    assert "user/weights.bin" not in [file.path for file in made[0].files]
    assert len(made) == 1, "a tokenizer of no tokens cannot be calibrated with"
    assert maker.problems["tables-int8"].startswith("tables-int8 could not be made: ")


def test_what_cannot_be_made_is_remembered_in_one_sentence(bench, tmp_path):
    def build(folder):
        raise ModelError("it has no layers")

    maker = Maker(bench=bench, technique="pruning")
    assert maker.make("cut", parent=bench.baseline, reads=bench.baseline, parameters={}, build=build) == []
    assert maker.problems == {"cut": "cut could not be made: it has no layers"}
    assert not (tmp_path / "models").joinpath("cut").exists()
    assert "cut" not in [model.name for model in bench.answerers()]


def test_integers_that_cannot_be_made_leave_the_fp32_model(bench):
    def build(folder):
        write_module(folder, small_network(), INPUTS, record=RECORD)
        (folder / "recipe.json").write_text("{")

    maker = Maker(bench=bench, technique="pruning")
    with pytest.raises(Exception, match=r"recipe\.json is damaged"):
        maker.make("cut", parent=bench.baseline, reads=bench.baseline, parameters={}, build=build)


def test_calibration_is_the_first_search_examples(bench):
    class Reader:
        def inputs(self, payloads):
            return {"input": np.stack(payloads)}

    rows = search_inputs(Reader(), bench, rows=5)["input"]
    np.testing.assert_array_equal(rows, [example.payload for example in bench.workload.search[:5]])
