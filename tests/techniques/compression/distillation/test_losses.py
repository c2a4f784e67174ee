import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch.nn import functional

from halve.errors import InvalidParameterError
from halve.techniques.compression.distillation import (
    DIVERGENCES,
    bucketed_divergence,
    distillation_loss,
    mixture_of_teachers,
    soften,
)
from halve.techniques.compression.distillation.losses import divergence_of_rows, log_soften

LOGITS = torch.tensor([4.0, 2.0, 1.0])


def of_classes(classes, count=1):
    matrix = arrays.arrays(np.float32, (3, classes), elements=st.floats(-15, 15, width=32)).map(torch.from_numpy)
    return st.tuples(*[matrix] * count)


def pairs():
    return st.integers(2, 12).flatmap(lambda classes: of_classes(classes, 2))


def rows():
    return st.integers(2, 12).flatmap(of_classes).map(lambda one: one[0])


def test_softened_at_temperature_1():
    # e^4 = 54.598150, e^2 = 7.389056, e^1 = 2.718282; their sum is 64.705488.
    # 54.598150 / 64.705488 = 0.843795, 7.389056 / 64.705488 = 0.114195, 2.718282 / 64.705488 = 0.042010.
    expected = torch.tensor([0.843795, 0.114195, 0.042010])
    torch.testing.assert_close(soften(LOGITS, temperature=1), expected, atol=1e-6, rtol=0)


def test_softened_at_temperature_5():
    # e^0.8 = 2.225541, e^0.4 = 1.491825, e^0.2 = 1.221403; their sum is 4.938769.
    # 2.225541 / 4.938769 = 0.450627, 1.491825 / 4.938769 = 0.302064, 1.221403 / 4.938769 = 0.247309.
    expected = torch.tensor([0.450627, 0.302064, 0.247309])
    torch.testing.assert_close(soften(LOGITS, temperature=5), expected, atol=1e-6, rtol=0)


def test_divergences_by_hand():
    # t = (1/2, 1/2), s = (3/4, 1/4).
    # KL(t || s) = 1/2 ln(2/3) + 1/2 ln 2 = 1/2 ln(4/3) = 0.143841
    # KL(s || t) = 3/4 ln(3/2) + 1/4 ln(1/2) = 0.304099 - 0.173287 = 0.130812
    # m = (5/8, 3/8): KL(t || m) = 1/2 ln(4/5) + 1/2 ln(4/3) = 0.032269
    #                 KL(s || m) = 3/4 ln(6/5) + 1/4 ln(2/3) = 0.035375; half of the sum is 0.033822
    teacher, student = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.75, 0.25]]).log()
    expected = {"forward_kl": 0.143841, "reverse_kl": 0.130812, "jensen_shannon": 0.033822}
    for name, value in expected.items():
        assert divergence_of_rows(teacher, student, divergence=name).item() == pytest.approx(value, abs=1e-6)


def test_the_loss_is_the_formula():
    torch.manual_seed(0)
    student, teacher, labels = torch.randn(7, 5), torch.randn(7, 5), torch.arange(7) % 5
    target, answer = (torch.softmax(logits / 4.0, 1) for logits in (teacher, student))
    soft = (target * (target / answer).log()).sum(1).mean()
    expected = 0.7 * 16 * soft + 0.3 * functional.cross_entropy(student, labels)
    torch.testing.assert_close(distillation_loss(student, teacher, labels, temperature=4, alpha=0.7), expected)


def test_alpha_0_is_cross_entropy_and_alpha_1_needs_no_label():
    torch.manual_seed(0)
    student, teacher, labels = torch.randn(7, 5), torch.randn(7, 5), torch.arange(7) % 5
    plain = distillation_loss(student, teacher, labels, temperature=3, alpha=0)
    torch.testing.assert_close(plain, functional.cross_entropy(student, labels))
    pure = distillation_loss(student, teacher, temperature=3, alpha=1)
    torch.testing.assert_close(distillation_loss(student, teacher, labels, temperature=3, alpha=1), pure)


def test_a_row_without_a_label_changes_no_other_rows_gradient():
    torch.manual_seed(0)
    student, teacher = torch.randn(4, 5, requires_grad=True), torch.randn(4, 5)

    def gradient(labels):
        loss = distillation_loss(student, teacher, torch.tensor(labels), temperature=2, alpha=0.6)
        return torch.autograd.grad(loss, student)[0]

    full, half = gradient([0, 1, 2, 3]), gradient([0, -1, 2, -1])
    torch.testing.assert_close(half[[0, 2]], full[[0, 2]])
    soft_only = torch.autograd.grad(distillation_loss(student, teacher, temperature=2, alpha=0.6), student)[0]
    torch.testing.assert_close(half[[1, 3]], soft_only[[1, 3]])


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_the_gradient_stays_of_one_order_from_temperature_1_to_20(divergence):
    torch.manual_seed(0)
    teacher, start = torch.randn(32, 10) * 3, torch.randn(32, 10) * 3
    with_factor, without = [], []
    for temperature in (1, 2, 4, 8, 12, 16, 20):
        student = start.clone().requires_grad_()
        loss = distillation_loss(student, teacher, temperature=temperature, alpha=1, divergence=divergence)
        norm = torch.autograd.grad(loss, student)[0].norm().item()
        with_factor.append(norm)
        without.append(norm / temperature**2)
    assert max(with_factor) / min(with_factor) < 10
    assert max(without) / min(without) > 50


