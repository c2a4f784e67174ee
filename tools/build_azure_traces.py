"""Writes `src/halve/workload/data/azure_llm_2023.npz` from the two CSV files of the Azure LLM inference traces.

    python tools/build_azure_traces.py FOLDER src/halve/workload/data/azure_llm_2023.npz

FOLDER holds AzureLLMInferenceTrace_code.csv and AzureLLMInferenceTrace_conv.csv. Only arrival times are taken, in whole
milliseconds from the first arrival (halves up). They are stored as gaps, which compress better than times.
"""

import csv
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def milliseconds(path: Path) -> NDArray[np.int64]:
    """Return the arrivals of one CSV file in milliseconds from the first, int64 (n,)."""
    with path.open(newline="") as file:
        times = [row["TIMESTAMP"].replace(" ", "T") for row in csv.DictReader(file)]
    nanoseconds = np.array(times, dtype="datetime64[ns]").astype(np.int64)
    return (nanoseconds - nanoseconds[0] + 500_000) // 1_000_000


def main(folder: Path, target: Path) -> None:
    """Write both traces as gaps, int32, the first gap being 0."""
    gaps = {
        name: np.diff(milliseconds(folder / f"AzureLLMInferenceTrace_{name}.csv"), prepend=0).astype(np.int32)
        for name in ("code", "conv")
    }
    np.savez_compressed(target, **gaps)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
