from dataclasses import replace

import numpy as np
import pytest
import torch

from halve.errors import InvalidParameterError
from halve.techniques.compression.distillation import Recipe, Targets, distillation_loss
from halve.techniques.compression.distillation import sources as module
from halve.techniques.compression.distillation.sources import Answers, RowLoss
from halve.techniques.compression.distillation.targets import compressed

RECIPE = Recipe(epochs=1, learning_rate=1, temperature=3.0, alpha=0.6)
ROWS = np.array([4, 0, 7])


def test_kept_answers_give_the_loss_of_their_rows(problem):
    torch.manual_seed(0)
    logits = torch.randn(3, 6)
    loss = RowLoss(problem.log_probabilities, problem.labels, rows=240, recipe=RECIPE)
    teacher, labels = torch.from_numpy(problem.log_probabilities[ROWS]), torch.from_numpy(problem.labels[ROWS])
    expected = distillation_loss(logits, teacher, labels, temperature=3, alpha=0.6)
    torch.testing.assert_close(loss(logits, ROWS, {}), expected)


def test_with_views_labels_are_those_of_the_row(problem):
    logits = torch.randn(3, 6)
    answers = np.concatenate([problem.log_probabilities[::-1], problem.log_probabilities])
    seen = RowLoss(answers, problem.labels, rows=240, views=2, recipe=RECIPE)(logits, 240 + ROWS, {})
    plain = RowLoss(problem.log_probabilities, problem.labels, rows=240, recipe=RECIPE)(logits, ROWS, {})
    torch.testing.assert_close(seen, plain)


def test_answers_too_many_to_hold_softened_are_softened_batch_by_batch(problem, monkeypatch):
    logits = torch.randn(3, 6)
    targets = compressed(problem.log_probabilities, k=3)
    held = Answers(targets, rows=240, recipe=RECIPE).divergences(logits, ROWS, {})
    monkeypatch.setattr(module, "_HELD_BYTES", 0)
    anew = Answers(targets, rows=240, recipe=RECIPE).divergences(logits, ROWS, {})
    torch.testing.assert_close(held, anew)


def test_a_live_teacher_is_asked_for_what_counts():
    answers = torch.randn(2, 4, 5)
    chosen = torch.tensor([[True, False, True], [False, True, False]])
    logits = torch.randn(3, 5)
    found = Answers(lambda batch: answers, rows=1, recipe=RECIPE).divergences(logits, ROWS, {}, chosen)
    expected = distillation_loss(logits, answers[:, :-1][chosen], temperature=3, alpha=1) / 9
    torch.testing.assert_close(found.mean(), expected)


def test_what_it_depends_on_is_in_its_identity(problem):
    whole = Targets.dense(problem.log_probabilities)
    assert Answers(whole, rows=240, recipe=RECIPE).identity["indices"] is None
    assert Answers(compressed(problem.log_probabilities, k=2), rows=240, recipe=RECIPE).identity["tail"] is not None

    def teacher(batch):
        raise AssertionError(batch)

    assert "teacher" in Answers(teacher, rows=240, recipe=RECIPE).identity


def test_bad_input_is_refused(problem):
    with pytest.raises(InvalidParameterError, match=r"targets must be for the 10 rows of inputs and views\. Got 240"):
        Answers(problem.log_probabilities, rows=10, recipe=RECIPE)
    with pytest.raises(InvalidParameterError, match="alpha must be 0 where there is no teacher"):
        Answers(None, rows=10, recipe=RECIPE)
    with pytest.raises(InvalidParameterError, match="labels must be given where alpha is 0"):
        RowLoss(None, np.full(10, -1), rows=10, recipe=replace(RECIPE, alpha=0.0))
