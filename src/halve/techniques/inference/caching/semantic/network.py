"""A small network on two vectors that cannot tell which came first: fitted and read with numpy alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from halve.errors import InvalidParameterError

Array = NDArray[np.float64]
Single = NDArray[np.float32]

_FIRST_DECAY, _SECOND_DECAY, _STEADY = 0.9, 0.999, 1e-8
_FEW_ROWS = 8
"""Pairs of one look-up, or two."""

_UNSHARED = 250_000
"""Multiplications of a product of matrices that OpenBLAS makes on one thread: 4 times 65,536."""

_FIELDS = ("mean", "scale", "hidden", "hidden_bias", "out", "out_bias")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRecipe:
    """How the network is trained.

    Args:
        width: Hidden units.
        epochs: Passes over the pairs.
        batch: Pairs per step.
        learning_rate: Of Adam at the start; it falls linearly to 0.
        decay: Pull of the weights towards 0 per step, times the learning rate.
        dropout: Share of hidden units, and half that share of inputs, left out at random in a step.
        seed: Of first weights, order and dropout.
    """

    width: int = 128
    epochs: int = 10
    batch: int = 256
    learning_rate: float = 2e-3
    decay: float = 0.02
    dropout: float = 0.5
    seed: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class PairNetwork:
    """Log-odds w . relu(W z + b) + c of z = (|u - v|, u * v, u + v, features), each column standardized.

    Every combination of the vectors u and v is the same whichever comes first. The first two say how the texts differ,
    the sum what they are about: some topics hold more paraphrases than others.

    Args:
        mean, scale: float32 (inputs,): z is (raw - mean) * scale; scale 0 leaves out a column that never varied.
        hidden: float32 (inputs, width): W.
        hidden_bias: float32 (width,): b.
        out: float32 (width,): w.
        out_bias: float32 (1,): c.
    """

    mean: Single
    scale: Single
    hidden: Single
    hidden_bias: Single
    out: Single
    out_bias: Single

    def logits(self, features: Array, ones: Single, others: Single) -> Array:
        """Return log-odds, float64 (n,).

        Args:
            features: float64 (n, f).
            ones, others: float32 (n, d): vectors of the two texts.
        """
        inputs = (raw_inputs(features, ones, others) - self.mean) * self.scale
        hidden = np.maximum(_product(inputs, self.hidden) + self.hidden_bias, 0)
        logits: Array = (hidden @ self.out + self.out_bias[0]).astype(np.float64)
        return logits

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything as named arrays; `from_arrays` is the way back, bit for bit."""
        return {name: getattr(self, name) for name in _FIELDS}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "PairNetwork":
        """Return the network that `arrays` described.

        Raises:
            InvalidParameterError: If shapes do not fit together.
        """
        inputs, width = arrays["hidden"].shape
        shapes = tuple(arrays[name].shape for name in _FIELDS)
        if shapes != ((inputs,), (inputs,), (inputs, width), (width,), (width,), (1,)):
            raise InvalidParameterError("network", rule="arrays whose shapes fit together", value=shapes)
        return cls(**{name: arrays[name] for name in _FIELDS})


