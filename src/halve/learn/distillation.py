"""Distillation worked through on three classes: every number here is computed by `distillation.losses`.

The reader's logits are the teacher's; the student's stand below, so that there is something to pull. The first class
is taken for the label.
"""

import math
from typing import TYPE_CHECKING

from halve.errors import InvalidParameterError, MissingExtraError
from halve.learn.derivation import Derivation, Step
from halve.techniques.compression.distillation.losses import (
    bucketed_divergence,
    distillation_loss,
    divergence_of_rows,
    log_soften,
    soften,
)

if TYPE_CHECKING:
    import torch

STUDENT = (1.0, 1.0, 0.0)
"""Logits of the student in the example."""

TABLE_TEMPERATURES = (1.0, 2.0, 5.0, 10.0, 20.0)
LARGEST_LOGIT = 50.0


def derive(*, first: float, second: float, third: float, temperature: float, alpha: float) -> Derivation:
    """Return the derivation for a teacher's three logits, one temperature and one weight.

    Args:
        first, second, third: The teacher's logits, within +-50.
        temperature: T, in [0.5, 100].
        alpha: a, in [0, 1].

    Raises:
        InvalidParameterError: If a number breaks its rule.
        MissingExtraError: If torch is not installed.
    """
    logits = (float(first), float(second), float(third))
    for name, value in zip(("first", "second", "third"), logits, strict=True):
        if not abs(value) <= LARGEST_LOGIT:
            raise InvalidParameterError(name, rule="within +-50", value=value)
    if not 0.5 <= temperature <= 100:
        raise InvalidParameterError("temperature", rule="in [0.5, 100]", value=temperature)
    if not 0 <= alpha <= 1:
        raise InvalidParameterError("alpha", rule="in [0, 1]", value=alpha)
    teacher, student = _row(logits), _row(STUDENT)
    return Derivation(
        topic="distillation",
        title=f"Distilling the logits {_listed(logits)} at temperature {temperature:g}, weight {alpha:g}",
        given={"first": first, "second": second, "third": third, "temperature": temperature, "alpha": alpha},
        steps=(
            _plain(teacher, logits),
            _softened(teacher, logits, temperature),
            _table(teacher),
            _student(student, temperature),
            _divergence(teacher, student, temperature),
            _entropy(teacher, student, temperature),
            _gradient(teacher, student),
            _loss(teacher, student, temperature, alpha),
            _bucket(teacher, student, temperature),
        ),
        sources=("Hinton, Vinyals and Dean 2015, arXiv:1503.02531",),
    )


def _row(logits: tuple[float, ...]) -> "torch.Tensor":
    try:
        import torch
    except ImportError:
        raise MissingExtraError("this derivation", package="torch", extra="torch") from None
    return torch.tensor([logits], dtype=torch.float64)


def _numbers(row: "torch.Tensor") -> list[float]:
    return [float(number) for number in row.detach().flatten()]


def _listed(numbers: "tuple[float, ...] | list[float]") -> str:
    return f"({', '.join(f'{number:.4g}' for number in numbers)})"


def _by_name(name: str, numbers: list[float]) -> dict[str, float]:
    return {f"{name}_{place}": number for place, number in enumerate(numbers, start=1)}


def _plain(teacher: "torch.Tensor", logits: tuple[float, ...]) -> Step:
    shares = _numbers(soften(teacher, temperature=1))
    return Step(
        title="What the teacher says",
        reason="Exponentials over their sum. A label would keep the first class only; the others, and which of them is "
        "nearer, are what a student can learn beyond the label.",
        lines=("p_i = exp(z_i) / sum_j exp(z_j)", f"z = {_listed(logits)}", f"p = {_listed(shares)}"),
        figures=_by_name("probability", shares),
    )


def _softened(teacher: "torch.Tensor", logits: tuple[float, ...], temperature: float) -> Step:
    shares = _numbers(soften(teacher, temperature=temperature))
    divided = [logit / temperature for logit in logits]
    return Step(
        title=f"The same at temperature {temperature:g}",
        reason="Dividing the logits by T > 1 moves mass to the small classes and keeps their order. Only differences "
        "of logits count, so log-probabilities do as well as logits.",
        lines=(
            "p_i = exp(z_i / T) / sum_j exp(z_j / T)",
            f"z / T = {_listed(divided)}",
            f"p     = {_listed(shares)}",
        ),
        figures=_by_name("softened", shares),
    )


def _table(teacher: "torch.Tensor") -> Step:
    lines = [f"{'T':>4}  {'p_1':>8}  {'p_2':>8}  {'p_3':>8}  {'entropy':>8}"]
    figures: dict[str, float] = {}
    for temperature in TABLE_TEMPERATURES:
        shares = _numbers(soften(teacher, temperature=temperature))
        entropy = _entropy_of(shares)
        lines.append(f"{temperature:>4g}  " + "  ".join(f"{share:>8.4f}" for share in shares) + f"  {entropy:>8.4f}")
        figures[f"entropy_at_{temperature:g}"] = entropy
    return Step(
        title="Softer and softer",
        reason=f"The entropy rises towards that of an even answer, ln 3 = {math.log(3):.4f}.",
        lines=tuple(lines),
        figures=figures,
    )


