"""A finished run for the blocks that open one."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

_RECORDS = Path(__file__).parents[1] / "report" / "conftest.py"


@pytest.fixture(scope="session")
def finished_run():
    spec = spec_from_file_location("report_records_for_docs", _RECORDS)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return next(iter(module.RUNS.values()))()
