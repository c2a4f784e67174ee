"""NNCF: `quantize_with_accuracy_control` on OpenVINO, once per validation set, for real."""

from collections.abc import Iterable
from typing import Any

import nncf
import numpy as np
import openvino

from benchmarks._peers_training.searching import Search, read_search

LATENCY = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": "1"}
CORE = openvino.Core()
ROWS = 500


def rights(compiled: Any, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], rows: int) -> Any:
    """Return which images are answered rightly."""
    request = compiled.create_infer_request()
    answers = [
        np.argmax(request.infer([images[start : start + rows]])[0], axis=1) for start in range(0, len(images), rows)
    ]
    return np.concatenate(answers) == labels


def quantizers(model: Any) -> tuple[str, ...]:
    return tuple(sorted(op.get_friendly_name() for op in model.get_ops() if op.get_type_name() == "FakeQuantize"))


def weight_bytes(model: Any) -> float:
    """Return bytes of the weights: constants with more than one axis longer than 1, scales and biases left out."""
    constants = [op for op in model.get_ops() if op.get_type_name() == "Constant"]
    weights = [op for op in constants if sum(size > 1 for size in op.get_output_shape(0)) > 1]
    return float(sum(np.prod(op.get_output_shape(0)) * op.get_output_element_type(0).size for op in weights))


class Counting:
    """A validation function that counts what it is asked."""

    def __init__(self) -> None:
        self.n_full, self.n_rows, self.size = 0, 0, 0

    def __call__(self, compiled: Any, items: Iterable[Any]) -> tuple[float, list[float]]:
        items = list(items)
        images = np.concatenate([image for image, _ in items])
        labels = np.array([label for _, label in items])
        request = compiled.create_infer_request()
        right = [
            float(np.argmax(request.infer([image[None]])[0]) == label)
            for image, label in zip(images, labels, strict=True)
        ]
        self.n_full += len(items) == self.size
        self.n_rows += len(items)
        return float(np.mean(right)), right


def search(data: Search, rows: Any, known: dict[tuple[str, ...], Any]) -> dict[str, Any]:
    """Return which images the chosen model answers rightly, its weight bytes, and what the search evaluated."""
    validation = [(data.images[row][None], int(data.labels[row])) for row in rows]
    calibration = [image[None] for image in data.calibration]
    counting = Counting()
    counting.size = len(rows)
    chosen = nncf.quantize_with_accuracy_control(
        CORE.read_model(data.files["model"]),
        nncf.Dataset(calibration),
        nncf.Dataset(validation, lambda item: item[0]),
        counting,
        max_drop=data.job["max_drop"],
        drop_type=nncf.DropType.ABSOLUTE,
        advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
            max_num_iterations=data.job["most_evaluations"] - 2, num_ranking_workers=1
        ),
    )
    key = quantizers(chosen)
    if key not in known:
        known[key] = rights(CORE.compile_model(chosen, "CPU", LATENCY), data.images, data.labels, ROWS)
    return {
        "right": known[key],
        "weight_bytes": weight_bytes(chosen),
        "evaluations": counting.n_full,
        "rows_evaluated": counting.n_rows,
        "quantizers": len(key),
    }


def main() -> None:
    data = read_search()
    nncf.set_log_level(40)
    known: dict[tuple[str, ...], Any] = {}
    data.answer([search(data, rows, known) for rows in data.resamples()])


if __name__ == "__main__":
    main()
