import json
import shutil

import numpy as np
import pytest

from halve.core import Model, Preprocess
from halve.engines.encoder import EndpointEncoder, load_encoder, open_encoder_folder
from halve.errors import AnswerError, InvalidParameterError, ModelError

TEXTS = ["the cat sat", "dog ran far away", "why not", "this is it", "that was then and there it is now"]


@pytest.fixture(scope="module")
def states(folder):
    """A graph that gives token states, (batch, tokens, 16): rows of a table."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    table = np.random.default_rng(1).normal(size=(40, 16)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "input_ids"], ["states"])],
        "states",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])],
        [helper.make_tensor_value_info("states", TensorProto.FLOAT, ["batch", "tokens", 16])],
        [numpy_helper.from_array(table, "table")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, folder / "states.onnx")
    return table


@pytest.fixture
def encoder(folder, states, model_file):
    def make(graph="states.onnx", **options):
        model = Model(
            name="tiny",
            engine="onnxruntime",
            files=tuple(model_file(folder / name) for name in (graph, "tokenizer.json")),
            preprocess=Preprocess(kind="wordpiece", tokenizer_file="tokenizer.json", max_tokens=16),
        )
        return load_encoder(model, folder=folder, **options)

    return make


def tokens_of(folder, text):
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids


def test_the_mean_of_token_states_leaves_padding_out(encoder, folder, states):
    found = encoder().encode(TEXTS)
    for row, text in enumerate(TEXTS):
        mean = states[tokens_of(folder, text)].mean(axis=0)
        np.testing.assert_allclose(found[row], mean / np.linalg.norm(mean), atol=1e-6)


def test_cls_is_the_first_state(encoder, folder, states):
    found = encoder(pooling="cls").encode(TEXTS)
    first = states[tokens_of(folder, "the cat sat")[0]]
    np.testing.assert_allclose(found[0], first / np.linalg.norm(first), atol=1e-6)


def test_a_graph_that_pools_is_taken_as_it_is(encoder):
    one = encoder("encoder.onnx")
    assert (one.fingerprint.pooling, one.fingerprint.dimension) == ("none", 3)
    np.testing.assert_allclose(np.linalg.norm(one.encode(TEXTS), axis=1), 1, atol=1e-6)


def test_a_vector_does_not_depend_on_its_batch_or_its_place(encoder):
    one = encoder()
    many = TEXTS * 20
    together = one.encode(many)
    for row in (0, 4, 57):
        np.testing.assert_allclose(one.encode([many[row]])[0], together[row], atol=1e-6)
    assert one.encode([]).shape == (0, 16)


def test_fingerprints_differ_by_graph_and_pooling(encoder):
    digests = {encoder().fingerprint.digest, encoder(pooling="cls").fingerprint.digest}
    digests.add(encoder("encoder.onnx").fingerprint.digest)
    assert len(digests) == 3
    assert encoder().fingerprint == encoder().fingerprint


def test_states_must_be_pooled(encoder):
    with pytest.raises(InvalidParameterError, match="pooling must be mean or cls"):
        encoder(pooling="none")


def test_an_image_has_no_vector(encoder):
    with pytest.raises(AnswerError, match="payload must be a text"):
        encoder().encode(["a", np.zeros(3, np.float32)])


def test_a_model_of_images_is_refused(folder, model_file):
    files = tuple(model_file(folder / name) for name in ("convolution.onnx", "tokenizer.json"))
    preprocess = Preprocess(kind="wordpiece", tokenizer_file="tokenizer.json")
    with pytest.raises(ModelError, match="inputs of encoder 'images' must be among input_ids"):
        load_encoder(Model(name="images", engine="onnxruntime", files=files, preprocess=preprocess), folder=folder)


def test_a_sentence_transformers_folder_says_how_it_pools(folder, states, tmp_path):
    (tmp_path / "onnx").mkdir()
    (tmp_path / "1_Pooling").mkdir()
    shutil.copy(folder / "states.onnx", tmp_path / "onnx" / "model.onnx")
    shutil.copy(folder / "tokenizer.json", tmp_path / "tokenizer.json")
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 9}))
    found = open_encoder_folder(tmp_path).fingerprint
    assert (found.pooling, found.max_tokens, found.dimension) == ("cls", 9, 16)


def test_a_folder_without_a_graph_says_what_it_needs(tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ModelError, match=r"must hold model.onnx .* and tokenizer.json. Got \['model.safetensors'\]"):
        open_encoder_folder(tmp_path)


def embeddings(body):
    rows = [{"index": row, "embedding": [len(text), 1.0, 0.0]} for row, text in enumerate(body["input"])]
    return 200, {}, {"data": rows[::-1]}  # a server may answer in any order: the index counts


def test_an_endpoints_vectors_come_back_in_order(server):
    server.script = embeddings
    one = EndpointEncoder(server.url, model="text-embedding", key="secret")
    found = one.encode(["abc", "a"])
    one.close()
    np.testing.assert_allclose(found[0], np.array([3, 1, 0]) / np.sqrt(10), atol=1e-6)
    assert one.fingerprint.dimension == 3
    path, headers, body = server.requests[-1]
    assert (path, headers["Authorization"]) == ("/v1/embeddings", "Bearer secret")
    assert body == {"model": "text-embedding", "input": ["abc", "a"]}


@pytest.mark.parametrize(
    "reply",
    [{"data": [{"index": 0}]}, {"data": []}, {}, {"data": [{"index": 0, "embedding": "words"}]}],
)
def test_an_endpoint_without_vectors_is_no_encoder(server, reply):
    server.script = lambda _: (200, {}, reply)
    with pytest.raises(ModelError, match="gives no vectors"):
        EndpointEncoder(server.url, model="text-embedding")


def test_a_zero_vector_is_refused(server):
    server.script = lambda body: (200, {}, {"data": [{"index": 0, "embedding": [0.0, 0.0]}]})
    one = EndpointEncoder(server.url, model="text-embedding")
    with pytest.raises(AnswerError, match="zero, NaN or infinite"):
        one.encode(["a"])
    one.close()
