"""A whole service in a few kilobytes: data, a teacher, a cheaper answerer and a config, to test everything at once.

Points in eight dimensions belong to one of three classes; the border is bent, so that a linear model gets
most of them right and random features nearly all. All weights are solved in closed form: nothing is trained.
"""

from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import nn

DIMENSIONS, CLASSES, WIDTH = 8, 3, 384

BUILT_LOG = "built.log"
"""In the service's folder: one line for every time that a model was built, so that tests can count."""

_ENTRIES = f'''"""The user's code of this service; it notes every model that it builds."""

from pathlib import Path

from {__name__} import breaks_on_one_input as _breaks
from {__name__} import linear as _linear
from {__name__} import teacher as _teacher
from {__name__} import untrained as _untrained


def _noted(make):
    def build():
        with Path(__file__).with_name("{BUILT_LOG}").open("a") as log:
            log.write(make.__name__ + "\\n")
        return make()

    return build


teacher, linear, broken, untrained = _noted(_teacher), _noted(_linear), _noted(_breaks), _noted(_untrained)
'''


@cache
def points(n: int = 1500) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return payloads, float32 (n, 8), and their classes, int64 (n,)."""
    rng = np.random.default_rng(2026)
    inputs = rng.standard_normal((n, DIMENSIONS)).astype(np.float32)
    return inputs, _classes(inputs, rng.standard_normal((DIMENSIONS, CLASSES)))


@cache
def training_points(n: int = 2000) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return other payloads of the same kind, float32 (n, 8), and their classes, int64 (n,): what may be trained on."""
    rng = np.random.default_rng(2026)
    rng.standard_normal((1500, DIMENSIONS))
    directions = rng.standard_normal((DIMENSIONS, CLASSES))
    inputs = rng.standard_normal((n, DIMENSIONS)).astype(np.float32)
    return inputs, _classes(inputs, directions)


def _classes(inputs: NDArray[np.float32], directions: NDArray[np.float64]) -> NDArray[np.int64]:
    bends = np.abs(inputs[:, :1]) * np.array([0.9, -0.4, 0.2])
    return np.asarray(np.argmax(inputs @ directions + bends, axis=1), np.int64)


def teacher(width: int = WIDTH) -> "nn.Module":
    """Return a network of random features whose last layer is solved by least squares; right on most points."""
    import torch
    from torch import nn

    rng = np.random.default_rng(7)
    sizes = (DIMENSIONS, width, width)
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layer = nn.Linear(fan_in, fan_out)
        spread = (2 / fan_in) ** 0.5
        layer.weight.data = torch.from_numpy(rng.normal(0, spread, (fan_out, fan_in)).astype(np.float32))
        layer.bias.data = torch.from_numpy(rng.normal(0, 0.5, fan_out).astype(np.float32))
        layers += [layer, nn.ReLU()]
    trunk = nn.Sequential(*layers).eval()
    inputs, _ = points()
    with torch.inference_mode():
        features = trunk(torch.from_numpy(inputs)).numpy()
    return nn.Sequential(*layers, _solved_head(features)).eval()


def linear() -> "nn.Module":
    """Return the linear model of least squares: cheaper, and wrong along the bend."""
    inputs, _ = points()
    return _solved_head(inputs).eval()


def untrained() -> "nn.Module":
    """Return a small network that has learned nothing yet, the same each time."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(DIMENSIONS, 32), nn.ReLU(), nn.Linear(32, CLASSES)).eval()


def breaks_on_one_input() -> "nn.Module":
    """Return a module that raises on the point whose first coordinate is the largest."""
    import torch
    from torch import nn

    worst = float(points()[0][:, 0].max())

    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = linear()

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            if bool((inputs[:, 0] >= worst).any()):
                raise ValueError("a coordinate is out of range")
            logits: torch.Tensor = self.head(inputs)
            return logits

    return Broken().eval()


def _solved_head(features: NDArray[np.float32]) -> "nn.Module":
    """Return the layer from features to logits, least squares with a ridge; logits are sharpened by 8."""
    import torch
    from torch import nn

    _, classes = points()
    targets = 8.0 * np.eye(CLASSES)[classes]
    wide = np.concatenate([features.astype(np.float64), np.ones((len(features), 1))], axis=1)
    weights = np.linalg.solve(wide.T @ wide + 0.1 * np.eye(wide.shape[1]), wide.T @ targets)
    head = nn.Linear(features.shape[1], CLASSES)
    head.weight.data = torch.from_numpy(weights[:-1].T.astype(np.float32).copy())
    head.bias.data = torch.from_numpy(weights[-1].astype(np.float32).copy())
    return head


TRAINING = {"file": "training.npz", "payload": "inputs", "reference": "classes", "epochs": 60}
"""For `changes`: the section that lets levers train."""

STUDENTS = ({"name": "tiny", "entry": "tiny_models:untrained"},)


def config(**changes: Any) -> dict[str, Any]:
    """Return the service's config as plain data, top-level sections replaced by `changes`; None removes one."""
    document: dict[str, Any] = {
        "name": "tiny",
        "examples": {"file": "points.npz", "payload": "inputs", "reference": "classes"},
        "model": {"name": "teacher", "entry": "tiny_models:teacher"},
        "answerers": [{"name": "linear", "entry": "tiny_models:linear"}],
        "traffic": {"generate": {"kind": "poisson", "requests_per_second": 300, "duration_seconds": 12}},
        "baseline": {"replicas": 6},
        "objective": {"quality_drop_at_most": 0.03, "confidence": 0.95, "latency_p99_seconds": 0.05},
        "replay": {"seconds": 3},
    }
    merged = {**document, **changes}
    return {key: value for key, value in merged.items() if value is not None}


def write_service(folder: Path, *, examples: int = 1500, changes: Mapping[str, Any] | None = None) -> Path:
    """Write the data, the models' code and a halve.yaml into a folder, and return the config's path."""
    import yaml

    folder.mkdir(parents=True, exist_ok=True)
    inputs, classes = points()
    np.savez(folder / "points.npz", inputs=inputs[:examples], classes=classes[:examples])
    others, of_others = training_points()
    np.savez(folder / "training.npz", inputs=others, classes=of_others)
    (folder / "tiny_models.py").write_text(_ENTRIES)
    path = folder / "halve.yaml"
    path.write_text(yaml.safe_dump(config(**(changes or {})), sort_keys=False))
    return path
