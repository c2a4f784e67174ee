"""How sure an answer is, from what is recorded beside it: logits, token probabilities, other answerers' answers."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from halve.errors import InvalidParameterError

TokenRule = Literal["mean", "minimum", "perplexity"]
TOKEN_RULES: tuple[TokenRule, ...] = get_args(TokenRule)

_FEWEST_ANSWERERS = 2


def energy(logits: NDArray[np.floating], *, temperature: float = 1.0) -> NDArray[np.float64]:
    """Return T log sum_j exp(z_j / T), the negative free energy: higher where the model knows inputs like this one.

    Unlike a maximum probability it keeps the size of the logits, which softmax divides out. It is in the logits'
    own units, any real number, so a threshold suits one model only; calibrate it with `fit_isotonic`.

    Source: Liu et al. 2020, NeurIPS, arXiv:2010.03759.

    Args:
        logits: (n, k), k >= 1, before softmax.
        temperature: T, above 0.

    Returns:
        float64 (n,).

    Raises:
        InvalidParameterError: If the shape or the temperature is wrong, or a logit is NaN or infinite.
    """
    rows = np.asarray(logits, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] == 0 or not np.all(np.isfinite(rows)):
        raise InvalidParameterError("logits", rule="finite, of shape (n, classes), classes >= 1", value=rows.shape)
    if not (temperature > 0 and np.isfinite(temperature)):
        raise InvalidParameterError("temperature", rule="above 0 and finite", value=temperature)
    sure: NDArray[np.float64] = temperature * logsumexp(rows / temperature, axis=1)
    return sure


def token_confidence(
    log_probabilities: Sequence[Sequence[float] | NDArray[np.floating]], rule: TokenRule
) -> NDArray[np.float64]:
    """Return how sure a language model was of each answer, in [0, 1], from its tokens' log-probabilities.

    mean: (1 / t) sum_i p_i; minimum: min_i p_i, the weakest link; perplexity: exp((1 / t) sum_i log p_i), which is
    one over the answer's perplexity, so that higher is surer. p_i is the probability of the i-th of t tokens.

    Source: Malinin & Gales 2021, ICLR, arXiv:2002.07650, length-normalised scores; Gupta et al. 2024, ICLR,
    arXiv:2404.10136, for quantiles such as the minimum in cascades.

    Args:
        log_probabilities: One sequence per answer: at least one token, natural logarithms, at most 0.
        rule: One of the three.

    Returns:
        float64 (n,).

    Raises:
        InvalidParameterError: If the rule is unknown, an answer has no token, or a value is above 0 or NaN.
    """
    if rule not in TOKEN_RULES:
        raise InvalidParameterError("rule", rule=f"one of {', '.join(TOKEN_RULES)}", value=rule)
    sure = np.empty(len(log_probabilities))
    for place, tokens in enumerate(log_probabilities):
        logs = np.asarray(tokens, dtype=np.float64)
        if logs.ndim != 1 or len(logs) == 0 or not np.all(logs <= 0):
            rule_text = "of at least one token each, all at most 0"
            raise InvalidParameterError("log_probabilities", rule=rule_text, value=f"answer {place}")
        sure[place] = _of_tokens(logs, rule)
    return sure


def _of_tokens(logs: NDArray[np.float64], rule: TokenRule) -> float:
    if rule == "perplexity":
        return float(np.exp(np.mean(logs)))
    probabilities = np.exp(logs)
    return float(np.mean(probabilities) if rule == "mean" else np.min(probabilities))


def agreement(answers: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """Return the share of the other answerers that gave the first one's answer, in [0, 1].

    With two answerers: 1 where they agree, else 0. An answer is a digest or a class: equal means the same.

    Source: Wang et al. 2023, ICLR, arXiv:2203.11171 (self-consistency); Yue et al. 2024, ICLR, arXiv:2310.03094
    (agreement as the accept rule of a cascade).

    Args:
        answers: One array (n,) per answerer, at least two; the first is the one whose answer may stand.

    Returns:
        float64 (n,).

    Raises:
        InvalidParameterError: If there are fewer than two answerers, or lengths differ.
    """
    if len(answers) < _FEWEST_ANSWERERS or len({len(given) for given in answers}) != 1:
        lengths = [len(given) for given in answers]
        raise InvalidParameterError("answers", rule="two or more arrays of equal length", value=lengths)
    first = np.asarray(answers[0])
    same: NDArray[np.float64] = np.mean([np.asarray(given) == first for given in answers[1:]], axis=0, dtype=np.float64)
    return same
