import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from halve.engines.preprocess import TOKEN_MULTIPLE, preparation
from halve.errors import InvalidParameterError, ModelError

PAD, UNKNOWN, START, END = 0, 1, 2, 3


@pytest.fixture
def prepare(make_model, folder):
    def prepare(*, max_tokens=16, tokenizer="tokenizer.json"):
        model = make_model("onnxruntime", tokenizer, text=True, max_tokens=max_tokens)
        return preparation(model, {"tokenizer.json": folder / tokenizer})

    return prepare


def test_tensors_are_stacked_as_float32(make_model):
    inputs = preparation(make_model("torch"), {})([np.zeros((2, 3)), np.ones((2, 3))])
    assert list(inputs) == ["input"]
    assert inputs["input"].shape == (2, 2, 3)
    assert inputs["input"].dtype == np.float32


def test_the_longest_text_rounded_up_sets_the_length(prepare):
    inputs = prepare()(["the cat sat", "why not now then here on this mat"])
    assert inputs["input_ids"].shape == (2, 16)
    assert inputs["input_ids"][0].tolist() == [START, 4, 5, 6, END] + [PAD] * 11
    assert inputs["attention_mask"].sum(axis=1).tolist() == [5, 10]


def test_rounding_up_never_passes_max_tokens(prepare):
    inputs = prepare(max_tokens=9)(["the cat " * 50])
    assert inputs["input_ids"].shape == (1, 9)
    assert inputs["input_ids"][0, -1] == END


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(texts=st.lists(st.text(max_size=60), min_size=1, max_size=5), max_tokens=st.integers(2, 40))
def test_any_text_gives_bounded_masked_rows(prepare, texts, max_tokens):
    inputs = prepare(max_tokens=max_tokens)(texts)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    assert ids.shape == mask.shape
    assert ids.dtype == mask.dtype == np.int64
    assert ids.shape[1] <= max_tokens
    assert ids.shape[1] == max_tokens or ids.shape[1] % TOKEN_MULTIPLE == 0
    assert np.all(np.diff(mask, axis=1) <= 0)
    assert np.all(ids[mask == 0] == PAD)
    alone = [prepare(max_tokens=max_tokens)([text])["attention_mask"].sum() for text in texts]
    assert mask.sum(axis=1).tolist() == alone


def test_the_padding_of_the_tokenizer_file_is_followed(prepare, folder):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding(pad_id=7, pad_token="on", length=100)
    tokenizer.save(str(folder / "padded.json"))
    inputs = prepare(tokenizer="padded.json")(["cat"])
    assert inputs["input_ids"].tolist() == [[START, 5, END, 7, 7, 7, 7, 7]]


def test_a_tensor_cannot_be_tokenized(prepare):
    with pytest.raises(InvalidParameterError, match=r"payload must be a text for this model. Got 'a tensor'"):
        prepare()(["cat", np.zeros(3, np.float32)])


def test_the_tokenizer_must_be_one_of_the_files(make_model):
    with pytest.raises(ModelError, match=r"tokenizer_file must be one of the files of model 'tiny', \[\]"):
        preparation(make_model("torch", text=True), {})


def test_a_file_that_is_no_tokenizer_is_refused(prepare, folder):
    (folder / "broken.json").write_text("{}")
    with pytest.raises(ModelError, match=r"broken\.json of model 'tiny' is not a tokenizers file"):
        prepare(tokenizer="broken.json")


def test_max_tokens_must_be_positive(prepare):
    with pytest.raises(InvalidParameterError, match=r"preprocess.max_tokens must be at least 1. Got 0"):
        prepare(max_tokens=0)
