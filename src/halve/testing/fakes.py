"""Answerers that need no model: real, small, deterministic, and able to be slow, unsure or broken on purpose."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from halve.core import Payload, Prediction
from halve.errors import AnswerError


def label_of(payload: Payload, classes: int) -> int:
    """Return the class a `FakeAnswerer` gives: the first value of a tensor, or the length of a text, modulo classes."""
    return len(payload) % classes if isinstance(payload, str) else int(payload.ravel()[0]) % classes


@final
class FakeAnswerer:
    """Classifies by `label_of`, and remembers what it was asked.

    Args:
        name: Its name in errors.
        classes: Number of classes, at least 2.
        confidence: Probability of the label for a payload, in (0, 1); the rest is spread evenly.
        seconds_per_batch, seconds_per_item: Slept for each batch; one without items takes no time.
        fails_on: Payloads that raise AnswerError, naming their position.
        breaks_on: Payloads that raise ValueError, naming nobody.
        labels: Texts to answer instead of class indices.
    """

    def __init__(
        self,
        *,
        name: str = "fake",
        classes: int = 10,
        confidence: Callable[[Payload], float] = lambda payload: 0.9,
        seconds_per_batch: float = 0.0,
        seconds_per_item: float = 0.0,
        fails_on: Callable[[Payload], bool] = lambda payload: False,
        breaks_on: Callable[[Payload], bool] = lambda payload: False,
        labels: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.name, self.classes, self.labels = name, classes, labels
        self.seconds_per_batch, self.seconds_per_item = seconds_per_batch, seconds_per_item
        self._confidence, self._fails_on, self._breaks_on = confidence, fails_on, breaks_on
        self.batches: list[list[Payload]] = []
        self.threads: set[str] = set()
        self.is_closed = False

    @property
    def batch_sizes(self) -> list[int]:
        """Sizes of the batches asked, in order."""
        return [len(batch) for batch in self.batches]

    def answer(self, payloads: Sequence[Payload]) -> Prediction:
        """Return one answer per payload, in order."""
        self.batches.append(list(payloads))
        self.threads.add(threading.current_thread().name)
        if payloads and self.seconds_per_batch + self.seconds_per_item > 0:
            time.sleep(self.seconds_per_batch + self.seconds_per_item * len(payloads))
        for index, payload in enumerate(payloads):
            if self._fails_on(payload):
                raise AnswerError(self.name, index=index, cause="it was told to fail")
            if self._breaks_on(payload):
                raise ValueError("it was told to break")
        indices = np.asarray([label_of(payload, self.classes) for payload in payloads], dtype=np.int64)
        answers: NDArray[np.int64] | NDArray[np.object_] = indices
        if self.labels:
            answers = np.asarray([self.labels[index] for index in indices], dtype=object)
        return Prediction(answers=answers, probabilities=self._probabilities(payloads, indices))

    def _probabilities(self, payloads: Sequence[Payload], indices: NDArray[np.int64]) -> NDArray[np.float32]:
        sure = np.asarray([self._confidence(payload) for payload in payloads], dtype=np.float32).reshape(-1, 1)
        table = np.repeat((1 - sure) / (self.classes - 1), self.classes, axis=1)
        np.put_along_axis(table, indices.reshape(-1, 1), sure, axis=1)
        return table.astype(np.float32)

    def close(self) -> None:
        """Remember that it was closed."""
        self.is_closed = True
