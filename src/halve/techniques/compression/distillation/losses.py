"""What a student is trained on: the teacher's answers, softened, and the labels where there are any.

With logits z and temperature T the softened answer is

    p_i = exp(z_i / T) / sum_j exp(z_j / T)

T = 1 is the model's own distribution; a higher T moves mass from the first class to the others, in the order in which
the model likes them, and that order is what a label does not tell. Log-probabilities do as well as logits: they
differ from them by one number per row, which cancels in the fraction.

The loss of a row with teacher t, student s and label y is

    L = a T^2 D(t_T || s_T) + (1 - a) CE(y, s)

**Why KL and not cross-entropy.** H(t, s) = H(t) + KL(t || s): both have the same gradient, but at a perfect match
cross-entropy still shows the teacher's entropy H(t), another number for every teacher and every T, where KL is 0.

**Why T^2.** d KL(t_T || s_T) / d z_i = (s_T,i - t_T,i) / T. For large T, exp(z / T) is about 1 + z / T, so with N
classes and centred logits z (student) and v (teacher) the difference is about (z_i - v_i) / (N T): the gradient is
about (z_i - v_i) / (N T^2). The factor T^2 undoes this, and a keeps its meaning when T changes.

**Rows without a label** (-1) have the first part of the loss only. The loss of a batch is the mean over all of its
rows, a missing part counting as 0: it does not matter to the size of a row's gradient what shares its batch with it.

a = 1 is pure distillation and needs no label; a = 0 is plain training.

Source: Hinton, Vinyals and Dean 2015, arXiv:1503.02531; Lin 1991, doi:10.1109/18.61115 (Jensen-Shannon).
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

from halve.errors import InvalidParameterError

if TYPE_CHECKING:
    import torch

Divergence = Literal["forward_kl", "reverse_kl", "jensen_shannon"]
DIVERGENCES: tuple[Divergence, ...] = get_args(Divergence)
UNLABELLED = -1

LEAST_LOG_PROBABILITY = -1e6
"""Stands for the logarithm of 0: its exponential is 0 at any temperature, and 0 times it is 0, not NaN."""

LEAST_OF_REVERSE_KL = -50.0
"""A class that the teacher excludes costs at most 50 nats under reverse KL, which would otherwise be infinite."""


def soften(logits: "torch.Tensor", *, temperature: float) -> "torch.Tensor":
    """Return probabilities p_i = exp(z_i / T) / sum_j exp(z_j / T), of the shape of `logits`.

    Args:
        logits: (..., classes); log-probabilities give the same result.
        temperature: T > 0.
    """
    return log_soften(logits, temperature=temperature).exp()


def log_soften(logits: "torch.Tensor", *, temperature: float) -> "torch.Tensor":
    """Return the logarithm of `soften`, without losing small probabilities."""
    check_temperature(temperature)
    return (logits.clamp(min=LEAST_LOG_PROBABILITY) / temperature).log_softmax(dim=-1)


def divergence_of_rows(
    teacher: "torch.Tensor", student: "torch.Tensor", *, divergence: Divergence = "forward_kl"
) -> "torch.Tensor":
    """Return D(teacher || student) of each row in nats, at least 0 up to rounding.

    forward_kl = sum t (log t - log s) covers all that the teacher thinks possible; reverse_kl = sum s (log s - log t)
    settles on what it thinks likely; jensen_shannon = KL(t || m) / 2 + KL(s || m) / 2 with m = (t + s) / 2 lies
    between them and never exceeds log 2.

    Args:
        teacher, student: Log-probabilities (..., classes), each row summing to 1.
        divergence: Which.

    Returns:
        (...), one number less per shape.

    Raises:
        InvalidParameterError: If the divergence is unknown.
    """
    if divergence == "forward_kl":
        return _kl(teacher, student)
    if divergence == "reverse_kl":
        return _kl(student, teacher.clamp(min=LEAST_OF_REVERSE_KL))
    if divergence == "jensen_shannon":
        import torch

        middle = torch.logaddexp(teacher, student) - math.log(2)
        return (_kl(teacher, middle) + _kl(student, middle)) / 2
    raise InvalidParameterError("divergence", rule=f"one of {', '.join(DIVERGENCES)}", value=divergence)


def bucketed_divergence(
    student_logits: "torch.Tensor",
    indices: "torch.Tensor | None",
    teacher_log_masses: "torch.Tensor",
    *,
    temperature: float,
    divergence: Divergence = "forward_kl",
) -> "torch.Tensor":
    """Return D(teacher_T || student_T) of each row where the teacher's small classes are one bucket, in nats.

    The last bucket holds all classes that are not listed, at its full mass; nothing is renormalised. The student's
    mass of the bucket is the sum over the same classes. By the data processing inequality the result is at most the
    divergence over all classes, and 0 at a perfect match.

    Args:
        student_logits: (rows, classes).
        indices: int64 (rows, k), the listed classes, each once; None where column j is class j.
        teacher_log_masses: Softened at `temperature`: (rows, k) if k = classes, else (rows, k + 1), the bucket last.
        temperature: T > 0.
        divergence: Which.
    """
    student = log_soften(student_logits, temperature=temperature)
    if indices is not None:
        listed = student.gather(-1, indices)
        if indices.shape[-1] < student.shape[-1]:
            tail = student.scatter(-1, indices, -math.inf).logsumexp(dim=-1, keepdim=True)
            listed = _concatenate(listed, tail)
        student = listed
    return divergence_of_rows(teacher_log_masses, student, divergence=divergence)


def distillation_loss(
    student_logits: "torch.Tensor",
    teacher_log_probabilities: "torch.Tensor",
    labels: "torch.Tensor | None" = None,
    *,
    temperature: float,
    alpha: float,
    divergence: Divergence = "forward_kl",
) -> "torch.Tensor":
    """Return a T^2 D(teacher_T || student_T) + (1 - a) CE(y, student), the mean over rows; see the module.

    Args:
        student_logits: (rows, classes).
        teacher_log_probabilities: (rows, classes) at T = 1; logits give the same result. -inf is allowed.
        labels: int64 (rows,); -1 for a row without. None: no row has one.
        temperature: T > 0.
        alpha: a in [0, 1].
        divergence: D.

    Raises:
        InvalidParameterError: If a number is out of range or the divergence is unknown.
    """
    masses = log_soften(teacher_log_probabilities, temperature=temperature)
    rows = bucketed_divergence(student_logits, None, masses, temperature=temperature, divergence=divergence)
    return combined(rows, student_logits, labels, temperature=temperature, alpha=alpha)


def combined(
    divergences: "torch.Tensor",
    student_logits: "torch.Tensor",
    labels: "torch.Tensor | None",
    *,
    temperature: float,
    alpha: float,
) -> "torch.Tensor":
    """Return the mean over rows of a T^2 D + (1 - a) CE(y, student), for divergences that are known already.

    Args:
        divergences: D of each row at T, (rows,).
        student_logits: (rows, classes).
        labels: int64 (rows,), -1 for none; or None.
        temperature: T > 0.
        alpha: a in [0, 1].
    """
    if not 0 <= alpha <= 1:
        raise InvalidParameterError("alpha", rule="in [0, 1]", value=alpha)
    soft = alpha * temperature**2 * divergences.mean()
    if labels is None or alpha == 1:
        return soft
    from torch.nn.functional import cross_entropy

    hard = cross_entropy(student_logits, labels, ignore_index=UNLABELLED, reduction="sum") / len(labels)
    return soft + (1 - alpha) * hard


def mixture_of_teachers(
    log_probabilities: "Sequence[torch.Tensor]", weights: Sequence[float] | None = None
) -> "torch.Tensor":
    """Return the log-probabilities of several teachers' weighted mean answer, log sum_m w_m p_m.

    Probabilities are averaged, not logits: a teacher that is sure cannot be drowned by the offset of another.

    Args:
        log_probabilities: Of each teacher at T = 1, all (rows, classes).
        weights: One for each, >= 0, not all 0; they are divided by their sum. None: all alike.

    Raises:
        InvalidParameterError: If there is no teacher or the weights break their rule.
    """
    import torch

    count = len(log_probabilities)
    shares = [1.0] * count if weights is None else list(weights)
    if not count or len(shares) != count or min(shares) < 0 or not 0 < sum(shares) < math.inf:
        raise InvalidParameterError("weights", rule=f"one for each of {count} teachers, >= 0, not all 0", value=weights)
    used = [(share, answers) for share, answers in zip(shares, log_probabilities, strict=True) if share > 0]
    terms = [answers + math.log(share / sum(shares)) for share, answers in used]
    return torch.stack(terms).logsumexp(dim=0)


def check_temperature(temperature: float) -> None:
    """Refuse a temperature that is not positive and finite.

    Raises:
        InvalidParameterError: If it is not.
    """
    if not 0 < temperature < math.inf:
        raise InvalidParameterError("temperature", rule="positive", value=temperature)


def _kl(of: "torch.Tensor", against: "torch.Tensor") -> "torch.Tensor":
    terms: torch.Tensor = of.exp() * (of - against)
    return terms.sum(dim=-1)


def _concatenate(left: "torch.Tensor", right: "torch.Tensor") -> "torch.Tensor":
    import torch

    return torch.cat([left, right], dim=-1)
