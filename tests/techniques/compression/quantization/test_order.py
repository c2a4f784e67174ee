import numpy as np
import pytest

from halve.errors import InvalidParameterError
from halve.techniques.compression.quantization import METHODS, Data, Order


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"method": "best"}, r"method must be one of auto, static, dynamic, weight-only\. Got 'best'"),
        ({"weight_bits": 1}, r"weight_bits must be 2 to 8\. Got 1"),
        ({"activation_bits": 16}, r"activation_bits must be 2 to 8\. Got 16"),
        ({"qat_epochs": -1}, r"qat_epochs must be at least 0\. Got -1"),
        ({"qat_epochs": 2, "method": "static"}, r"method must be auto where there is training\. Got 'static'"),
        ({"error_budget": 0.0}, r"error_budget must be positive\. Got 0\.0"),
        ({"error_budget": float("nan")}, r"error_budget must be positive\. Got nan"),
        ({"method": "weight-only", "weight_bits": 6}, r"weight_bits must be 4 or 8 for weight-only\. Got 6"),
        ({"method": "dynamic", "weight_bits": 4}, r"weight_bits must be 8 for dynamic\. Got 4"),
    ],
)
def test_an_order_that_cannot_be_carried_out_is_named(given, sentence):
    with pytest.raises(InvalidParameterError, match=sentence):
        Order(**given)


def test_every_method_can_be_ordered():
    assert [Order(method=method).method for method in METHODS] == list(METHODS)


def test_the_fingerprint_of_data_sees_names_types_shapes_values_and_labels():
    array = np.arange(6, dtype=np.float32)
    kinds = [
        Data(batches=[{"input": array}]),
        Data(batches=[{"image": array}]),
        Data(batches=[{"input": array.astype(np.float64)}]),
        Data(batches=[{"input": array.reshape(2, 3)}]),
        Data(batches=[{"input": array + 1}]),
        Data(batches=[{"input": array[:3]}, {"input": array[3:]}]),
        Data(batches=[{"input": array}], labels=np.zeros(6, np.int64)),
    ]
    assert len({data.sha256 for data in kinds}) == len(kinds)
    assert Data(batches=[{"input": array.copy()}]).sha256 == kinds[0].sha256
