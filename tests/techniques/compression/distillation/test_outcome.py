import dataclasses

import pytest

from halve.techniques.compression.distillation import Check, Distilled, Epoch


def test_what_training_did_cannot_be_changed_afterwards():
    done = Distilled(history=(Epoch(loss=1.0),), best_epoch=0, gap_upper_bound=None, seconds=1.0, stopped_early=False)
    assert done.history[0].gap_upper_bound is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        done.best_epoch = 1


def test_a_check_says_that_it_certifies_nothing():
    assert "must be certified on other data" in " ".join(Check.__doc__.split())