def _product(inputs: Single, weights: Single) -> Single:
    """Return inputs @ weights; for few rows in parts that OpenBLAS makes on the calling thread.

    It would share them out, and two threads that wait for each other are no faster: they cost twice the processor, and
    milliseconds where another process has a core.
    """
    rows, width = len(inputs), weights.shape[1]
    if not 0 < rows <= _FEW_ROWS:
        return inputs @ weights
    # One row alone would go to a routine that always shares.
    together = inputs if rows > 1 else np.repeat(inputs, 2, axis=0)
    step = max(1, _UNSHARED // together.size)
    parts = [together @ weights[:, start : start + step] for start in range(0, width, step)]
    return np.concatenate(parts, axis=1)[:rows]


def raw_inputs(features: Array, ones: Single, others: Single) -> Single:
    """Return (|u - v|, u * v, u + v, features), float32 (n, 3 d + f)."""
    return np.concatenate([np.abs(ones - others), ones * others, ones + others, features.astype(np.float32)], axis=1)


def fit_network(
    features: Array, ones: Single, others: Single, right: NDArray[np.bool_], *, recipe: NetworkRecipe | None = None
) -> PairNetwork:
    """Return a network fitted to labels: mean log loss by Adam with decoupled decay, for a fixed number of passes.

    Nothing is held out to stop early: dropout and decay keep it from learning pairs by heart, and the time is known.
    The same arguments give the same network on the same machine.

    Sources: Kingma & Ba 2015, arXiv:1412.6980; Loshchilov & Hutter 2019, arXiv:1711.05101; Srivastava et al. 2014,
    JMLR 15. The inputs: Conneau et al. 2017, InferSent, arXiv:1705.02364.

    Args:
        features: float64 (n, f), finite.
        ones, others: float32 (n, d).
        right: (n,), both values present.
        recipe: NetworkRecipe() if None.
    """
    recipe = recipe or NetworkRecipe()
    rng = np.random.default_rng(recipe.seed)
    mean, scale = _standard(features, ones, others)
    inputs = len(mean)
    weights = {
        "hidden": (rng.standard_normal((inputs, recipe.width)) * np.sqrt(2 / inputs)).astype(np.float32),
        "hidden_bias": np.zeros(recipe.width, dtype=np.float32),
        "out": (rng.standard_normal(recipe.width) * np.sqrt(1 / recipe.width)).astype(np.float32),
        "out_bias": np.zeros(1, dtype=np.float32),
    }
    moments = {name: (np.zeros_like(weight), np.zeros_like(weight)) for name, weight in weights.items()}
    labels = right.astype(np.float32)
    steps_in_epoch = -(-len(labels) // recipe.batch)
    steps, step = recipe.epochs * steps_in_epoch, 0
    for _ in range(recipe.epochs):
        for rows in np.array_split(rng.permutation(len(labels)), steps_in_epoch):
            batch = (raw_inputs(features[rows], ones[rows], others[rows]) - mean) * scale
            gradients = _gradients(weights, batch, labels[rows], recipe.dropout, rng)
            step += 1
            _adam(
                weights,
                moments,
                gradients,
                step,
                rate=recipe.learning_rate * (1 - (step - 1) / steps),
                decay=recipe.decay,
            )
    return PairNetwork(mean=mean, scale=scale, **weights)


def _standard(features: Array, ones: Single, others: Single) -> tuple[Single, Single]:
    """Return mean and 1 / deviation of every input, in float64 and in slices, so that the whole is never held."""
    n = len(features)
    total, squares = np.zeros(1), np.zeros(1)
    for start in range(0, n, 4096):
        rows = slice(start, start + 4096)
        raw = raw_inputs(features[rows], ones[rows], others[rows]).astype(np.float64)
        total, squares = total + raw.sum(axis=0), squares + np.square(raw).sum(axis=0)
    mean = total / n
    variance = np.maximum(squares / n - mean**2, 0)
    varies = variance > 1e-10 * np.maximum(mean**2, 1e-6)
    scale = np.divide(1, np.sqrt(variance), out=np.zeros_like(variance), where=varies)
    return mean.astype(np.float32), scale.astype(np.float32)


def _gradients(
    weights: Mapping[str, Single], inputs: Single, labels: Single, dropout: float, rng: np.random.Generator
) -> dict[str, Single]:
    """Return the gradient of the mean log loss, with units left out at random and the others raised to make up."""
    if dropout > 0:
        inputs = inputs * _mask(inputs.shape, dropout / 2, rng)
    before = inputs @ weights["hidden"] + weights["hidden_bias"]
    kept = _mask(before.shape, dropout, rng) if dropout > 0 else np.float32(1)
    hidden = np.maximum(before, 0) * kept
    logits = hidden @ weights["out"] + weights["out_bias"]
    errors = (expit(logits) - labels) / np.float32(len(labels))
    back = errors[:, None] * weights["out"] * kept * (before > 0)
    return {
        "hidden": inputs.T @ back,
        "hidden_bias": back.sum(axis=0),
        "out": hidden.T @ errors,
        "out_bias": errors.sum(keepdims=True),
    }


def _mask(shape: tuple[int, ...], share: float, rng: np.random.Generator) -> Single:
    return (rng.random(shape, dtype=np.float32) >= share).astype(np.float32) / np.float32(1 - share)


def _adam(
    weights: dict[str, Single],
    moments: dict[str, tuple[Single, Single]],
    gradients: dict[str, Single],
    step: int,
    *,
    rate: float,
    decay: float,
) -> None:
    for name, gradient in gradients.items():
        first, second = moments[name]
        first *= _FIRST_DECAY
        first += (1 - _FIRST_DECAY) * gradient
        second *= _SECOND_DECAY
        second += (1 - _SECOND_DECAY) * np.square(gradient)
        corrected = first / (1 - _FIRST_DECAY**step)
        size = np.sqrt(second / (1 - _SECOND_DECAY**step)) + _STEADY
        if not name.endswith("bias"):
            weights[name] *= np.float32(1 - rate * decay)
        weights[name] -= np.float32(rate) * corrected / size
