import numpy as np
import pytest
from torch import nn

from halve.errors import ModelError
from halve.techniques.compression.pruning import seconds_in_onnxruntime
from halve.techniques.compression.pruning.structured.groups import answer
from halve.techniques.compression.pruning.structured.runtime import (
    FEWEST_ROUNDS,
    exported,
    interleaved_seconds,
    open_session,
)


def test_rounds_take_turns():
    order, now = [], [0.0]

    def action(name):
        def run():
            order.append(name)
            now[0] += 1.0

        return run

    seconds = interleaved_seconds({n: action(n) for n in "ab"}, budget_seconds=0.5, clock=lambda: now[0])
    assert seconds == {"a": [1.0] * FEWEST_ROUNDS, "b": [1.0] * FEWEST_ROUNDS}
    assert order[4:8] == ["a", "b", "b", "a"]  # after two warm-up calls each


def test_exported_it_answers_alike_at_any_batch(build):
    make, inputs = build["residual"]
    module, batch = make(), inputs()
    content = exported(module, {name: array[:1] for name, array in batch.items()})
    found = open_session(content).run(None, batch)[0]
    np.testing.assert_allclose(found, answer(module, batch).numpy(), rtol=1e-3, atol=1e-4)


def test_whole_modules_are_timed_by_the_given_timer(build):
    make, inputs = build["plain"]
    shapes = []

    def timer(actions):
        shapes.extend(action()[0].shape for action in actions.values())
        return {name: [3.0, 1.0, 2.0] for name in actions}

    seconds_of = seconds_in_onnxruntime(inputs(), batch_size=4, timer=timer)
    assert seconds_of({"a": make(), "b": make()}) == {"a": 2.0, "b": 2.0}
    assert shapes == [(4, 3), (4, 3)]


def test_what_cannot_be_exported_or_opened_is_named():
    class Odd(nn.Module):
        def forward(self, x):
            return x if float(x.sum()) > 0 else -x

    with pytest.raises(ModelError, match="cannot export Odd"):
        exported(Odd(), {"x": np.ones((2, 2), np.float32)})
    with pytest.raises(ModelError, match="cannot load"):
        open_session(b"nonsense")
