import numpy as np
import onnxruntime
import pytest
import torch

from halve.errors import InvalidParameterError
from halve.techniques.compression.distillation import Recipe, distil, predicted_logits
from halve.techniques.compression.distillation.students import (
    ConvolutionStudent,
    NgramStudent,
    StaticEmbeddingStudent,
    principal_components,
    start_from_vectors,
)
from halve.techniques.compression.quantization import export_onnx

SIZES = {"vocabulary": 40, "classes": 4, "width": 16, "special": (1, 2)}
STUDENTS = {
    "ngrams": lambda: NgramStudent(**SIZES, ngram_rows=512, hidden=0),
    "ngrams with a perceptron": lambda: NgramStudent(**SIZES, ngram_rows=512, hidden=24, dropout=0.1),
    "convolution": lambda: ConvolutionStudent(vocabulary=40, classes=4, width=16, channels=24, hidden=24),
    "static": lambda: StaticEmbeddingStudent(**SIZES, hidden=24),
}


@pytest.fixture(params=STUDENTS)
def student(request):
    torch.manual_seed(0)
    return STUDENTS[request.param]().eval()


def test_padding_and_batch_do_not_change_an_answer(student, texts):
    logits = predicted_logits(student, texts)
    assert logits.shape == (64, 4)
    ids, mask = (torch.from_numpy(array[5:6]) for array in texts.values())
    length = int(mask.sum())
    with torch.no_grad():
        alone = student(ids[:, :length], mask[:, :length])
    np.testing.assert_allclose(alone.numpy()[0], logits[5], atol=1e-5)


def test_a_text_without_words_has_an_answer(student):
    with torch.no_grad():
        logits = student(torch.tensor([[1, 2], [0, 0]]), torch.tensor([[1, 1], [0, 0]]))
    assert logits.isfinite().all()


def test_it_learns_what_words_and_their_order_mean(student, texts):
    ids = texts["input_ids"]
    labels = (ids == 9).any(1) + 2 * (ids == 15).any(1)
    answers = np.full((64, 4), np.log(0.01), np.float32)
    answers[np.arange(64), labels] = np.log(0.97)
    recipe = Recipe(epochs=60, learning_rate=0.02, batch_size=16, temperature=1.0, alpha=1.0, weight_decay=0.0)
    distil(student, texts, answers, recipe=recipe)
    assert (predicted_logits(student, texts).argmax(1) == labels).mean() > 0.95


def test_it_exports_and_answers_alike_in_onnxruntime(student, texts, tmp_path):
    path = tmp_path / "student.onnx"
    export_onnx(student, texts, path)
    session = onnxruntime.InferenceSession(path)
    part = {name: array[:3, :7].copy() for name, array in texts.items()}
    (logits,) = session.run(None, part)
    with torch.no_grad():
        expected = student(*map(torch.from_numpy, part.values())).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_the_word_table_starts_from_the_teachers_widest_directions():
    torch.manual_seed(1)
    vectors = torch.randn(40, 3) @ torch.randn(3, 30) + 5.0
    components = principal_components(vectors, width=16)
    centred = vectors - vectors.mean(0)
    torch.testing.assert_close(components @ components.T, centred @ centred.T, atol=1e-3, rtol=1e-3)
    assert torch.equal(components, principal_components(vectors.clone(), width=16))
    student = STUDENTS["ngrams"]()
    start_from_vectors(student, vectors, scale=0.5)
    assert student.words.weight.std().item() == pytest.approx(0.5, rel=1e-4)


def test_bad_input_is_refused():
    with pytest.raises(InvalidParameterError, match="student must be a module with a table `words`"):
        start_from_vectors(torch.nn.Linear(2, 2), torch.zeros(40, 16))
    with pytest.raises(InvalidParameterError, match=r"vectors must be \(40, at least 16\)\. Got \(40, 8\)"):
        start_from_vectors(STUDENTS["static"](), torch.zeros(40, 8))
    with pytest.raises(InvalidParameterError, match="ngrams must be offsets that begin with 0 and rise"):
        NgramStudent(**SIZES, ngrams=((1, 2),))
