from dataclasses import replace

import pytest

from halve.core import Acceptance, BatchPolicy, Deployment, Gateway, Model, ReplicaPolicy, Stack, Stage
from halve.errors import InvalidParameterError

SURE = Acceptance(rule="margin", threshold=0.1)


def make_stack(*names: str, cache: bool = False) -> Stack:
    accept = Acceptance(rule="margin", threshold=0.5)
    stages = [Stage(kind="model", model=name, accept=accept) for name in names[:-1]]
    stages.append(Stage(kind="model", model=names[-1]))
    return Stack(
        name="service",
        models=tuple(Model(name=name, engine="onnxruntime") for name in names),
        stages=(*([Stage(kind="exact_cache")] if cache else []), *stages),
        deployments=tuple(Deployment(model=name, instance_type="c6a.large") for name in names),
        gateway=Gateway(instance_type="c6a.large"),
    )


def test_a_chain_is_looked_up_by_name() -> None:
    stack = make_stack("small", "full", cache=True)
    assert stack.model("small").name == stack.deployment("small").model == "small"
    assert [stage.model for stage in stack.model_stages] == ["small", "full"]
    assert stack.cache_stage is not None
    assert make_stack("full").cache_stage is None


def test_replacing_a_model_keeps_how_it_is_accepted_and_deployed() -> None:
    stack = make_stack("small", "full")
    after = stack.with_model("full", Model(name="full-fp32", engine="onnxruntime"))
    assert [model.name for model in after.models] == ["small", "full-fp32"]
    assert [deployment.model for deployment in after.deployments] == ["small", "full-fp32"]
    assert after.stages[0] == stack.stages[0]
    assert after.stages[1].model == "full-fp32"


def test_replicas_and_deployments_are_replaced_one_by_one() -> None:
    stack = make_stack("small", "full").with_replicas(gateway=2, models={"full": 3})
    assert stack.gateway.replica.replicas == 2
    assert [deployment.replica.replicas for deployment in stack.deployments] == [1, 3]
    wider = stack.with_deployment(replace(stack.deployment("full"), threads=4))
    assert wider.deployment("full").vcpus == 12
    assert wider.deployment("small") == stack.deployment("small")


def test_a_model_asked_first_stands_behind_the_cache_on_one_thread() -> None:
    stack = make_stack("full", cache=True)
    stack = stack.with_deployment(replace(stack.deployment("full"), threads=4, instance_type="c6a.xlarge"))
    tiny = Model(name="tiny", engine="onnxruntime")
    after = stack.with_first_stage(tiny, SURE, max_batch_size=8)
    assert [stage.model for stage in after.stages] == [None, "tiny", "full"]
    assert after.cache_stage == stack.cache_stage
    assert after.stages[1].accept == SURE
    assert after.models == (tiny, *stack.models)
    first = after.deployment("tiny")
    assert (first.threads, first.instance_type, first.replica.replicas) == (1, "c6a.xlarge", 1)
    assert first.batch == BatchPolicy(max_batch_size=8)
    assert after.deployment("full") == stack.deployment("full")


def test_a_model_that_is_there_gets_a_new_threshold_and_nothing_else() -> None:
    stack = make_stack("small", "full", cache=True)
    after = stack.with_first_stage(stack.model("small"), SURE, max_batch_size=8)
    assert after.stages[1] == Stage(kind="model", model="small", accept=SURE)
    assert replace(after, stages=stack.stages) == stack


def test_first_stages_may_be_several() -> None:
    stack = make_stack("small", "full").with_first_stage(Model(name="tiny", engine="torch"), SURE, max_batch_size=1)
    assert [stage.model for stage in stack.stages] == ["tiny", "small", "full"]
    assert [deployment.model for deployment in stack.deployments] == ["tiny", "small", "full"]


def test_the_last_model_cannot_be_asked_first_too() -> None:
    stack = make_stack("full")
    with pytest.raises(InvalidParameterError, match="accept must be empty for the last stage"):
        stack.with_first_stage(stack.model("full"), SURE, max_batch_size=1)
    with pytest.raises(InvalidParameterError, match="models must be unique"):
        stack.with_first_stage(replace(stack.model("full"), parent="other"), SURE, max_batch_size=1)


@pytest.mark.parametrize("cache", [False, True])
def test_the_last_model_alone_keeps_its_cache_and_its_deployment(cache: bool) -> None:
    stack = make_stack("tiny", "small", "full", cache=cache)
    after = stack.with_last_only()
    assert after == make_stack("full", cache=cache)
    assert after.with_last_only() == after


def test_a_file_names_no_code() -> None:
    stack = make_stack("full").with_model("full", Model(name="full", engine="torch", entry="mine:teacher"))
    assert stack.without_entries().models[0].entry is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages": ()}, "stages must be a chain that ends in a model"),
        ({"stages": (Stage(kind="exact_cache"),)}, "stages must be a chain that ends in a model"),
        ({"models": ()}, r"models must be one for each model that a stage uses.*\['small', 'full'\]. Got \[\]"),
        ({"deployments": ()}, "deployments must be one for each model"),
        (
            {"stages": (Stage(kind="model", model="small"), Stage(kind="model", model="full"))},
            "accept of stage 'small' must be set",
        ),
        (
            {"stages": tuple(Stage(kind="model", model=m, accept=SURE) for m in ("small", "full"))},
            "accept must be empty for the last stage",
        ),
        (
            {"models": tuple(Model(name=m, engine="torch") for m in ("small", "full", "full"))},
            "models must be unique",
        ),
    ],
)  # fmt: skip
def test_a_chain_that_cannot_run_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        replace(make_stack("small", "full"), **change)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BatchPolicy(max_batch_size=0), "max_batch_size must be at least 1. Got 0"),
        (lambda: BatchPolicy(max_wait_seconds=-1.0), "max_wait_seconds must be a finite .*Got -1.0"),
        (lambda: ReplicaPolicy(replicas=0), "replicas must be at least 1. Got 0"),
        (lambda: Deployment(model="m", instance_type="i", threads=0), "threads must be at least 1. Got 0"),
    ],
)
def test_policies_check_their_ranges(make: object, message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        make()  # type: ignore[operator]
