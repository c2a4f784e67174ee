from dataclasses import replace

import numpy as np
import pytest
import torch

from halve.techniques.compression.distillation import Recipe, updates
from halve.techniques.compression.distillation.checkpoint import Checkpoint, Keeper
from halve.techniques.compression.distillation.run import Changes, Run
from halve.techniques.compression.distillation.sources import RowLoss

RECIPE = Recipe(epochs=2, learning_rate=0.01, batch_size=32)


def started(problem, student, keeper, recipe=RECIPE, **changes):
    loss = RowLoss(problem.log_probabilities, problem.labels, rows=240, recipe=recipe)
    run = Run(student, problem.inputs, loss, recipe=recipe, changes=Changes(**changes))
    run.add_hints(None, ())
    run.keeper = keeper
    return run


@pytest.mark.parametrize(("rows", "expected"), [(1, 1), (31, 1), (32, 1), (63, 1), (64, 2)])
def test_an_incomplete_batch_is_left_out_unless_it_is_the_only_one(rows, expected):
    assert updates(rows, RECIPE) == expected


def test_every_row_is_seen_at_most_once_an_epoch(problem, student_of):
    seen = []

    def augment(batch):
        seen.append(batch["points"])
        return batch

    started(problem, student_of(), Keeper(None, ()), augment=augment).finish()
    first, second = (torch.cat(seen[start : start + 7]) for start in (0, 7))
    for epoch in (first, second):
        assert len(torch.unique(epoch, dim=0)) == 224
    assert not torch.equal(first, second)


def test_the_state_within_an_epoch_is_kept_too(problem, student_of, tmp_path, state_bytes):
    whole = student_of()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        started(problem, whole, Keeper(None, ())).finish()

    class StoppedError(Exception):
        pass

    calls = []

    def stop():
        calls.append(1)
        if len(calls) == 10:
            raise StoppedError

    kept = Checkpoint(folder=tmp_path, least_seconds=0, most_seconds=0)
    student = student_of()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        run = started(problem, student, Keeper(kept, ("run",)))
        run.progress = stop
        with pytest.raises(StoppedError):
            run.finish()
    again, late = student_of(), []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        run = started(problem, again, Keeper(kept, ("run",)))
        run.progress = lambda: late.append(1)
        done = run.finish()
    assert len(late) == 14 - 9
    assert state_bytes(again) == state_bytes(whole)
    assert [np.isfinite(epoch.loss) for epoch in done.history] == [True, True]


def test_a_small_set_is_one_batch(problem, student_of):
    recipe = replace(RECIPE, batch_size=1000)
    seen = []
    run = started(problem, student_of(), Keeper(None, ()), recipe, augment=lambda batch: seen.append(1) or batch)
    run.finish()
    assert len(seen) == 2
