"""A log, an encoder and a target become a verdict: would a semantic cache pay?"""

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from halve.assembly.encoders import MINILM, open_encoder, small_encoder
from halve.core import Encoder, Progress
from halve.core.documents import replace_file
from halve.core.progress import Silent
from halve.errors import InvalidParameterError, WorkloadError
from halve.pricing import Catalogue
from halve.techniques.inference.caching.semantic.log_replay import LogReplay, replay_log
from halve.units import SECONDS_PER_HOUR
from halve.workload.readers import read_columns

_AT_ONCE = 512
_INSTANCE = "c6a.large"


@dataclass(frozen=True, kw_only=True)
class CacheVerdict:
    """What a log says of a semantic cache.

    Args:
        replay: Counts, threshold, curve and mistakes.
        source: The log.
        encoder: As it was named.
        encode_seconds_each: Wall seconds of one question on one core.
        usd_per_answer: What one answer of the model costs; 0 if it was not given.
        usd_per_encoding: Encoder seconds at the price of a vCPU of `c6a.large`.
        policy_path: Where the policy was written, if it was asked for.
    """

    replay: LogReplay
    source: str
    encoder: str
    encode_seconds_each: float
    usd_per_answer: float
    usd_per_encoding: float
    policy_path: Path | None = None

    @property
    def enable(self) -> bool:
        """Whether a threshold keeps the target and, where prices are known, hits earn more than encoding costs."""
        return self.replay.hits > 0 and (self.usd_per_answer == 0 or self.usd_saved_per_1k_requests > 0)

    @property
    def usd_saved_per_1k_requests(self) -> float:
        """Of the whole log: hits on new questions at the judged rate, less encoding every new question."""
        new_share = self.replay.new_questions / self.replay.requests
        return 1000 * new_share * (self.replay.hit_rate * self.usd_per_answer - self.usd_per_encoding)


def replay_cache(  # noqa: PLR0913 - keywords, each a choice of its own
    log: str | Path,
    *,
    question: str = "question",
    answer: str = "answer",
    partition: str | None = None,
    encoder: str = MINILM,
    precision: float = 0.95,
    confidence: float = 0.95,
    usd_per_answer: float = 0.0,
    policy: str | Path | None = None,
    progress: Progress | None = None,
) -> CacheVerdict:
    """Return whether a semantic cache would pay on a log, from the log alone.

    Args:
        log: JSONL, CSV, Parquet or NPZ, rows in order of arrival.
        question, answer: Names of its columns. Answers count as equal if they are, but for case and spaces: for free
            text, name a column that says which answers are the same.
        partition: Column of what must not share answers: a tenant, a system prompt.
        encoder: `minilm`, a folder, or `URL#MODEL`.
        precision: Share of served answers that must be right, in (0, 1).
        confidence: Of the proof, in (0.5, 1).
        usd_per_answer: What one answer of the model costs, >= 0; 0 if unknown.
        policy: File to write the policy to, and the encoder's name and fingerprint; must not exist.
        progress: Where bars go.

    Raises:
        UserError: If the log cannot be used or the encoder cannot be had; the message says what to do.
    """
    _check(usd_per_answer, policy)
    bars, path = progress or Silent(), Path(log)
    texts, answers, partitions = _read(path, question=question, answer=answer, partition=partition)
    named = small_encoder(encoder, texts, progress=bars)
    opened = open_encoder(named)
    try:
        vectors, seconds = _vectors(opened, texts, bars)
        made_with = {"name": named, "fingerprint": opened.fingerprint.digest}
    finally:
        opened.close()
    with bars.task("replaying the log", total=1) as advance:
        found = replay_log(
            texts, answers, vectors=vectors, partitions=partitions, precision_at_least=precision, confidence=confidence
        )
        advance()
    written = None if policy is None else Path(policy)
    if written is not None:
        with replace_file(written) as partial:
            partial.write_text(json.dumps({**found.policy.to_document(), "encoder": made_with}) + "\n")
    kind = Catalogue.load().instance(_INSTANCE)
    return CacheVerdict(
        replay=found,
        source=str(path),
        encoder=encoder,
        encode_seconds_each=seconds,
        usd_per_answer=usd_per_answer,
        usd_per_encoding=seconds * kind.usd_per_hour / kind.vcpus / SECONDS_PER_HOUR,
        policy_path=written,
    )


def _check(usd_per_answer: float, policy: str | Path | None) -> None:
    if not 0 <= usd_per_answer < float("inf"):
        raise InvalidParameterError("usd_per_answer", rule="at least 0 and finite", value=usd_per_answer)
    if policy is not None and Path(policy).exists():
        raise InvalidParameterError("policy", rule="a file that does not exist yet", value=str(policy))


def _read(path: Path, *, question: str, answer: str, partition: str | None) -> tuple[list[str], list[str], list[str]]:
    rows, replies = read_columns(path, payload=question, reference=answer)
    texts = [_text(value, question, number) for number, value in enumerate(rows, start=1)]
    answers = [_digest(value) for value in replies or ()]
    if partition is None:
        return texts, answers, [""] * len(texts)
    homes, _ = read_columns(path, payload=partition, reference=None)
    return texts, answers, [str(value) for value in homes]


def _text(value: object, column: str, number: int) -> str:
    if not isinstance(value, str) or not value.strip():
        raise WorkloadError(f"{column} of row {number} must be a text that is not empty. Got {value!r}.")
    return value


def _digest(value: object) -> str:
    plain = " ".join(value.casefold().split()) if isinstance(value, str) else json.dumps(value, default=str)
    return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()


def _vectors(encoder: Encoder, texts: list[str], bars: Progress) -> tuple[NDArray[np.float32], float]:
    """Return a vector per text, each different text encoded once, and seconds per encoded text."""
    places: dict[str, int] = {}
    for text in texts:
        places.setdefault(text, len(places))
    different = list(places)
    began, parts = time.perf_counter(), []
    with bars.task("vectors of questions", total=len(different)) as advance:
        for start in range(0, len(different), _AT_ONCE):
            parts.append(encoder.encode(different[start : start + _AT_ONCE]))
            advance(len(parts[-1]))
    seconds = (time.perf_counter() - began) / len(different)
    table = np.concatenate(parts)
    return table[[places[text] for text in texts]], seconds
