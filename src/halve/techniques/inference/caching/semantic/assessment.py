"""What is said of a look-up before any threshold: which neighbour to ask about, and P(its answer is right)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError
from halve.techniques.inference.caching.semantic.evidence import (
    LOOKUP_NAMES,
    PAIR_NAMES,
    Lookup,
    Vectors,
    answer_logits,
    lookup_evidence,
    pair_evidence,
)
from halve.techniques.inference.caching.semantic.examples import Examples
from halve.techniques.inference.caching.semantic.logistic import probabilities
from halve.techniques.inference.caching.semantic.neighbour import Neighbour
from halve.techniques.inference.caching.semantic.packing import packed, unpacked
from halve.techniques.inference.caching.semantic.rarity import Rarity
from halve.techniques.inference.caching.semantic.reach import Reach
from halve.techniques.inference.caching.semantic.scorer import Scorer
from halve.techniques.inference.caching.semantic.terms import pair_terms
from halve.techniques.inference.caching.semantic.vetoes import DEFAULT_VETOES, checked_vetoes, first_veto

Array = NDArray[np.float64]

NAMES = (*LOOKUP_NAMES, *PAIR_NAMES)
"""Evidence that the scorer of look-ups gets."""

CANDIDATES = 4
"""Nearest neighbours whose pairs are scored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """What is said of one look-up.

    Args:
        candidate: The neighbour to ask about, from 0; None if there is none or all are forbidden.
        probability: That its answer is right, in [0, 1]; 0 without a candidate.
        veto: What forbids the best-scoring neighbour, if anything does.
        same_words: Whether the candidate has the question's very words.
    """

    candidate: int | None
    probability: float
    veto: str = ""
    same_words: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class PairRows:
    """Pairs of question and neighbour of many look-ups, one after the other.

    Args:
        starts: int64 (look-ups + 1,): look-up i has rows starts[i] to starts[i + 1].
        examples: Evidence of the pairs, in PAIR_NAMES, and what scorers read besides.
        answers: (rows,): of the neighbours.
        vetoes: (rows,): what forbids each pair, empty if nothing does.
        same_words: bool (rows,): whether both have the very same words.
    """

    starts: NDArray[np.int64]
    examples: Examples
    answers: tuple[str, ...]
    vetoes: tuple[str, ...]
    same_words: NDArray[np.bool_]

    def kept(self, rows: NDArray[np.bool_]) -> "PairRows":
        """Return the same look-ups with some of their pairs.

        Args:
            rows: bool (rows,).
        """
        chosen = np.flatnonzero(rows).tolist()
        return PairRows(
            starts=np.concatenate([[0], np.cumsum(rows)])[self.starts].astype(np.int64),
            examples=self.examples.kept(rows),
            answers=tuple(self.answers[row] for row in chosen),
            vetoes=tuple(self.vetoes[row] for row in chosen),
            same_words=self.same_words[rows],
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Assessor:
    """Vetoes and scorers.

    Args:
        vetoes: Names of rules, see `vetoes.VETOES`.
        pair_scorer: P(two questions have one answer) from PAIR_NAMES; without it the cosine stands for it.
        lookup_scorer: P(the candidate's answer is right) from NAMES; without it the pair's probability stands.
        rarity: Weight of words in the evidence.
        candidates: Nearest neighbours whose pairs are scored, >= 1.
        most_behind: Of those, the ones whose cosine is at most so far behind the nearest one's, in [0, 2].
        reach: How sure a look-up can be, by its nearest cosine.

    Raises:
        InvalidParameterError: If a veto is unknown, a number is out of range, or a scorer has other columns.
    """

    vetoes: tuple[str, ...] = DEFAULT_VETOES
    pair_scorer: Scorer | None = None
    lookup_scorer: Scorer | None = None
    rarity: Rarity = field(default_factory=Rarity)
    candidates: int = CANDIDATES
    most_behind: float = 2.0
    reach: Reach = field(default_factory=Reach)

    def __post_init__(self) -> None:
        checked_vetoes(self.vetoes)
        if self.candidates < 1:
            raise InvalidParameterError("candidates", rule="at least 1", value=self.candidates)
        if not 0 <= self.most_behind <= 2:
            raise InvalidParameterError("most_behind", rule="in [0, 2]", value=self.most_behind)
        if self.lookup_scorer is not None and self.pair_scorer is None:
            raise InvalidParameterError("lookup_scorer", rule="given with a pair scorer only", value="one without")

    @property
    def has_scorer(self) -> bool:
        """Whether probabilities are learned; otherwise they are cosines."""
        return self.pair_scorer is not None

    def assess(self, lookups: Sequence[Lookup], *, at_least: float = 0.0) -> list[Assessment]:
        """Return what is said of each look-up; none changes what is said of another.

        Args:
            lookups: Any number.
            at_least: What probability matters: look-ups that cannot reach it cost no evidence and have no candidate.
        """
        rows = self.rows(lookups, at_least=at_least)
        logits = self.pair_logits(rows)
        chosen = [self.choose(rows, logits, number) for number in range(len(lookups))]
        if self.pair_scorer is None:
            cosines = np.clip(rows.examples.features[:, 0], 0.0, 1.0)
            sure = [
                0.0 if place is None else float(cosines[rows.starts[at] + place]) for at, place in enumerate(chosen)
            ]
        else:
            sure = self._probabilities(lookups, rows, logits, chosen)
        found = []
        for at, lookup in enumerate(lookups):
            most = self.reach.most(lookup.neighbours[0].cosine) if lookup.neighbours else 0.0
            found.append(self._assessment(rows, logits, at, chosen[at], sure[at], most=most))
        return found

    def rows(self, lookups: Sequence[Lookup], *, for_fitting: bool = False, at_least: float = 0.0) -> PairRows:
        """Return the pairs of question and neighbour that are to be scored.

        Args:
            lookups: Whose pairs.
            for_fitting: Whether to gather vectors and terms although no scorer asks for them.
            at_least: As in `assess`.
        """
        kept = [lookup.neighbours[: self._asked_about(lookup.neighbours, at_least)] for lookup in lookups]
        pairs = [(lookup.text, near) for lookup, nearest in zip(lookups, kept, strict=True) for near in nearest]
        texts, stored = [text for text, _ in pairs], [near.text for _, near in pairs]
        features = pair_evidence(texts, stored, cosines=[near.cosine for _, near in pairs], rarity=self.rarity)
        same = [plain_words(text) == plain_words(near) for text, near in zip(texts, stored, strict=True)]
        vetoes = [
            None if equal else first_veto(text, near, names=self.vetoes)
            for text, near, equal in zip(texts, stored, same, strict=True)
        ]
        scorer = self.pair_scorer
        with_vectors = for_fitting or (scorer is not None and scorer.dimension > 0)
        with_terms = for_fitting or (scorer is not None and scorer.needs_terms)
        counts = [len(nearest) for nearest in kept]
        ones, others = gathered_vectors(lookups, counts) if with_vectors else (None, None)
        terms = pair_terms(texts, stored) if with_terms else None
        return PairRows(
            starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            examples=Examples(features=features, ones=ones, others=others, terms=terms),
            answers=tuple(near.answer for _, near in pairs),
            vetoes=tuple(veto.says if veto else "" for veto in vetoes),
            same_words=np.array(same, dtype=np.bool_),
        )

    def vectors_needed(self, neighbours: Sequence[Neighbour], *, at_least: float = 0.0) -> int:
        """Return of how many of the first neighbours the vectors are read by `assess`, >= 0."""
        reads = self.pair_scorer is not None and self.pair_scorer.dimension > 0
        return self._asked_about(neighbours, at_least) if reads else 0

    def _asked_about(self, neighbours: Sequence[Neighbour], at_least: float) -> int:
        """Return how many neighbours are scored."""
        if not neighbours or neighbours[0].cosine < self.reach.least_cosine(at_least):
            return 0
        nearest = neighbours[0].cosine
        return sum(nearest - neighbour.cosine <= self.most_behind for neighbour in neighbours[: self.candidates])

    def pair_logits(self, rows: PairRows) -> Array:
        """Return what orders the pairs: the scorer's log-odds, or cosines without a scorer."""
        if self.pair_scorer is None or not len(rows.examples):
            return rows.examples.features[:, 0]
        return self.pair_scorer.logits(rows.examples)

    def choose(self, rows: PairRows, logits: Array, number: int) -> int | None:
        """Return the neighbour to ask about, from 0; None if all are forbidden or there is none.

        Of the pairs that nothing forbids, the answer that most likely is right (see `answer_logits`) and its
        best-scoring pair; without a scorer the nearest. The very same words go before everything.
        """
        start, end = int(rows.starts[number]), int(rows.starts[number + 1])
        allowed = [place for place in range(start, end) if not rows.vetoes[place]]
        if not allowed:
            return None
        chances: dict[str, float] = {}
        if self.pair_scorer is not None:
            chances = answer_logits([rows.answers[place] for place in allowed], logits[allowed].tolist())

        def rank(place: int) -> tuple[bool, float, float]:
            return bool(rows.same_words[place]), chances.get(rows.answers[place], 0.0), float(logits[place])

        return max(allowed, key=rank) - start

    def lookup_features(
        self, lookups: Sequence[Lookup], rows: PairRows, logits: Array, chosen: Sequence[int | None]
    ) -> tuple[NDArray[np.int64], Array]:
        """Return which look-ups have a candidate, int64 (m,), and their evidence, float64 (m, len(NAMES))."""
        asked = [at for at, place in enumerate(chosen) if place is not None]
        features = np.empty((len(asked), len(NAMES)))
        for row, at in enumerate(asked):
            place, start = chosen[at], int(rows.starts[at])
            assert place is not None
            around = lookup_evidence(
                lookups[at].neighbours, logits=logits[start : rows.starts[at + 1]], candidate=place
            )
            features[row, : len(LOOKUP_NAMES)] = around
            features[row, len(LOOKUP_NAMES) :] = rows.examples.features[start + place]
        return np.array(asked, dtype=np.int64), features

    def _probabilities(
        self, lookups: Sequence[Lookup], rows: PairRows, logits: Array, chosen: Sequence[int | None]
    ) -> list[float]:
        asked = np.array([at for at, place in enumerate(chosen) if place is not None], dtype=np.int64)
        if self.lookup_scorer is not None:
            asked, features = self.lookup_features(lookups, rows, logits, chosen)
            found = self.lookup_scorer.probabilities(Examples(features=features))
        else:
            places = np.array([rows.starts[at] + (chosen[at] or 0) for at in asked.tolist()], dtype=np.int64)
            found = probabilities(logits[places])
        sure = np.zeros(len(lookups))
        sure[asked] = found
        listed: list[float] = sure.tolist()
        return listed

    def _assessment(
        self, rows: PairRows, logits: Array, at: int, candidate: int | None, sure: float, *, most: float
    ) -> Assessment:
        start, end = int(rows.starts[at]), int(rows.starts[at + 1])
        best = start + int(np.argmax(logits[start:end])) if end > start else None
        veto = rows.vetoes[best] if best is not None else ""
        if candidate is None:
            return Assessment(candidate=None, probability=0.0, veto=veto)
        same = bool(rows.same_words[start + candidate])
        probability = min(1.0 if same else sure, most)
        return Assessment(candidate=candidate, probability=probability, veto=veto, same_words=same)

    def to_document(self) -> dict[str, Any]:
        """Return everything as plain JSON-able values; `from_document` is the way back, bit for bit."""
        return {
            "vetoes": list(self.vetoes),
            "candidates": self.candidates,
            "most_behind": self.most_behind,
            "reach": self.reach.to_document(),
            "pair_scorer": None if self.pair_scorer is None else self.pair_scorer.to_document(),
            "lookup_scorer": None if self.lookup_scorer is None else self.lookup_scorer.to_document(),
            "rarity": None if self.rarity.weights is None else packed(self.rarity.weights),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Assessor":
        """Return the assessor that a document describes.

        Raises:
            InvalidParameterError: If something is damaged or was fitted for other evidence.
            KeyError: If something is missing.
        """
        pair, lookup, rarity = (document[name] for name in ("pair_scorer", "lookup_scorer", "rarity"))
        return cls(
            vetoes=tuple(document["vetoes"]),
            candidates=int(document["candidates"]),
            most_behind=float(document["most_behind"]),
            reach=Reach.from_document(document["reach"]),
            pair_scorer=None if pair is None else Scorer.from_document(pair, names=PAIR_NAMES),
            lookup_scorer=None if lookup is None else Scorer.from_document(lookup, names=NAMES),
            rarity=Rarity(None if rarity is None else unpacked(rarity)),
        )


def plain_words(text: str) -> str:
    """Return the whole text in small letters with white space collapsed, however long it is."""
    return " ".join(text.lower().split())


def gathered_vectors(lookups: Sequence[Lookup], counts: Sequence[int]) -> tuple[Vectors | None, Vectors | None]:
    """Return the vectors of questions and of so many of their neighbours, row by row; None if some look-up has none."""
    ones, others = [], []
    for lookup, count in zip(lookups, counts, strict=True):
        if not count:
            continue
        if lookup.vector is None or lookup.vectors is None or len(lookup.vectors) < count:
            return None, None
        ones.append(np.broadcast_to(lookup.vector, (count, len(lookup.vector))))
        others.append(lookup.vectors[:count])
    if not ones:
        return None, None
    return np.concatenate(ones).astype(np.float32), np.concatenate(others).astype(np.float32)
