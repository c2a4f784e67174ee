"""What the two searching peers share: the job, the validation sets, the answer. Imports NumPy alone."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


def validation_rows(seed: int, *, population: int, size: int) -> Any:
    """Return the rows of one validation set: a simple random sample of the images that no training saw."""
    return np.random.default_rng([20, seed]).choice(population, size=size, replace=False)


@dataclass(frozen=True)
class Search:
    """A job: `job` holds seeds, size, max_drop and most_evaluations; the arrays are float32 images and labels."""

    folder: Path
    job: dict[str, Any]
    images: Any
    labels: Any
    calibration: Any

    @property
    def files(self) -> dict[str, str]:
        files: dict[str, str] = self.job["files"]
        return files

    def resamples(self) -> list[Any]:
        return [validation_rows(seed, population=len(self.labels), size=self.job["size"]) for seed in self.job["seeds"]]

    def answer(self, found: list[dict[str, Any]]) -> None:
        np.savez(self.folder / "answer.npz", **{key: np.stack([one[key] for one in found]) for key in found[0]})


def read_search() -> Search:
    folder = Path(sys.argv[1])
    job = json.loads((folder / "job.json").read_text())
    with np.load(job["files"]["images"]) as arrays:
        real = {name: arrays[name].astype(np.float32) / np.float32(255) for name in ("images", "calibration")}
        return Search(folder, job, real["images"], arrays["labels"], real["calibration"])
