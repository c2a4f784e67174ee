"""A calibrated probability that a stored answer is right, from evidence. Read with numpy; fitted in `training`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.logistic import LogisticModel, probabilities
from halve.techniques.inference.caching.semantic.network import PairNetwork
from halve.techniques.inference.caching.semantic.packing import packed_all, unpacked_all
from halve.techniques.inference.caching.semantic.trees import BoostedTrees

Array = NDArray[np.float64]
Single = NDArray[np.float32]
Model = LogisticModel | BoostedTrees | PairNetwork

SCHEMA = "halve.scorer/1"
_KINDS: dict[type[Model], str] = {LogisticModel: "logistic", BoostedTrees: "trees", PairNetwork: "network"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Member:
    """Models of one kind, fitted on different folds; their mean log-odds count.

    Args:
        models: At least one, all of one kind.
    """

    models: tuple[Model, ...]

    def logits(self, features: Array, ones: Single | None, others: Single | None) -> Array:
        """Return the mean of the models' log-odds, float64 (n,)."""
        mean: Array = np.mean([model_logits(model, features, ones, others) for model in self.models], axis=0)
        return mean


@dataclass(frozen=True, kw_only=True, eq=False)
class Scorer:
    """P(right | evidence) = sigmoid(sum over members of w_m l_m + b), l_m the member's log-odds.

    Weights and b are a logistic regression on log-odds of examples that a member was not fitted on, which weighs the
    members and calibrates the sum in one go (Wolpert 1992, stacked generalization; Platt 1999 for the sigmoid).

    Args:
        names: What the columns of evidence are.
        members: At least one.
        combination: w and b.
        dimension: Of the vectors it needs, 0 if none.
    """

    names: tuple[str, ...]
    members: tuple[Member, ...]
    combination: LogisticModel
    dimension: int = 0

    def logits(self, features: Array, ones: Single | None = None, others: Single | None = None) -> Array:
        """Return calibrated log-odds, float64 (n,).

        Args:
            features: float64 (n, len(names)).
            ones, others: float32 (n, dimension): vectors of question and stored question; None if dimension is 0.

        Raises:
            InvalidParameterError: If a shape is wrong, or vectors are missing.
        """
        if features.ndim != 2 or features.shape[1] != len(self.names):
            raise InvalidParameterError("features", rule=f"of shape (n, {len(self.names)})", value=features.shape)
        if self.dimension:
            wanted = (len(features), self.dimension)
            for vectors in (ones, others):
                if vectors is None or vectors.shape != wanted:
                    given = None if vectors is None else vectors.shape
                    raise InvalidParameterError("vectors", rule=f"of shape {wanted}", value=given)
        found = np.column_stack([member.logits(features, ones, others) for member in self.members])
        return self.combination.logits(found)

    def probabilities(self, features: Array, ones: Single | None = None, others: Single | None = None) -> Array:
        """Return calibrated probabilities, float64 (n,), in (0, 1). Arguments and errors as in `logits`."""
        return probabilities(self.logits(features, ones, others))

    def to_document(self) -> dict[str, Any]:
        """Return everything as plain JSON-able values; `from_document` is the way back, bit for bit."""
        return {
            "schema": SCHEMA,
            "names": list(self.names),
            "dimension": self.dimension,
            "combination": packed_all(self.combination.arrays()),
            "members": [
                {
                    "kind": _KINDS[type(member.models[0])],
                    "models": [packed_all(model.arrays()) for model in member.models],
                }
                for member in self.members
            ],
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any], *, names: Sequence[str]) -> "Scorer":
        """Return the scorer that a document describes.

        Args:
            document: As from `to_document`.
            names: The columns of evidence that it will get.

        Raises:
            InvalidParameterError: If the schema is another, the columns are others, or something is missing or damaged.
        """
        if document.get("schema") != SCHEMA:
            raise InvalidParameterError("schema", rule=repr(SCHEMA), value=document.get("schema"))
        if tuple(document.get("names", ())) != tuple(names):
            hint = "The scorer was fitted with other evidence; fit it again."
            raise InvalidParameterError("names", rule="those of this version", value=document.get("names"), hint=hint)
        try:
            members = tuple(
                Member(models=tuple(_model(member["kind"], model, features=len(names)) for model in member["models"]))
                for member in document["members"]
            )
            combination = LogisticModel.from_arrays(unpacked_all(document["combination"]), features=len(members))
            dimension = int(document["dimension"])
        except (KeyError, TypeError, IndexError, ValueError) as error:
            if isinstance(error, InvalidParameterError):
                raise
            raise InvalidParameterError("scorer", rule="a whole scorer document", value=repr(error)) from None
        if not members or not all(member.models for member in members):
            raise InvalidParameterError("members", rule="at least one, none empty", value=len(members))
        return cls(names=tuple(names), members=members, combination=combination, dimension=dimension)


def model_logits(model: Model, features: Array, ones: Single | None, others: Single | None) -> Array:
    """Return a model's own log-odds, float64 (n,)."""
    if isinstance(model, PairNetwork):
        assert ones is not None
        assert others is not None
        return model.logits(features, ones, others)
    return model.logits(features)


def _model(kind: str, document: Mapping[str, Any], *, features: int) -> Model:
    arrays = unpacked_all(document)
    if kind == "logistic":
        return LogisticModel.from_arrays(arrays, features=features)
    if kind == "trees":
        return BoostedTrees.from_arrays(arrays, features=features)
    if kind == "network":
        return PairNetwork.from_arrays(arrays)
    raise InvalidParameterError("kind", rule=f"one of {', '.join(_KINDS.values())}", value=kind)
