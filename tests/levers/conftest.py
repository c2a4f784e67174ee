"""A bench over real torch modules with data to train on."""

from contextlib import contextmanager

import pytest

from halve.assembly import entries
from halve.assembly.config import Config
from halve.assembly.wiring import wire
from halve.core import Deployment, Gateway, ServiceCurve, Stack, Stage
from halve.core.documents import load_yaml
from halve.core.progress import Silent
from halve.testing.tiny_service import STUDENTS, TRAINING, write_service
from halve.testing.word_service import write_word_service


@contextmanager
def wired_bench(path, folder):
    """Give the wired bench of a config and its baseline's stack; the gateway's time is given."""
    gateway = ServiceCurve(
        model="gateway", threads=1, batch_sizes=(1,), samples_seconds=((0.0003,),), peak_memory_bytes=0
    )
    with entries.importable(path.parent):
        config = load_yaml(Config, path)
        bench = wire(
            config,
            config_folder=path.parent,
            runs=folder / "runs",
            progress=Silent(),
            measure_gateway=lambda workload: gateway,
        ).bench
        stack = Stack(
            name=config.name,
            models=(bench.baseline,),
            stages=(Stage(kind="model", model="teacher"),),
            deployments=(Deployment(model="teacher", instance_type="c6a.large"),),
            gateway=Gateway(instance_type="c6a.large"),
        )
        yield bench, stack


def training_bench(folder, *, changes=None):
    """Give the bench of the tiny service with data to train on, and its baseline's stack."""
    wanted = {"training": TRAINING, "students": list(STUDENTS), "answerers": [], **(changes or {})}
    return wired_bench(write_service(folder, changes=wanted), folder)


def word_bench(folder, *, changes=None):
    """Give the bench of the text service and its baseline's stack."""
    return wired_bench(write_word_service(folder, changes=changes), folder)


@pytest.fixture(scope="session")
def open_word_bench():
    """Return `word_bench`."""
    return word_bench


@pytest.fixture(scope="session")
def open_training_bench():
    """Return `training_bench`."""
    return training_bench
