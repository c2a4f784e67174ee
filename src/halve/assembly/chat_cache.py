"""A semantic cache in front of a chat endpoint: a policy, an encoder and a store, wired and served."""

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from halve.assembly.encoders import open_encoder
from halve.assembly.semantic import open_store
from halve.core import Encoder
from halve.errors import ConfigError, InvalidParameterError
from halve.serving.chat import ChatApp, ChatFound, ChatQuestion, ChatServer, Upstream
from halve.techniques.inference.caching import exact_key, semantic

NO_ENCODER = "none: identical texts only"
"""Fingerprint of a store whose questions have no vectors."""


@dataclass(frozen=True, kw_only=True)
class HitRule:
    """When a stored answer is served for another question.

    Args:
        policy: Decides.
        encoder: Makes the vectors it was fitted with.
    """

    policy: semantic.HitPolicy
    encoder: Encoder


def read_rule(path: Path, *, encoder: str | None = None) -> HitRule:
    """Return what a policy file of `halve cache replay` says.

    Args:
        path: The file.
        encoder: Instead of the one that the file names: a folder that has moved, say. It must make the same vectors.

    Raises:
        ConfigError: If the file is none, or says "do not enable".
        InvalidParameterError: If the encoder makes other vectors than those that the policy was fitted with.
        UserError: If the encoder cannot be had.
    """
    try:
        document = json.loads(path.read_text())
        policy = semantic.HitPolicy.from_document(document)
        named, fingerprint = str(document["encoder"]["name"]), str(document["encoder"]["fingerprint"])
    except OSError as error:
        raise ConfigError(str(path), [f"it could not be read: {error.strerror}."]) from None
    except (ValueError, KeyError, TypeError, InvalidParameterError) as error:
        raise ConfigError(str(path), [f"it must be a policy of halve cache replay. Got: {error}."]) from None
    if policy.threshold > 1:
        raise ConfigError(str(path), ["it says that no threshold keeps the promise: do not enable the cache."])
    opened = open_encoder(encoder or named)
    if opened.fingerprint.digest != fingerprint:
        opened.close()
        rule = "the one that the policy was fitted with"
        raise InvalidParameterError("encoder", rule=rule, value=encoder or named)
    return HitRule(policy=policy, encoder=opened)


