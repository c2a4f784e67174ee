import numpy as np
import pytest

from halve.levers.semantic_cache import SemanticCaching


@pytest.fixture(scope="module")
def proposed(tmp_path_factory, open_word_bench):
    """Bench, stack and everything that the lever proposed for it."""
    with open_word_bench(tmp_path_factory.mktemp("words")) as (bench, stack):
        yield bench, stack, list(SemanticCaching().propose(stack, bench))


def test_the_cache_goes_first_and_keeps_the_promise_on_the_search_split(proposed):
    bench, _, changes = proposed
    assert changes
    for change in changes:
        assert [model.name for model in change.after.models] == ["semantic-cache", "teacher"]
        assert change.after.models[0].engine == "semantic_cache"
        measured = bench.measure(change.after)
        assert bench.drop_upper_bound(np.asarray(measured.scores)) <= bench.workload.objective.quality_drop_at_most
        assert measured.stage_share["semantic-cache"] > 0.5, "topics are easy to tell apart"


def test_its_files_are_an_encoder_a_tokenizer_and_a_policy(proposed):
    _, _, changes = proposed
    names = {file.path.rpartition("/")[2] for file in changes[0].after.models[0].files}
    assert names == {"model.onnx", "tokenizer.json", "policy.json"}


def test_it_is_paid_for_like_any_model(proposed):
    bench, _, changes = proposed
    lines = {line.name: line.usd_per_1k_requests for line in bench.measure(changes[0].after).ledger}
    assert lines["semantic-cache"] > 0


def test_a_stack_that_has_one_gets_no_other(proposed):
    bench, _, changes = proposed
    assert list(SemanticCaching().propose(changes[0].after, bench)) == []


def test_without_an_encoder_it_says_so(tmp_path, open_word_bench):
    with open_word_bench(tmp_path, changes={"encoder": None}) as (bench, stack):
        lever = SemanticCaching()
        assert list(lever.propose(stack, bench)) == []
        assert lever.nothing(stack, bench) == "not tried: the config names no encoder"
