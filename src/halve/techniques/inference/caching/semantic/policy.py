"""Decides whether a stored answer is served: vetoes, then a scorer, then a threshold. A policy is a readable file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.assessment import Assessment, Assessor, plain_words
from halve.techniques.inference.caching.semantic.evidence import Lookup, Vectors
from halve.techniques.inference.caching.semantic.neighbour import Decision, Neighbour
from halve.techniques.inference.caching.semantic.pooled import PooledThresholds
from halve.techniques.inference.caching.semantic.thresholds import ThresholdChoice

SCHEMA = "halve.hit-policy/2"

UNPROVEN_COSINE = 0.95
"""Threshold of the default policy. Conservative with all-MiniLM-L6-v2; another encoder may need another."""


@dataclass(frozen=True, kw_only=True)
class Promise:
    """What a threshold was shown to do, on look-ups that the scorer was not fitted on.

    Args:
        precision_at_least: Target that was asked for, in (0, 1).
        confidence: With which it holds.
        hits: Served look-ups of the calibration.
        right_hits: Right ones among them.
        look_ups: All of the calibration.
        reason: One clause.
    """

    precision_at_least: float
    confidence: float
    hits: int
    right_hits: int
    look_ups: int
    reason: str

    @classmethod
    def of(cls, choice: ThresholdChoice) -> "Promise":
        """Return the promise that a choice of threshold makes; no hits if it says "do not enable"."""
        return cls(
            precision_at_least=choice.precision_at_least,
            confidence=choice.confidence,
            hits=choice.point.hits if choice.point else 0,
            right_hits=choice.point.true_hits if choice.point else 0,
            look_ups=choice.look_ups,
            reason=choice.reason,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FillLevel:
    """The threshold while a partition holds few entries: the nearest ones are farther then, and less often right.

    Args:
        below: Holds as long as the partition has fewer entries than this, >= 1.
        threshold: In (0, 1]; at 1 only the same words are a hit.

    Raises:
        InvalidParameterError: If a value is out of range.
    """

    below: int
    threshold: float

    def __post_init__(self) -> None:
        if self.below < 1:
            raise InvalidParameterError("below", rule="at least 1", value=self.below)
        if not 0 < self.threshold <= 1:
            raise InvalidParameterError("threshold of a fill level", rule="in (0, 1]", value=self.threshold)


@dataclass(frozen=True, kw_only=True, eq=False)
class HitPolicy:
    """A hit if no veto forbids it and P(answer right) is at least the threshold.

    Of the first neighbours, the one whose pair scores highest and that no veto forbids is asked about: it is not
    always the nearest. A question with the very words of a stored one has probability 1, unless the encoder puts them
    out of the assessor's reach; at a threshold of 1 nothing else is a hit.

    Args:
        threshold: In (0, 1], or above 1: never.
        assessor: Vetoes and scorers. Without a scorer the cosine stands where the probability does.
        promise: What was proved; None: nothing.
        filling: Thresholds while a partition fills, by rising `below`; the first that holds counts, then `threshold`.
        pooled: Moves the threshold by cluster (the answer) and entry; None: one threshold for all. Mutable, on purpose.
    """

    threshold: float
    assessor: Assessor = field(default_factory=Assessor)
    promise: Promise | None = None
    filling: tuple[FillLevel, ...] = ()
    pooled: PooledThresholds | None = None

    def __post_init__(self) -> None:
        if not self.threshold > 0:
            raise InvalidParameterError("threshold", rule="above 0", value=self.threshold)
        below = [level.below for level in self.filling]
        if any(later <= earlier for earlier, later in pairwise(below)):
            raise InvalidParameterError("filling", rule="levels by rising `below`", value=below)

    @property
    def most_held(self) -> int:
        """From how many entries of a partition on, `threshold` holds; 0 if always."""
        return self.filling[-1].below if self.filling else 0

    def vectors_needed(self, neighbours: Sequence[Neighbour], *, held: int | None = None) -> int:
        """Return of how many of the first neighbours `decide` reads the vectors."""
        return self.assessor.vectors_needed(neighbours, at_least=self._lowest_threshold(held))

    def decide(
        self,
        text: str,
        neighbours: Sequence[Neighbour],
        *,
        vector: Vectors | None = None,
        vectors: Vectors | None = None,
        held: int | None = None,
    ) -> Decision:
        """Return whether a stored answer is served, and why. Deterministic; changes nothing.

        Args:
            text: The question.
            neighbours: By falling cosine; may be empty.
            vector: float32 (d,) of the question, and
            vectors: float32 (k, d) of the first neighbours, k >= `vectors_needed`.
            held: Entries of the partition, counted up to `most_held`; None: as many as it takes.

        Raises:
            InvalidParameterError: If vectors are missing or have the wrong shape.
        """
        if not neighbours:
            return Decision(hit=False, entry=None, probability=0.0, reason="nothing stored is near")
        lookup = Lookup(text=text, neighbours=tuple(neighbours), vector=vector, vectors=vectors)
        found = self.assessor.assess([lookup], at_least=self._lowest_threshold(held))[0]
        return self.judged(lookup, found, held=held)

    def same_words(self, text: str, neighbours: Sequence[Neighbour], *, vector: Vectors, vectors: Vectors) -> Decision:
        """Return whether a question has the very words of another that has no answer yet: all that can be said of it.

        The proof is about neighbours whose answers are known, so a probability would be none here.

        Args:
            text: The question.
            neighbours: Others, such as those in flight.
            vector, vectors: Not looked at.
        """
        words = plain_words(text)
        entry = next((near.entry for near in neighbours if plain_words(near.text) == words), None)
        hit = entry is not None
        return Decision(hit=hit, entry=entry, probability=float(hit), reason="the same words" if hit else "other words")

    def decide_many(self, lookups: Sequence[Lookup]) -> list[Decision]:
        """Return the decisions on many look-ups in full partitions, each as `decide` alone, in less time each."""
        assessments = self.assessor.assess(lookups, at_least=self._lowest_threshold(None))
        return [self.judged(lookup, found) for lookup, found in zip(lookups, assessments, strict=True)]

    def judged(self, lookup: Lookup, assessment: Assessment, *, held: int | None = None) -> Decision:
        """Return the decision that an assessment leads to; `held` as in `decide`."""
        if self.threshold > 1:
            reason = "the cache is not enabled: no threshold keeps the promise"
            return Decision(hit=False, entry=None, probability=assessment.probability, reason=reason)
        if assessment.candidate is None:
            reason = f"veto: {assessment.veto}" if assessment.veto else "nothing stored is near"
            return Decision(hit=False, entry=None, probability=0.0, reason=reason)
        chosen = lookup.neighbours[assessment.candidate]
        threshold = self._threshold(chosen, held)
        hit = assessment.probability >= threshold and (threshold < 1 or assessment.same_words)
        said = "probability" if self.assessor.has_scorer else "unproven: cosine"
        relation = "at least" if hit else "below"
        return Decision(
            hit=hit,
            entry=chosen.entry if hit else None,
            probability=assessment.probability,
            reason="the same words"
            if assessment.same_words and hit
            else f"{said} {assessment.probability:.3f}, {relation} {threshold:.3f}",
        )

    def observe(self, chosen: Neighbour, *, probability: float, right: bool) -> None:
        """Let the thresholds of an answer and an entry learn from a labelled look-up; nothing without `pooled`.

        Args:
            chosen: The neighbour that was asked about.
            probability: What was said of it.
            right: Whether its answer is right.
        """
        if self.pooled is not None:
            self.pooled.observe(cluster=chosen.answer, entry=chosen.entry, probability=probability, right=right)

    def threshold_at(self, held: int | None) -> float:
        """Return the threshold for a partition with so many entries; None: as many as it takes."""
        if held is None:
            return self.threshold
        return next((level.threshold for level in self.filling if held < level.below), self.threshold)

    def _lowest_threshold(self, held: int | None) -> float:
        """Return what no look-up is served below."""
        return self.threshold_at(held) if self.pooled is None else 0.0

    def _threshold(self, chosen: Neighbour, held: int | None) -> float:
        level = self.threshold_at(held)
        if self.pooled is None:
            return level
        learned = self.pooled.threshold(cluster=chosen.answer, entry=chosen.entry)
        return max(level, learned) if held is not None and held < self.most_held else learned

    def to_document(self) -> dict[str, Any]:
        """Return the policy as plain JSON-able values; `from_document` is the way back, bit for bit."""
        promise = self.promise
        return {
            "schema": SCHEMA,
            "threshold": self.threshold,
            "promise": None if promise is None else {name: getattr(promise, name) for name in _PROMISE},
            "filling": [{"below": level.below, "threshold": level.threshold} for level in self.filling],
            "assessor": self.assessor.to_document(),
            "pooled": None if self.pooled is None else self.pooled.to_document(),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "HitPolicy":
        """Return the policy that a document describes.

        Raises:
            InvalidParameterError: If the schema is another, or something is missing or damaged.
        """
        if not isinstance(document, Mapping) or document.get("schema") != SCHEMA:
            found = document.get("schema") if isinstance(document, Mapping) else type(document).__name__
            raise InvalidParameterError("schema", rule=repr(SCHEMA), value=found)
        try:
            promise, pooled = document["promise"], document["pooled"]
            filling = [FillLevel(below=level["below"], threshold=level["threshold"]) for level in document["filling"]]
            return cls(
                threshold=float(document["threshold"]),
                assessor=Assessor.from_document(document["assessor"]),
                filling=tuple(filling),
                promise=None if promise is None else Promise(**{name: promise[name] for name in _PROMISE}),
                pooled=None if pooled is None else PooledThresholds.from_document(pooled),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidParameterError("policy", rule="a whole policy document", value=repr(error)) from None


_PROMISE = ("precision_at_least", "confidence", "hits", "right_hits", "look_ups", "reason")


def default_policy(*, cosine_at_least: float = UNPROVEN_COSINE) -> HitPolicy:
    """Return the policy for when there are no labels: the cosine, the vetoes, and no promise.

    Args:
        cosine_at_least: In (0, 1].
    """
    return HitPolicy(threshold=cosine_at_least)