def _student(student: "torch.Tensor", temperature: float) -> Step:
    shares = _numbers(soften(student, temperature=temperature))
    return Step(
        title="What the student says",
        reason="It is softened by the same T; when it is served, it answers at T = 1.",
        lines=(f"z = {_listed(STUDENT)}", f"q = {_listed(shares)} at T = {temperature:g}"),
        figures=_by_name("student", shares),
    )


def _divergence(teacher: "torch.Tensor", student: "torch.Tensor", temperature: float) -> Step:
    of, against = (log_soften(row, temperature=temperature) for row in (teacher, student))
    terms = _numbers(of.exp() * (of - against))
    total = float(divergence_of_rows(of, against))
    itself = abs(float(divergence_of_rows(of, of)))
    return Step(
        title="How far apart they are",
        reason="The Kullback-Leibler divergence is the mean of the log ratio, weighted by what the teacher thinks "
        "likely. Terms may be negative; the sum never is.",
        lines=(
            "KL(p || q) = sum_i p_i ln(p_i / q_i)",
            f"           = {' + '.join(f'({term:.4g})' for term in terms)}",
            f"           = {total:.5g}",
            f"KL(p || p) = {itself:.5g}",
        ),
        figures={"divergence": total, "divergence_of_a_match": itself},
    )


def _entropy(teacher: "torch.Tensor", student: "torch.Tensor", temperature: float) -> Step:
    of, against = (log_soften(row, temperature=temperature) for row in (teacher, student))
    entropy, crossed = _entropy_of(_numbers(of.exp())), -float((of.exp() * against).sum())
    divergence = float(divergence_of_rows(of, against))
    return Step(
        title="Why not cross-entropy",
        reason="It differs from KL by the teacher's entropy, which no student can change: same gradient, but at a "
        "perfect match it shows the entropy, where KL shows 0.",
        lines=(
            "H(p, q) = H(p) + KL(p || q)",
            f"{crossed:.5g} = {entropy:.5g} + {divergence:.5g}",
        ),
        figures={"cross_entropy": crossed, "entropy": entropy},
    )


def _gradient(teacher: "torch.Tensor", student: "torch.Tensor") -> Step:
    lines = [f"{'T':>4}  {'|gradient of KL|':>17}  {'times T^2':>10}"]
    figures: dict[str, float] = {}
    for temperature in TABLE_TEMPERATURES:
        length = _gradient_length(teacher, student, temperature)
        lines.append(f"{temperature:>4g}  {length / temperature**2:>17.3g}  {length:>10.3g}")
        figures[f"gradient_at_{temperature:g}"] = length
    return Step(
        title="Why T^2",
        reason="The gradient is (q - p) / T, and for large T the difference itself shrinks like 1 / T. Times T^2 it "
        "keeps its size, so that the weight of labels need not change with T.",
        lines=("d KL / d z_i = (q_i - p_i) / T", *lines),
        figures=figures,
    )


def _gradient_length(teacher: "torch.Tensor", student: "torch.Tensor", temperature: float) -> float:
    import torch

    with torch.enable_grad():
        free = student.clone().requires_grad_()
        loss = distillation_loss(free, teacher, temperature=temperature, alpha=1)
        (gradient,) = torch.autograd.grad(loss, free)
    return float(gradient.norm())


def _loss(teacher: "torch.Tensor", student: "torch.Tensor", temperature: float, alpha: float) -> Step:
    import torch

    label = torch.tensor([0])
    soft = float(distillation_loss(student, teacher, temperature=temperature, alpha=1))
    hard = float(distillation_loss(student, teacher, label, temperature=temperature, alpha=0))
    total = float(distillation_loss(student, teacher, label, temperature=temperature, alpha=alpha))
    return Step(
        title="The loss",
        reason="Both parts, weighted. a = 1 needs no label; a = 0 is plain training.",
        lines=(
            "L = a T^2 KL(p || q) + (1 - a) CE(y, student at T = 1)",
            f"  = {alpha:g} * {soft:.5g} + {1 - alpha:.4g} * {hard:.5g}",
            f"  = {total:.5g}",
        ),
        figures={"soft": soft, "hard": hard, "loss": total},
    )


def _bucket(teacher: "torch.Tensor", student: "torch.Tensor", temperature: float) -> Step:
    import torch

    logs = log_soften(teacher, temperature=temperature)
    best = logs.argmax(dim=1, keepdim=True)
    listed = logs.gather(1, best)
    tail = logs.scatter(1, best, -math.inf).logsumexp(dim=1, keepdim=True)
    masses = torch.cat([listed, tail], dim=1)
    bucketed = float(bucketed_divergence(student, best, masses, temperature=temperature))
    whole = float(bucketed_divergence(student, None, logs, temperature=temperature))
    return Step(
        title="With many classes: a few, and the rest as one",
        reason="A cache keeps the likeliest classes and the mass of all others in one bucket. The student's bucket is "
        "the sum of the same classes. Nothing is renormalised, so a match still gives 0.",
        lines=(
            f"p, likeliest class and the rest: {_listed(_numbers(masses.exp()))}",
            f"KL over these two = {bucketed:.5g}, over all three = {whole:.5g}",
        ),
        figures={"bucketed_divergence": bucketed, "tail": float(tail.exp())},
    )


def _entropy_of(shares: list[float]) -> float:
    return -sum(share * math.log(share) for share in shares if share > 0)
