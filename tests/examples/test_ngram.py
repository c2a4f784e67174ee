import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from halve.techniques.compression.quantization import export_onnx


@pytest.fixture
def ngram(example):
    return example("ngram")


def classifier(ngram, **changes):
    torch.manual_seed(0)
    recipe = dataclasses.replace(ngram.NgramRecipe(width=8, pair_rows=512), **changes)
    return ngram.NgramClassifier(vocabulary=50, classes=3, recipe=recipe, special=(1, 2))


def queries(count=16, tokens=9):
    rng = np.random.default_rng(0)
    ids = rng.integers(3, 50, (count, tokens))
    ids[np.arange(tokens) >= rng.integers(2, tokens + 1, (count, 1))] = 0
    ids[:, 0] = 1
    return ids, (ids != 0).astype(np.int64)


def logits(model, ids, mask):
    with torch.inference_mode():
        return model(torch.as_tensor(ids), torch.as_tensor(mask))


def test_padding_does_not_change_an_answer(ngram):
    model = classifier(ngram).eval()
    ids, mask = queries()
    wider = [np.pad(array, ((0, 0), (0, 7))) for array in (ids, mask)]
    assert torch.allclose(logits(model, ids, mask), logits(model, *wider), atol=1e-6)


def test_an_answer_is_the_sum_of_word_and_pair_rows_over_the_root_of_their_number(ngram):
    model = classifier(ngram).eval()
    ids = [1, 7, 9, 2]
    pairs = [(1, 7, 1), (7, 9, 1), (9, 2, 1), (1, 9, 2), (7, 2, 2)]
    rows = [model.words.weight[7], model.words.weight[9]]
    for first, second, gap in pairs:
        row = ngram.pair_rows(torch.tensor(first), torch.tensor(second), gap=gap, rows=512)
        rows.append(model.pairs.weight[row])
    expected = model.head(torch.stack(rows).sum(dim=0) / len(rows) ** 0.5)
    assert torch.allclose(logits(model, [ids], [[1] * 4])[0], expected, atol=1e-6)


@given(a=st.integers(0, 2**20), b=st.integers(0, 2**20), gap=st.integers(1, 3), rows=st.integers(1, 2**20))
def test_pair_rows_agree_with_integers_that_cannot_overflow(a, b, gap, rows):
    import importlib

    hashed = importlib.import_module("ngram").pair_rows
    got = hashed(torch.tensor(a), torch.tensor(b), gap=gap, rows=rows)
    number = ((a + gap * 1_000_003) * 1_000_003 + b) % (2**31 - 1)
    assert int(got) == number * 1_000_003 % (2**31 - 1) % rows


def test_the_exported_model_answers_as_the_module_at_every_batch_and_length(ngram, tmp_path):
    import onnxruntime

    model, path = classifier(ngram).eval(), tmp_path / "ngram.onnx"
    ids, mask = queries()
    export_onnx(model, {"input_ids": ids[:2], "attention_mask": mask[:2]}, path)
    session = onnxruntime.InferenceSession(str(path))
    for count, tokens in ((1, 4), (2, 9), (16, 9)):
        feed = {"input_ids": ids[:count, :tokens], "attention_mask": mask[:count, :tokens]}
        expected = logits(model, *feed.values()).numpy()
        np.testing.assert_allclose(session.run(None, feed)[0], expected, atol=1e-5)


def test_training_follows_the_teacher_and_the_labels(ngram):
    model = classifier(ngram, epochs=30, batch_size=16)
    ids, _ = queries(count=64)
    labels = torch.as_tensor(ids[:, 1] % 3)
    teacher_logits = 4 * torch.nn.functional.one_hot(labels, 3).float()
    ngram.fit(
        model,
        tokens=torch.as_tensor(ids),
        labels=labels,
        teacher_logits=teacher_logits,
        word_vectors=torch.randn(50, 16),
    )
    right = logits(model, ids, (ids != 0).astype(np.int64)).argmax(dim=1) == labels
    assert right.float().mean() > 0.9
    assert not model.training


def test_principal_components_keep_distances_when_nothing_is_cut(ngram):
    vectors = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))
    components = ngram.principal_components(vectors, width=6)
    assert torch.allclose(torch.pdist(components), torch.pdist(vectors), atol=1e-4)
    widest = ngram.principal_components(vectors, width=1)
    assert torch.allclose(widest.var(), components.var(dim=0).max(), atol=1e-5)
