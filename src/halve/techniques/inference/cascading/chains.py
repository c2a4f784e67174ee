"""A chain of any number of answerers on recorded requests: who is asked, whose answer stands, what that costs."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError
from halve.techniques.inference.cascading.composition import compose
from halve.techniques.inference.cascading.thresholds import NEVER

Numbers = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ChainTable:
    """What the answerers of one chain did with the same n requests, from the first asked to the last.

    Args:
        names: Of the k answerers, k >= 1.
        scores: float64 (k, n), in [0, 1].
        usd: float64 (k, n): what each call costs, >= 0. Whoever is asked is paid, accepted or not.
        sure: float64 (k - 1, n): how sure each stage but the last is once it has answered, in [0, 1]. It may look at
            all answers so far, such as whether the second answerer agrees with the first.
        prior: float64 (n,), in [0, 1], or None: a guess before anyone is asked that the early stages will do. A
            request whose prior is low can go straight to the last answerer.
    """

    names: tuple[str, ...]
    scores: Numbers
    usd: Numbers
    sure: Numbers
    prior: Numbers | None = None

    def __post_init__(self) -> None:
        k = len(self.names)
        n = self.scores.shape[1] if self.scores.ndim == 2 else 0
        shapes = (self.scores.shape, self.usd.shape, self.sure.shape)
        if k == 0 or n == 0 or shapes != ((k, n), (k, n), (k - 1, n)):
            rule = f"of shapes (k, n), (k, n) and (k - 1, n) for k = {k} names and n >= 1"
            raise InvalidParameterError("scores, usd and sure", rule=rule, value=shapes)
        if not np.all(np.isfinite(self.scores)) or not np.all(self.usd >= 0) or not _in_0_1(self.sure):
            rule = "finite, at least 0 and in [0, 1]"
            raise InvalidParameterError("scores, usd and sure", rule=rule, value="some that are not")
        if self.prior is not None and (self.prior.shape != (n,) or not _in_0_1(self.prior)):
            raise InvalidParameterError("prior", rule=f"of shape ({n},), in [0, 1]", value=self.prior.shape)

    @property
    def requests(self) -> int:
        """Return n."""
        return int(self.scores.shape[1])


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Answerers in the order in which they are asked, and when an answer stands.

    Args:
        names: Of the answerers; the last always answers.
        thresholds: One per answerer but the last: answers at least this sure stand. NEVER: asked only for what its
            answer says about the next one's.
        skip_below: Requests whose prior is below this go straight to the last answerer; 0 skips nothing.
    """

    names: tuple[str, ...]
    thresholds: tuple[float, ...] = ()
    skip_below: float = 0.0

    def __post_init__(self) -> None:
        if not self.names or len(self.thresholds) != len(self.names) - 1:
            rule = f"one fewer than the {len(self.names)} answerers, which are at least 1"
            raise InvalidParameterError("thresholds", rule=rule, value=len(self.thresholds))
        if not np.all(np.isfinite((*self.thresholds, self.skip_below))):
            raise InvalidParameterError("thresholds", rule="finite", value=(self.thresholds, self.skip_below))

    def to_document(self) -> dict[str, Any]:
        """Return the chain as plain JSON values."""
        thresholds = list(self.thresholds)
        return {"answerers": list(self.names), "thresholds": thresholds, "skip_below": self.skip_below}

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "Chain":
        """Return the chain of a document.

        Raises:
            InvalidParameterError: If it is not one.
        """
        try:
            names = tuple(str(name) for name in document["answerers"])
            thresholds = tuple(float(threshold) for threshold in document["thresholds"])
            skip_below = float(document.get("skip_below", 0.0))
        except (KeyError, TypeError, ValueError):
            rule = "an object with answerers, thresholds and skip_below"
            raise InvalidParameterError("chain", rule=rule, value=document) from None
        return cls(names=names, thresholds=thresholds, skip_below=skip_below)


@dataclass(frozen=True, kw_only=True)
class ChainRun:
    """What a chain did with each of n requests.

    Args:
        stage: int64 (n,): whose answer stood.
        asked: bool (k, n): who was asked, and paid.
        scores: float64 (n,): of the answer that stood.
        usd: float64 (n,): of all calls made for it.
    """

    stage: NDArray[np.int64]
    asked: NDArray[np.bool_]
    scores: Numbers
    usd: Numbers


def run_chain(table: ChainTable, chain: Chain) -> ChainRun:
    """Return what the chain does with the requests of the table.

    Raises:
        InvalidParameterError: If the table is not of these answerers, or requests are to be skipped without a prior.
    """
    if table.names != chain.names:
        raise InvalidParameterError("chain.names", rule=f"the table's, {table.names}", value=chain.names)
    skipped = np.zeros(table.requests, dtype=np.bool_)
    if chain.skip_below > 0:
        if table.prior is None:
            rule = "0 where the table has no prior"
            raise InvalidParameterError("chain.skip_below", rule=rule, value=chain.skip_below)
        skipped = table.prior < chain.skip_below
    stands = [(sure >= threshold) & ~skipped for sure, threshold in zip(table.sure, chain.thresholds, strict=True)]
    composed = compose(list(table.scores), stands)
    places = np.arange(len(table.names))[:, None]
    asked = (places <= composed.stage) & (~skipped | (places == len(table.names) - 1))
    usd = np.where(asked, table.usd, 0.0).sum(axis=0)
    return ChainRun(stage=composed.stage, asked=asked, scores=composed.scores, usd=usd)


def single(name: str, *, scores: Numbers, usd: Numbers) -> ChainTable:
    """Return the table of one answerer alone, from its scores and USD, float64 (n,) each."""
    return ChainTable(names=(name,), scores=scores[None], usd=usd[None], sure=np.empty((0, len(scores))))


def _in_0_1(values: Numbers) -> bool:
    return bool(np.all((values >= 0) & (values <= 1)))


__all__ = ["NEVER", "Chain", "ChainRun", "ChainTable", "run_chain", "single"]
