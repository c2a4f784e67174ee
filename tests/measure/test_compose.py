import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from halve.core import Acceptance, Deployment, Gateway, Model, Outcomes, Stack, Stage, Traffic
from halve.errors import InvalidParameterError
from halve.measure.compose import compose, exits


def top_is_enough(probabilities: NDArray[np.float32], accept: Acceptance) -> NDArray[np.bool_]:
    return np.asarray(probabilities.max(axis=1) >= accept.threshold)


def make_stack(threshold: float, *, cache: bool = False) -> Stack:
    names = ("small", "full")
    accept = Acceptance(rule="maximum_probability", threshold=threshold)
    return Stack(
        name="s",
        models=tuple(Model(name=name, engine="recorded") for name in names),
        stages=(
            *([Stage(kind="exact_cache")] if cache else []),
            Stage(kind="model", model="small", accept=accept),
            Stage(kind="model", model="full"),
        ),
        deployments=tuple(Deployment(model=name, instance_type="c6a.large") for name in names),
        gateway=Gateway(instance_type="c6a.large"),
    )


def make_outcomes(seed: int, n: int = 20) -> dict[str, Outcomes]:
    rng = np.random.default_rng(seed)
    tables = {}
    for name in ("small", "full"):
        raw = rng.random((n, 3)).astype(np.float32)
        tables[name] = Outcomes(
            model=name,
            answers=rng.integers(0, 3, n),
            scores=rng.integers(0, 2, n).astype(float),
            compute_seconds=np.ones(n),
            probabilities=raw / raw.sum(axis=1, keepdims=True),
        )
    return tables


@given(st.integers(0, 100), st.floats(0, 1))
def test_every_example_is_answered_by_the_first_stage_that_is_sure(seed: int, threshold: float) -> None:
    tables = make_outcomes(seed)
    found = compose(make_stack(threshold), outcomes=tables, accepted=top_is_enough)
    probabilities = tables["small"].probabilities
    assert probabilities is not None
    sure = probabilities.max(axis=1) >= threshold
    np.testing.assert_array_equal(found.stage, np.where(sure, 0, 1))
    np.testing.assert_array_equal(found.scores, np.where(sure, tables["small"].scores, tables["full"].scores))
    np.testing.assert_array_equal(found.answers, np.where(sure, tables["small"].answers, tables["full"].answers))


def test_a_stage_without_confidence_is_refused() -> None:
    tables = make_outcomes(0)
    small = tables["small"]
    tables["small"] = Outcomes(
        model="small", answers=small.answers, scores=small.scores, compute_seconds=small.compute_seconds
    )
    with pytest.raises(InvalidParameterError, match="stage small must be a model that gives probabilities"):
        compose(make_stack(0.5), outcomes=tables, accepted=top_is_enough)


def test_hits_leave_at_the_gateway_and_examples_wrap_around() -> None:
    traffic = Traffic(
        arrival_seconds=np.arange(4.0),
        content=np.array([0, 1, 0, 2]),
        example=np.array([0, 1, 0, 21]),
        duration_seconds=4.0,
        repeats="observed",
    )
    found = compose(make_stack(2.0), outcomes=make_outcomes(1), accepted=top_is_enough)
    found.stage[:] = np.arange(20) % 2

    def third_hits(content: NDArray[np.int64], arrivals: NDArray[np.float64], stage: Stage) -> NDArray[np.bool_]:
        return np.array([False, False, True, False])

    kept = exits(make_stack(2.0), traffic=traffic, composition=found, cache_hits=third_hits)
    assert kept.tolist() == [1, 2, 1, 2]
    cached = exits(make_stack(2.0, cache=True), traffic=traffic, composition=found, cache_hits=third_hits)
    assert cached.tolist() == [1, 2, 0, 2]
