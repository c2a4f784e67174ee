from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.pruning import Iterations, prune, rebuild, removable_blocks
from halve.techniques.compression.pruning.structured.groups import answer


def weights(module):
    """Stands for measured seconds: deterministic, and it falls with every channel."""
    return 100.0 + sum(parameter.numel() for parameter in module.parameters() if parameter.ndim > 1)


def seconds_of(modules):
    return {name: weights(module) for name, module in modules.items()}


@pytest.mark.parametrize("importance", ["magnitude", "taylor", "activation"])
def test_the_measured_ratio_meets_the_target(build, proportional, importance):
    make, inputs = build["residual"]
    module = make(first=32, second=64)
    pruned = prune(
        module,
        inputs(),
        target_latency_ratio=0.5,
        importance=importance,
        seconds_of=seconds_of,
        timer=proportional,
    )
    assert pruned.measured_ratio <= 0.5
    assert pruned.measured_ratio == weights(pruned.module) / weights(module)
    assert all(change.after <= change.before and change.after % 4 == 0 for change in pruned.groups)
    assert answer(pruned.module, inputs()).shape == (8, 5)
    assert not pruned.module.training
    rebuilt = rebuild(module, pruned.specification).eval()
    assert torch.equal(answer(rebuilt, inputs()), answer(pruned.module, inputs()))


def test_the_budget_is_corrected_where_the_table_is_wrong(build, proportional):
    make, inputs = build["plain"]
    calls = []

    def optimistic(modules):
        # Most of the seconds are none of the layers': the first plan cannot do.
        calls.append(len(modules))
        return {name: 3000.0 + weights(module) for name, module in modules.items()}

    pruned = prune(make(hidden=64), inputs(), target_latency_ratio=0.8, seconds_of=optimistic, timer=proportional)
    assert pruned.measured_ratio <= 0.8
    assert pruned.predicted_ratio < 0.75
    assert len(calls) >= 2


def test_in_steps_it_recovers_in_between_and_still_rebuilds(build, proportional):
    make, inputs = build["plain"]
    module, sizes = make(hidden=96), []

    def recover(smaller):
        sizes.append(weights(smaller))
        with torch.no_grad():
            for parameter in smaller.parameters():
                parameter.add_(0.01)

    pruned = prune(
        module,
        inputs(),
        target_latency_ratio=0.4,
        seconds_of=seconds_of,
        timer=proportional,
        iterations=Iterations(steps=2, recover=recover),
    )
    assert len(sizes) == 1
    assert weights(module) > sizes[0] > weights(pruned.module)
    assert [(change.name, change.before) for change in pruned.groups] == [("0", 96), ("2", 96)]
    rebuilt = rebuild(module, pruned.specification)
    rebuilt.load_state_dict(pruned.module.state_dict())
    assert torch.equal(answer(rebuilt.eval(), inputs()), answer(pruned.module, inputs()))


def test_blocks_go_first_and_are_in_the_specification(build, proportional):
    make, inputs = build["encoder"]
    module = make()
    blocks = removable_blocks(module, inputs())[:1]
    steps = []

    def progress(text):
        steps.append(text)
        return nullcontext()

    pruned = prune(
        module,
        inputs(),
        target_latency_ratio=0.5,
        seconds_of=seconds_of,
        timer=proportional,
        removed_blocks=blocks,
        progress=progress,
    )
    assert pruned.specification.removed_blocks == blocks
    rebuilt = rebuild(module, pruned.specification).eval()
    assert torch.equal(answer(rebuilt, inputs()), answer(pruned.module, inputs()))
    assert steps[:2] == ["finding what can be pruned", "timing layers"]


def test_by_itself_it_exports_and_times_whole_models():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 4)).eval()
    inputs = {"x": np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)}

    def timer(actions):
        # Layers by their widths; whole models by what they hold, found by running them.
        seconds = {}
        for name, action in actions.items():
            words = name.split()
            action()
            seconds[name] = [{"parent": 2.0, "pruned": 1.0}[name] if len(words) == 1 else int(words[1]) * int(words[3])]
        return seconds

    pruned = prune(module, inputs, target_latency_ratio=0.5, importance="magnitude", timer=timer, batch_size=2)
    assert pruned.measured_ratio == 0.5


def test_out_of_reach_is_named(build, proportional):
    make, inputs = build["plain"]
    with pytest.raises(ModelError, match=r"no pruning reaches 0\.01"):
        prune(make(), inputs(), target_latency_ratio=0.01, seconds_of=seconds_of, timer=proportional)
    constant = dict.fromkeys(("parent", "pruned"), 1.0)
    with pytest.raises(ModelError, match=r"no pruning reaches 0\.6"):
        prune(make(hidden=96), inputs(), target_latency_ratio=0.6, seconds_of=lambda _: constant, timer=proportional)
    with pytest.raises(ModelError, match="no channels"):
        prune(nn.Linear(6, 3), inputs(), target_latency_ratio=0.5)
    with pytest.raises(InvalidParameterError, match="target_latency_ratio"):
        prune(make(), inputs(), target_latency_ratio=1.0)
    with pytest.raises(InvalidParameterError, match="steps"):
        Iterations(steps=0)
