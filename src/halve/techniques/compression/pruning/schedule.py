"""The gradual schedule: much is pruned early, while there is still much that does not matter, and little at the end.

    s_t = s_f + (s_i - s_f) (1 - (t - t_0) / n)^3    for t_0 <= t <= t_0 + n

Source: Zhu and Gupta 2017, arXiv:1710.01878, equation 1.
"""

from halve.errors import InvalidParameterError


def cubic_sparsity(step: int, *, initial: float, final: float, start: int, steps: int) -> float:
    """Return the share of weights that are zero after a training step.

    Args:
        step: t, counted from 0; before `start` the sparsity is `initial`, after `start + steps` it is `final`.
        initial, final: s_i and s_f, 0 to 1, `initial` at most `final`.
        start: t_0, >= 0.
        steps: n, >= 1.

    Raises:
        InvalidParameterError: If a number is outside its range.
    """
    if step < 0 or start < 0:
        raise InvalidParameterError("step and start", rule="at least 0", value=(step, start))
    if steps < 1:
        raise InvalidParameterError("steps", rule="at least 1", value=steps)
    if not 0 <= initial <= final <= 1:
        raise InvalidParameterError("initial and final", rule="0 <= initial <= final <= 1", value=(initial, final))
    done = min(max(step - start, 0) / steps, 1.0)
    return final + (initial - final) * (1 - done) ** 3
