import platform
from importlib.metadata import version

from halve.measure.host import describe_host, usable_cores


def test_this_machine_is_described() -> None:
    host = describe_host()
    assert host.cpu_count == usable_cores() >= 1
    assert host.memory_bytes > 2**28
    assert host.processor
    assert host.versions["python"] == platform.python_version()
    assert host.versions["numpy"] == version("numpy")


def test_packages_that_are_not_installed_are_left_out() -> None:
    assert set(describe_host(["numpy", "no-such-package-anywhere"]).versions) == {"python", "numpy"}
