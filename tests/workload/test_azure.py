import csv
import os
import runpy
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from halve.errors import InvalidParameterError
from halve.workload import AZURE_TRACES, azure_trace, describe

TOOL = Path(__file__).parents[2] / "tools" / "build_azure_traces.py"
needs_data = pytest.mark.skipif("HALVE_DATA" not in os.environ, reason="HALVE_DATA is not set")


def shared() -> Path:
    return Path(os.environ["HALVE_DATA"]) / "azure_llm_2023"


@pytest.mark.parametrize(
    ("name", "n", "last_seconds"), [("azure-code", 8819, 3435.948), ("azure-conv", 19366, 3501.722)]
)
def test_length_and_number_of_arrivals(name: str, n: int, last_seconds: float) -> None:
    traffic = azure_trace(name)
    assert traffic.n_requests == n
    assert traffic.arrival_seconds[0] == 0
    assert traffic.arrival_seconds[-1] == traffic.duration_seconds == last_seconds
    assert traffic.repeats == "none"
    assert describe(traffic).repeat_share == 0


def test_unknown_trace_names_the_near_one() -> None:
    with pytest.raises(InvalidParameterError, match=r"one of azure-code, azure-conv\. Got 'azure-cod'\. Did you mean"):
        azure_trace("azure-cod")
    with pytest.raises(InvalidParameterError, match=r"Got 'zzz'\.$"):
        azure_trace("zzz")


@pytest.mark.data
@needs_data
@pytest.mark.parametrize("name", AZURE_TRACES)
def test_packaged_times_are_those_of_the_shared_csv(name: str) -> None:
    path = shared() / f"AzureLLMInferenceTrace_{AZURE_TRACES[name]}.csv"
    with path.open(newline="") as file:
        times = [datetime.fromisoformat(row["TIMESTAMP"]) for row in csv.DictReader(file)]
    exact = np.array([(time - times[0]).total_seconds() for time in times])
    packaged = azure_trace(name).arrival_seconds
    assert len(packaged) == len(exact)
    assert np.max(np.abs(packaged - exact)) <= 0.000_5 + 1e-6  # half a millisecond; datetime drops the seventh digit


@pytest.mark.data
@needs_data
def test_the_tool_rebuilds_the_packaged_numbers(tmp_path: Path) -> None:
    runpy.run_path(str(TOOL))["main"](shared(), tmp_path / "traces.npz")
    with np.load(tmp_path / "traces.npz", allow_pickle=False) as arrays:
        assert sorted(arrays.files) == sorted(AZURE_TRACES.values())
        for name, array in AZURE_TRACES.items():
            assert np.array_equal(np.cumsum(arrays[array]) / 1000, azure_trace(name).arrival_seconds)