@final
class ChatCache:
    """Remembers chat completions, and finds them again; a `ChatMemory`.

    Args:
        rule: When an answer is served for another question; None: for identical texts only. Its encoder is closed
            with this.
        location: A SQLite file or a `postgresql://` address; None is a temporary file, gone when it is closed.
        data_version: Of what answers depend on outside the request: answers of another version are never found.
        ttl_seconds: An answer is good for so long, > 0; None is for ever.
        most_entries: So many are kept, those that were used last; None is any number.
        usd_per_answer: What one call of the server behind costs, >= 0; 0 if unknown.

    Raises:
        InvalidParameterError: If a value is out of range, or the store holds another encoder's vectors.
        StorageError: If the store cannot be opened.
    """

    def __init__(
        self,
        *,
        rule: HitRule | None = None,
        location: str | None = None,
        data_version: str = "",
        ttl_seconds: float | None = None,
        most_entries: int | None = None,
        usd_per_answer: float = 0.0,
    ) -> None:
        if not 0 <= usd_per_answer < float("inf"):
            raise InvalidParameterError("usd_per_answer", rule="at least 0 and finite", value=usd_per_answer)
        self._rule, self._usd, self._data_version = rule, usd_per_answer, data_version
        self._closing, self._encoding = ExitStack(), threading.Lock()
        dimension, self._fingerprint = 1, NO_ENCODER
        if rule is not None:
            self._closing.callback(rule.encoder.close)
            dimension, self._fingerprint = rule.encoder.fingerprint.dimension, rule.encoder.fingerprint.digest
        try:
            limits = semantic.Limits(entries=most_entries)
            self._store = open_store(
                location, encoder=self._fingerprint, dimension=dimension, limits=limits, closing=self._closing
            )
            self._cache = semantic.SemanticCache(
                store=self._store,
                encode=self._encode,
                on_vectors=semantic.default_policy() if rule is None else rule.policy,
                ttl_seconds=ttl_seconds,
            )
        except BaseException:
            self._closing.close()
            raise

    @property
    def usd_per_answer(self) -> float:
        """What one call of the server behind costs; 0 if unknown."""
        return self._usd

    @property
    def near(self) -> semantic.Near | None:
        """What says whether two requests in flight ask the same; None where identical texts alone do."""
        return None if self._rule is None else self._rule.policy.same_words

    def question(self, request: Mapping[str, Any], *, tenant: str) -> ChatQuestion | None:
        """Return what is asked, and its partition; see `from_chat_request`."""
        found = semantic.from_chat_request(
            request, tenant=tenant, data_version=self._data_version, encoder=self._fingerprint
        )
        if found is None:
            return None
        scope, text = found
        return ChatQuestion(partition=semantic.partition_key(scope), text=text)

    def find(self, question: ChatQuestion) -> ChatFound:
        """Return the stored completion of an identical question, or of one near enough."""
        now = time.time()
        if self._rule is None:
            entry = self._store.get_exact(question.partition, exact_key(question.text), now_seconds=now)
            if entry is None:
                return ChatFound(how="miss")
            self._store.used(entry.entry, now_seconds=now)
            return ChatFound(how="exact", completion=json.loads(entry.answer), probability=1.0)
        found = self._cache.lookup(question.partition, question.text, now_seconds=now)
        return ChatFound(
            how=found.found,
            completion=None if found.answer is None else json.loads(found.answer),
            probability=found.decision.probability,
            vector=found.vector,
        )

    def storable(self, completion: Mapping[str, Any]) -> bool:
        """Return whether a completion may answer another request; see `cacheable`."""
        return semantic.cacheable(completion)

    def remember(
        self, question: ChatQuestion, completion: Mapping[str, Any], vector: NDArray[np.float32] | None
    ) -> None:
        """Store a completion; it is on disk when this returns. Safe from any thread."""
        self._cache.put(
            question.partition,
            question.text,
            json.dumps(completion, ensure_ascii=False),
            now_seconds=time.time(),
            vector=vector,
            answer_digest=semantic.content_digest(completion),
            usd_saved_each=self._usd,
        )

    def close(self) -> None:
        """Write what is noted and close store and encoder. May be called twice."""
        self._closing.close()

    def _encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if self._rule is None:
            return np.ones((len(texts), 1), np.float32)
        with self._encoding:
            return self._rule.encoder.encode(texts)


def serve_chat_cache(  # noqa: PLR0913 - keywords, each a choice of its own
    upstream: str,
    *,
    policy: str | Path | None = None,
    encoder: str | None = None,
    cache: str | None = None,
    data_version: str = "",
    ttl_seconds: float | None = None,
    most_entries: int | None = None,
    usd_per_answer: float = 0.0,
    tenant_header: str | None = "authorization",
    upstream_key: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    ready: Callable[[int], None] | None = None,
) -> None:
    """Serve a cache in front of an OpenAI-compatible server until SIGTERM or SIGINT.

    Args:
        upstream: URL of that server, with `/v1` where it has one.
        policy: File of `halve cache replay --policy`; None: identical texts alone are hits.
        encoder: Instead of the one that the policy names; it must make the same vectors.
        cache, data_version, ttl_seconds, most_entries, usd_per_answer: As in `ChatCache`.
        tenant_header: Requests share answers if they have the same value there; None: all do.
        upstream_key: Sent as a bearer token instead of what callers bring.
        host: Address to listen on.
        port: 0 lets the system choose.
        ready: Called with the port once requests are taken.

    Raises:
        UserError: If something cannot be used; one sentence.
        EnvironmentFailedError: If the port is taken.
    """
    if encoder is not None and policy is None:
        raise InvalidParameterError("encoder", rule="given with a policy only", value=encoder)
    behind = Upstream(upstream, key=upstream_key or None)
    memory = ChatCache(
        rule=None if policy is None else read_rule(Path(policy), encoder=encoder),
        location=cache,
        data_version=data_version,
        ttl_seconds=ttl_seconds,
        most_entries=most_entries,
        usd_per_answer=usd_per_answer,
    )
    try:
        flights: semantic.SingleFlight[Any] = semantic.SingleFlight(near=memory.near)
        application = ChatApp(upstream=behind, memory=memory, flights=flights, tenant_header=tenant_header)
        ChatServer(application, host=host, port=port).run(ready=ready)
    finally:
        memory.close()
