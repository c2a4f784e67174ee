"""What an OpenAI-compatible server replied, as one probability per class."""

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from halve.engines.endpoint import Endpoint

LEAST_PROBABILITY = 1e-9
"""No class is impossible: logarithms of what a teacher said stay finite."""

_AROUND = " \t\r\n\"'`*.,:;!?()[]{}<>"


class UnusableReplyError(Exception):
    """A reply that gives no probabilities, with the reason in a few words.

    Args:
        cause: What was expected and what came.
        is_endpoints: Another input would fare no better: the server does not do what the mode needs.
    """

    def __init__(self, cause: str, *, is_endpoints: bool = False) -> None:
        self.cause, self.is_endpoints = cause, is_endpoints
        super().__init__(cause)


def probabilities_from_tokens(reply: Any, endpoint: Endpoint) -> NDArray[np.float32]:
    """Return float32 (classes,) from the most probable first tokens of a chat completion.

    With P_t the probability of token t, m_k the sum of P_t over the tokens that mean class k (its code, or a beginning
    that no other code shares, blanks around it ignored), and R = 1 - sum_t P_t what the tokens not listed share:

        q_k = m_k if any token means k, else min(R / number of missing classes, min_t P_t);   p_k = q_k / sum_j q_j.

    A missing class can have at most R, and at most the probability of the last token listed.

    Raises:
        UnusableReplyError: If the reply holds no log-probabilities, or none for a class and the endpoint says `error`.
    """
    tokens = _top_tokens(reply)
    codes = endpoint.label_codes
    masses = np.zeros(len(codes))
    found = np.zeros(len(codes), bool)
    for token, probability in tokens:
        index = class_of_token(token, codes)
        if index is not None:
            masses[index] += probability
            found[index] = True
    if not found.any():
        seen = ", ".join(repr(token) for token, _ in tokens[:3])
        return _nothing(endpoint, f"no code of a label is among the {len(tokens)} most probable tokens ({seen}...)")
    if not found.all():
        rest = max(1.0 - sum(probability for _, probability in tokens), 0.0)
        least = min(probability for _, probability in tokens)
        masses[~found] = min(rest / int((~found).sum()), least)
    return _normalised(masses)


def probabilities_from_samples(replies: Sequence[Any], endpoint: Endpoint) -> NDArray[np.float32]:
    """Return float32 (classes,) from several chat completions: p_k = (c_k + 1) / (n + K), Laplace's rule of succession.

    c_k of the n replies that named a label named label k of K; replies that named none are left out of n.

    Raises:
        UnusableReplyError: If a reply holds no text, or none names a label and the endpoint says `error`.
    """
    texts = [_content(reply) for reply in replies]
    classes = [index for index in (class_of_text(text, endpoint) for text in texts) if index is not None]
    if not classes:
        return _nothing(endpoint, f"no reply of {len(texts)} names a label (the first: {texts[0][:60]!r})")
    counts = np.bincount(classes, minlength=len(endpoint.labels)).astype(np.float64)
    return _normalised(counts + 1.0)


def class_of_token(token: str, codes: Sequence[str]) -> int | None:
    """Return the class whose code this token is or, alone among all codes, begins; None if there is none.

    Digits begin nothing: a tokenizer that splits numbers writes 3 for every code that goes on after it.
    """
    text = token.strip().strip("\u2581\u0120")  # Marks of a blank, where a server does not decode them.
    if not text:
        return None
    fitting = [index for index, code in enumerate(codes) if code == text or (text.isalpha() and code.startswith(text))]
    return fitting[0] if len(fitting) == 1 else None


def class_of_text(text: str, endpoint: Endpoint) -> int | None:
    """Return the class that a reply names by code, by label, or as `code: label`; None if it names none."""
    plain = text.strip(_AROUND)
    codes, labels = endpoint.label_codes, [label.casefold().strip(_AROUND) for label in endpoint.labels]
    if plain in codes:
        return codes.index(plain)
    if plain.casefold() in labels:
        return labels.index(plain.casefold())
    code, separator, _ = re.sub(r"[):.,\n-]", "\0", plain).partition("\0")
    return codes.index(code.strip()) if separator and code.strip() in codes else None


def _nothing(endpoint: Endpoint, cause: str) -> NDArray[np.float32]:
    if endpoint.on_no_label == "error":
        raise UnusableReplyError(cause)
    return _normalised(np.ones(len(endpoint.labels)))


def _normalised(masses: NDArray[np.float64]) -> NDArray[np.float32]:
    shares = np.maximum(masses / masses.sum(), LEAST_PROBABILITY)
    return np.asarray(shares / shares.sum(), dtype=np.float32)


def _top_tokens(reply: Any) -> list[tuple[str, float]]:
    """Return (token, probability) pairs as listed."""
    log_probabilities = _choice(reply).get("logprobs")
    if log_probabilities is None:
        cause = "the server must return choices[0].logprobs in this mode. Got none; use mode sampled"
        raise UnusableReplyError(cause, is_endpoints=True)
    try:
        pairs = [(entry["token"], float(entry["logprob"])) for entry in log_probabilities["content"][0]["top_logprobs"]]
    except (KeyError, IndexError, TypeError, ValueError):
        raise UnusableReplyError("choices[0].logprobs must hold content[0].top_logprobs of token and logprob") from None
    if not pairs or not all(isinstance(token, str) and value <= 1e-3 for token, value in pairs):  # False for NaN, too.
        raise UnusableReplyError(f"top_logprobs must hold texts with logarithms of at most 0. Got {pairs[:2]}")
    return [(token, math.exp(min(value, 0.0))) for token, value in pairs]


def _content(reply: Any) -> str:
    message = _choice(reply).get("message")
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, str):
        raise UnusableReplyError("choices[0].message.content must be a text")
    return content


def _choice(reply: Any) -> dict[str, Any]:
    choices = reply.get("choices") if isinstance(reply, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise UnusableReplyError("its reply must be a chat completion with choices[0]")
    return choices[0]
