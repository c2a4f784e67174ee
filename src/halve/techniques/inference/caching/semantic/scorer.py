"""A calibrated probability that a stored answer is right, from evidence. Read with numpy; fitted in `training`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.examples import Examples
from halve.techniques.inference.caching.semantic.logistic import LogisticModel, probabilities
from halve.techniques.inference.caching.semantic.network import PairNetwork
from halve.techniques.inference.caching.semantic.packing import packed_all, unpacked_all
from halve.techniques.inference.caching.semantic.trees import BoostedTrees
from halve.techniques.inference.caching.semantic.words import WordModel

Array = NDArray[np.float64]
Model = LogisticModel | WordModel | BoostedTrees | PairNetwork

SCHEMA = "halve.scorer/2"
_KINDS: dict[type[Model], str] = {
    LogisticModel: "logistic",
    WordModel: "words",
    BoostedTrees: "trees",
    PairNetwork: "network",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Member:
    """Models of one kind, fitted on different folds; their mean log-odds count.

    Args:
        models: At least one, all of one kind.
    """

    models: tuple[Model, ...]

    def logits(self, examples: Examples) -> Array:
        """Return the mean of the models' log-odds, float64 (n,)."""
        mean: Array = np.mean([model_logits(model, examples) for model in self.models], axis=0)
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

    @property
    def needs_terms(self) -> bool:
        """Whether it reads single words."""
        return any(isinstance(model, WordModel) for member in self.members for model in member.models)

    def logits(self, examples: Examples) -> Array:
        """Return calibrated log-odds, float64 (n,).

        Args:
            examples: With a column for each name, and the vectors and terms that the members read.

        Raises:
            InvalidParameterError: If a shape is wrong, or vectors or terms are missing.
        """
        if examples.features.shape[1] != len(self.names):
            rule = f"of shape (n, {len(self.names)})"
            raise InvalidParameterError("features", rule=rule, value=examples.features.shape)
        if self.dimension and examples.dimension != self.dimension:
            rule = f"of {self.dimension} numbers, as the scorer was fitted with"
            raise InvalidParameterError("vectors", rule=rule, value=examples.dimension or None)
        if self.needs_terms and examples.terms is None:
            raise InvalidParameterError("terms", rule="given, as the scorer was fitted with them", value=None)
        return self.combination.logits(np.column_stack([member.logits(examples) for member in self.members]))

    def probabilities(self, examples: Examples) -> Array:
        """Return calibrated probabilities, float64 (n,), in (0, 1). Arguments and errors as in `logits`."""
        return probabilities(self.logits(examples))

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


def model_logits(model: Model, examples: Examples) -> Array:
    """Return a model's own log-odds, float64 (n,)."""
    if isinstance(model, PairNetwork):
        assert examples.ones is not None
        assert examples.others is not None
        return model.logits(examples.features, examples.ones, examples.others)
    if isinstance(model, WordModel):
        assert examples.terms is not None
        return model.logits(examples.features, examples.terms)
    return model.logits(examples.features)


def _model(kind: str, document: Mapping[str, Any], *, features: int) -> Model:
    arrays = unpacked_all(document)
    if kind == "network":
        return PairNetwork.from_arrays(arrays)
    for model in (LogisticModel, WordModel, BoostedTrees):
        if kind == _KINDS[model]:
            return model.from_arrays(arrays, features=features)
    raise InvalidParameterError("kind", rule=f"one of {', '.join(_KINDS.values())}", value=kind)
