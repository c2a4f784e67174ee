from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.core import Outcomes, Prediction, ServiceCurve, stack_payloads
from halve.errors import InvalidParameterError, RunFolderError


def make_outcomes(n: int = 3, *, texts: bool = False, probabilities: bool = True) -> Outcomes:
    rng = np.random.default_rng(0)
    raw = rng.random((n, 4)).astype(np.float32)
    return Outcomes(
        model="small",
        answers=np.array(["yes"] * n, dtype=object) if texts else rng.integers(0, 4, n),
        scores=rng.integers(0, 2, n).astype(np.float64),
        compute_seconds=rng.random(n),
        probabilities=raw / raw.sum(axis=1, keepdims=True) if probabilities else None,
    )


@pytest.mark.parametrize("texts", [False, True])
@pytest.mark.parametrize("probabilities", [False, True])
def test_outcomes_round_trip(tmp_path: Path, texts: bool, probabilities: bool) -> None:
    outcomes = make_outcomes(texts=texts, probabilities=probabilities)
    path = tmp_path / "deep" / "outcomes.parquet"
    outcomes.save(path)
    loaded = Outcomes.load(path)
    assert loaded.model == "small"
    assert loaded.answers.tolist() == outcomes.answers.tolist()
    np.testing.assert_array_equal(loaded.scores, outcomes.scores)
    np.testing.assert_array_equal(loaded.compute_seconds, outcomes.compute_seconds)
    assert (loaded.probabilities is None) == (not probabilities)
    if probabilities:
        np.testing.assert_array_equal(loaded.probabilities, outcomes.probabilities)
    assert loaded.quality == pytest.approx(outcomes.scores.mean())


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.parquet"
    path.write_bytes(b"not parquet")
    with pytest.raises(RunFolderError, match=r"outcomes\.parquet is not a readable outcomes table"):
        Outcomes.load(path)
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(RunFolderError, match=r"must be a table of schema halve\.outcomes/1"):
        Outcomes.load(path)


def test_scores_have_a_range() -> None:
    with pytest.raises(InvalidParameterError, match="scores of m must be in"):
        Outcomes(model="m", answers=np.zeros(1, int), scores=np.array([1.5]), compute_seconds=np.zeros(1))
    with pytest.raises(InvalidParameterError, match="equally long"):
        Outcomes(model="m", answers=np.zeros(2, int), scores=np.array([1.0]), compute_seconds=np.zeros(1))


def make_curve() -> ServiceCurve:
    return ServiceCurve(
        model="m",
        threads=1,
        batch_sizes=(1, 2, 4),
        samples_seconds=((0.9, 1.0, 1.1), (1.5, 1.5, 1.5), (1.2, 1.4, 3.0)),
        peak_memory_bytes=10,
    )


def test_a_curve_is_monotone_and_interpolated() -> None:
    curve = make_curve()
    assert curve.median_seconds.tolist() == [1.0, 1.5, 1.5]
    assert curve.seconds_by_batch().tolist() == [1.0, 1.5, 1.5, 1.5]
    assert curve.max_batch_size == 4
    ratios = curve.noise_ratios()
    assert list(ratios) == sorted(ratios)
    assert np.median(ratios) == 1


def test_curves_round_trip_and_refuse_damage(tmp_path: Path) -> None:
    path = tmp_path / "curve.json"
    make_curve().save(path)
    assert ServiceCurve.load(path) == make_curve()
    path.write_text("{")
    with pytest.raises(RunFolderError, match="not a readable service curve"):
        ServiceCurve.load(path)
    with pytest.raises(RunFolderError, match="not a readable service curve"):
        ServiceCurve.load(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("sizes", "samples", "message"),
    [
        ((2, 4), ((1.0,), (1.0,)), "batch_sizes must be rising from 1"),
        ((1, 4, 2), ((1.0,), (1.0,), (1.0,)), "batch_sizes must be rising from 1"),
        ((1, 2), ((1.0,),), "samples_seconds must be at least one per batch size"),
        ((1, 2), ((1.0,), ()), "samples_seconds must be at least one per batch size"),
    ],
)
def test_curves_that_cannot_be(sizes: tuple[int, ...], samples: tuple[tuple[float, ...], ...], message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        ServiceCurve(model="m", threads=1, batch_sizes=sizes, samples_seconds=samples, peak_memory_bytes=0)


@given(st.lists(st.lists(st.floats(1e-6, 10), min_size=1, max_size=5), min_size=1, max_size=5))
def test_bigger_batches_never_look_faster(samples: list[list[float]]) -> None:
    curve = ServiceCurve(
        model="m",
        threads=1,
        batch_sizes=tuple(2**i for i in range(len(samples))),
        samples_seconds=tuple(map(tuple, samples)),
        peak_memory_bytes=0,
    )
    assert np.all(np.diff(curve.seconds_by_batch()) >= 0)


def test_payloads_become_one_batch() -> None:
    batch = stack_payloads([np.zeros((1, 2), np.float32), np.ones((1, 2), np.float32)])
    assert batch.shape == (2, 1, 2)
    assert batch.dtype == np.float32
    with pytest.raises(InvalidParameterError, match="payload must be a tensor"):
        stack_payloads(["text"])
    with pytest.raises(InvalidParameterError, match="payload shapes must be equal"):
        stack_payloads([np.zeros(2, np.float32), np.zeros(3, np.float32)])


def test_a_prediction_has_a_length() -> None:
    assert len(Prediction(answers=np.arange(3))) == 3
