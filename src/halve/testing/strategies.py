"""Hypothesis strategies of our nouns, for our tests and for those of anybody who builds on halve."""

from typing import TYPE_CHECKING

from halve.core import (
    QUANTILE_LEVELS,
    Acceptance,
    BatchPolicy,
    Deployment,
    Gateway,
    Latency,
    LedgerLine,
    Measurement,
    Model,
    ModelFile,
    Preprocess,
    Recipe,
    ReplicaPolicy,
    Stack,
    Stage,
)

if TYPE_CHECKING:
    from hypothesis import strategies as st

_NAMES = ("tiny", "small", "middle", "full")
_INSTANCES = ("c6a.large", "m6a.large")


def models(name: str) -> "st.SearchStrategy[Model]":
    """Return models of that name."""
    from hypothesis import strategies as st

    files = st.builds(
        ModelFile,
        path=st.sampled_from(["models/a.onnx", "models/ü.safetensors"]),
        sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
        size_bytes=st.integers(0, 10**12),
    )
    scalars = st.one_of(st.booleans(), st.integers(-5, 5), st.floats(0.1, 0.9), st.text(max_size=5))
    return st.builds(
        Model,
        name=st.just(name),
        engine=st.sampled_from(["torch", "onnxruntime", "openvino", "recorded"]),
        files=st.lists(files, max_size=2).map(tuple),
        preprocess=st.builds(Preprocess, kind=st.sampled_from(["tensor", "wordpiece"]), max_tokens=st.integers(1, 512)),
        parent=st.sampled_from([None, "full"]),
        recipe=st.one_of(
            st.none(),
            st.builds(
                Recipe,
                technique=st.sampled_from(["quantization", "given"]),
                parameters=st.dictionaries(st.text("abc", min_size=1, max_size=3), scalars, max_size=3),
            ),
        ),
    )


def stacks() -> "st.SearchStrategy[Stack]":
    """Return valid stacks of one to four models, with and without a cache."""
    from hypothesis import strategies as st

    @st.composite
    def build(draw: st.DrawFn) -> Stack:
        names = draw(st.lists(st.sampled_from(_NAMES), min_size=1, max_size=4, unique=True))
        accept = st.builds(
            Acceptance,
            rule=st.sampled_from(["maximum_probability", "margin", "entropy"]),
            threshold=st.floats(0, 1),
        )
        stages = [Stage(kind="model", model=name, accept=draw(accept)) for name in names[:-1]]
        cache = [Stage(kind="exact_cache", ttl_seconds=draw(st.sampled_from([None, 60.0])))] * draw(st.integers(0, 1))
        return Stack(
            name=draw(st.text(min_size=1, max_size=8)),
            models=tuple(draw(models(name)) for name in names),
            stages=(*cache, *stages, Stage(kind="model", model=names[-1])),
            deployments=tuple(draw(_deployments(name)) for name in names),
            gateway=Gateway(
                instance_type=draw(st.sampled_from(_INSTANCES)),
                replica=ReplicaPolicy(replicas=draw(st.integers(1, 9))),
            ),
        )

    return build()


def _deployments(name: str) -> "st.SearchStrategy[Deployment]":
    from hypothesis import strategies as st

    return st.builds(
        Deployment,
        model=st.just(name),
        instance_type=st.sampled_from(_INSTANCES),
        threads=st.integers(1, 8),
        batch=st.builds(BatchPolicy, max_batch_size=st.integers(1, 64), max_wait_seconds=st.floats(0, 1)),
        replica=st.builds(ReplicaPolicy, replicas=st.integers(1, 99)),
    )


def measurements() -> "st.SearchStrategy[Measurement]":
    """Return measurements with any finite figures."""
    from hypothesis import strategies as st

    seconds = st.floats(0, 100)
    shares = st.floats(0, 1)
    latency = st.builds(
        Latency,
        mean_seconds=seconds,
        quantile_seconds=st.lists(seconds, min_size=len(QUANTILE_LEVELS), max_size=len(QUANTILE_LEVELS)).map(
            lambda values: tuple(sorted(values))
        ),
    )
    return st.builds(
        Measurement,
        stack=st.text(max_size=5),
        provenance=st.sampled_from(["simulated", "replayed"]),
        split=st.sampled_from(["search", "certify"]),
        scores=st.lists(shares, min_size=1, max_size=20).map(tuple),
        ledger=st.lists(
            st.builds(LedgerLine, name=st.text(max_size=5), usd_per_1k_requests=st.floats(-1, 1)), max_size=4
        ).map(tuple),
        latency=latency,
        utilization=st.dictionaries(st.sampled_from(_NAMES), shares, max_size=3),
        stage_share=st.dictionaries(st.sampled_from(_NAMES), shares, max_size=3),
        instances=st.dictionaries(st.sampled_from(_INSTANCES), st.integers(0, 9), max_size=2),
        peak_memory_bytes=st.integers(0, 10**12),
        n_requests=st.integers(1, 10**9),
        notes=st.lists(st.text(max_size=5), max_size=2).map(tuple),
    )