def test_at_a_high_temperature_the_gradient_is_the_difference_of_centred_logits_over_the_classes():
    teacher, student = torch.tensor([[1.0, 2.0, -3.0]]), torch.tensor([[0.5, -1.0, 0.5]], requires_grad=True)
    loss = distillation_loss(student, teacher, temperature=1000, alpha=1)
    gradient = torch.autograd.grad(loss, student)[0]
    torch.testing.assert_close(gradient, (student.detach() - teacher) / 3, rtol=0.02, atol=0)


@given(pair=pairs(), temperature=st.floats(0.5, 20), divergence=st.sampled_from(DIVERGENCES))
def test_no_divergence_is_negative(pair, temperature, divergence):
    teacher, student = (log_soften(logits, temperature=temperature) for logits in pair)
    values = divergence_of_rows(teacher, student, divergence=divergence)
    assert values.min() >= -1e-5
    assert divergence != "jensen_shannon" or values.max() <= math.log(2) + 1e-5


@given(logits=rows(), temperature=st.floats(0.5, 20), divergence=st.sampled_from(DIVERGENCES))
def test_a_perfect_match_is_0_where_cross_entropy_is_the_teachers_entropy(logits, temperature, divergence):
    shifted = logits - 3.0  # Log-probabilities and logits are the same thing here.
    loss = distillation_loss(logits, shifted, temperature=temperature, alpha=1, divergence=divergence)
    assert abs(loss.item()) < 1e-3


@given(logits=rows(), low=st.floats(0.5, 10), factor=st.floats(1, 4))
def test_entropy_rises_with_temperature(logits, low, factor):
    def entropy(temperature):
        logs = log_soften(logits, temperature=temperature)
        return -(logs.exp() * logs).sum(1)

    assert (entropy(low * factor) >= entropy(low) - 1e-4).all()
    torch.testing.assert_close(soften(logits, temperature=low).sum(1), torch.ones(3))


@given(pair=pairs(), data=st.data(), divergence=st.sampled_from(DIVERGENCES))
def test_one_bucket_for_the_tail_never_tells_more_than_all_classes(pair, data, divergence):
    teacher, student = pair
    classes = teacher.shape[1]
    k = data.draw(st.integers(1, classes))
    logs = log_soften(teacher, temperature=2)
    indices = logs.topk(k).indices
    listed = logs.gather(1, indices)
    if k < classes:
        tail = logs.scatter(1, indices, -math.inf).logsumexp(1, keepdim=True)
        listed = torch.cat([listed, tail], 1)
    torch.testing.assert_close(listed.exp().sum(1), torch.ones(3))
    some = bucketed_divergence(student, indices, listed, temperature=2, divergence=divergence)
    every = bucketed_divergence(student, None, logs, temperature=2, divergence=divergence)
    assert (some <= every + 1e-4).all()
    assert some.min() >= -1e-5
    if k == classes:
        torch.testing.assert_close(some, every, atol=1e-4, rtol=1e-3)
    match = bucketed_divergence(teacher, indices, listed, temperature=2, divergence=divergence)
    assert match.abs().max() < 1e-4


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_a_class_that_the_teacher_excludes_leaves_everything_finite(divergence):
    teacher = torch.tensor([[0.0, -math.inf, -math.inf], [math.log(0.5), math.log(0.5), -math.inf]])
    student = torch.zeros(2, 3, requires_grad=True)
    loss = distillation_loss(student, teacher, temperature=1, alpha=1, divergence=divergence)
    assert loss.isfinite()
    assert torch.autograd.grad(loss, student)[0].isfinite().all()


def test_teachers_are_mixed_as_probabilities():
    # (2 * (0.9, 0.1) + 1 * (0.3, 0.7)) / 3 = (0.7, 0.3)
    answers = [torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.3, 0.7]]).log()]
    torch.testing.assert_close(mixture_of_teachers(answers, [2, 1]).exp(), torch.tensor([[0.7, 0.3]]))
    torch.testing.assert_close(mixture_of_teachers(answers).exp(), torch.tensor([[0.6, 0.4]]))
    torch.testing.assert_close(mixture_of_teachers(answers, [0, 5]), answers[1])


def test_bad_numbers_are_refused():
    with pytest.raises(InvalidParameterError, match=r"temperature must be positive\. Got 0"):
        soften(LOGITS, temperature=0)
    with pytest.raises(InvalidParameterError, match=r"alpha must be in \[0, 1\]\. Got 1\.5"):
        distillation_loss(LOGITS[None], LOGITS[None], temperature=1, alpha=1.5)
    with pytest.raises(InvalidParameterError, match="divergence must be one of forward_kl, reverse_kl, jensen_shannon"):
        distillation_loss(LOGITS[None], LOGITS[None], temperature=1, alpha=1, divergence="chi")
    for weights in ([1.0], [0.0, 0.0], [-1.0, 2.0]):
        with pytest.raises(InvalidParameterError, match="weights must be one for each of 2 teachers"):
            mixture_of_teachers([LOGITS, LOGITS], weights)
