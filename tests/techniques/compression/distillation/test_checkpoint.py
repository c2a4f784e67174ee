import numpy as np
import pytest
import torch

from halve.errors import InvalidParameterError
from halve.techniques.compression.distillation import Checkpoint, array_sha256
from halve.techniques.compression.distillation.checkpoint import Keeper, State, identity


def keeper(tmp_path, *parts, **seconds):
    return Keeper(Checkpoint(folder=tmp_path, **seconds), parts)


def test_a_state_comes_back_as_it_was(tmp_path):
    tensors = {"a.weight": torch.arange(6.0).reshape(2, 3), "b.step": torch.tensor(3)}
    one = keeper(tmp_path, "run")
    assert one.read() is None
    one.write(State(tensors=tensors, document={"epoch": 2, "losses": [0.1, 1e-300]}))
    state = keeper(tmp_path, "run").read()
    assert state.document == {"epoch": 2, "losses": [0.1, 1e-300]}
    assert list(state.part("a")) == ["weight"]
    assert torch.equal(state.part("a")["weight"], tensors["a.weight"])
    assert keeper(tmp_path, "another run").read() is None


def test_a_damaged_state_is_none(tmp_path):
    one = keeper(tmp_path, "run")
    one.write(State(tensors={"a": torch.zeros(100)}, document={}))
    one.path.write_bytes(one.path.read_bytes()[:-50])
    assert one.read() is None


def test_without_a_checkpoint_nothing_is_kept(tmp_path):
    none = Keeper(None, ())
    none.write(State(tensors={}, document={}))
    assert none.read() is None
    assert not none.is_due(at_end_of_epoch=True)


def test_an_epochs_end_is_kept_sooner_than_its_middle(tmp_path):
    one = keeper(tmp_path, "run", least_seconds=0, most_seconds=3600)
    assert one.is_due(at_end_of_epoch=True)
    assert not one.is_due(at_end_of_epoch=False)
    with pytest.raises(InvalidParameterError, match=r"least_seconds must be in \[0, most_seconds\]"):
        Checkpoint(folder=tmp_path, least_seconds=2, most_seconds=1)


def test_every_part_changes_the_identity():
    array = np.arange(4)
    parts = [("a",), ("b",), ("a", "b"), (array,), (array.astype(np.int32),), (array[::-1],), ({"a": array},)]
    parts += [({"b": array},), (torch.arange(4.0),), (None,)]
    assert len({identity(part) for part in parts}) == len(parts)
    assert identity([{"a": array}]) == identity([{"a": torch.arange(4)}])
    assert array_sha256({"a": array}) != array_sha256({"a": array + 1})
    assert len(array_sha256({"a": array})) == 64
