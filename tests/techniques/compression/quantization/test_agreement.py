import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from halve.errors import ModelError
from halve.techniques.compression.quantization import agreement

LOGITS = hnp.arrays(np.float32, (5, 3), elements=st.floats(-100, 100, width=32))


@given(LOGITS)
def test_a_model_agrees_with_itself(logits):
    found = agreement(logits, logits)
    assert (found.argmax_disagreement_share, found.relative_rmse, found.n) == (0, 0, 5)


def test_golden():
    fp32 = np.array([[0, 2], [2, 0]], np.float32)
    int8 = np.array([[1, 2], [0, 1]], np.float32)
    found = agreement(fp32, int8)
    # Squared errors 1, 0, 4, 1; standard deviation of 0, 2, 2, 0 is 1.
    assert found.relative_rmse == pytest.approx(np.sqrt(6 / 4))
    assert found.argmax_disagreement_share == 0.5


def test_models_of_unlike_shape_do_not_compare():
    with pytest.raises(ModelError, match=r"logits of both models must have one shape"):
        agreement(np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32))
