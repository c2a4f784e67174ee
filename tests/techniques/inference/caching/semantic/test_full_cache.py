import numpy as np
import pytest

from halve.techniques.inference.caching.semantic.full_cache import full_cache, spread
from halve.techniques.inference.caching.semantic.policy import default_policy


def test_a_stored_answer_comes_from_another_example():
    texts = ["pay the bill", "pay the bills", "sleep well"]
    vectors = np.array([[1, 0], [0.99, 0.14], [0, 1]], np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    answers, rows = full_cache(
        default_policy(cosine_at_least=1e-9),
        texts=texts,
        vectors=vectors,
        stored=np.array([3, 3, 1]),
        classes=4,
        neighbours=2,
    )
    assert answers.tolist()[:2] == [3, 3]
    assert rows.shape == (3, 4)
    np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-6)
    assert rows[0].argmax() == 3


@pytest.mark.parametrize("sure", [0.0, 0.1, 0.25, 0.7, 1.0])
def test_rows_are_distributions_with_the_answer_on_top(sure):
    rows = spread(np.array([2]), np.array([sure]), classes=4)
    np.testing.assert_allclose(rows.sum(), 1, atol=1e-6)
    assert rows[0, 2] == pytest.approx(max(sure, 0.25))
    assert rows[0, 2] == rows.max()
