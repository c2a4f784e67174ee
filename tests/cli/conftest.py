"""The report's records, for the commands that print them."""

from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from halve.core import Run

_RECORDS = Path(__file__).parents[1] / "report" / "conftest.py"


@pytest.fixture(scope="session")
def records() -> dict[str, Callable[[], Run]]:
    """Run records by name."""
    spec = spec_from_file_location("report_records", _RECORDS)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.RUNS
