from dataclasses import replace

import numpy as np
import pytest

from halve.errors import InvalidParameterError
from halve.techniques.compression.distillation import HeldOut, Recipe, predicted_logits, search
from halve.techniques.compression.distillation.search import _rounds

RECIPE = Recipe(epochs=9, learning_rate=0.02, batch_size=32)


@pytest.fixture
def judge(held_out):
    expected = held_out.log_probabilities.argmax(1)
    return HeldOut(inputs=held_out.inputs, score=lambda logits: float((logits.argmax(1) == expected).mean()))


def run(problem, student_of, judge, **changes):
    options = {"labels": problem.labels, "temperatures": (1.0, 4.0), "alphas": (0.0, 0.5, 1.0), "recipe": RECIPE}
    return search(student_of, problem.inputs, problem.log_probabilities, held_out=judge, **{**options, **changes})


def test_halving_ends_with_one_setting_trained_in_full(problem, student_of, judge):
    seen = []
    student, trials = run(problem, student_of, judge, progress=seen.append)
    # alpha 0 counts once: 1 + 2 + 2 settings, then 2, then 1; epochs 9 / 9, 9 / 3, 9.
    assert [trial.round_number for trial in trials] == [0] * 5 + [1] * 2 + [2]
    assert [trial.recipe.epochs for trial in trials] == [1] * 5 + [3] * 2 + [9]
    assert seen == trials
    best_two = sorted(trials[:5], key=lambda trial: -trial.score)[:2]
    assert [(t.recipe.temperature, t.recipe.alpha) for t in trials[5:7]] == [
        (t.recipe.temperature, t.recipe.alpha) for t in best_two
    ]
    assert judge.score(predicted_logits(student, judge.inputs)) == trials[-1].score
    assert not student.training


def test_it_is_deterministic_and_reads_what_is_finished(problem, student_of, judge, tmp_path, state_bytes):
    first, trials = run(problem, student_of, judge, checkpoint=tmp_path)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    second, again = run(problem, student_of, judge, checkpoint=tmp_path)
    assert trials == again
    assert state_bytes(first) == state_bytes(second)
    assert len(stamps) == 8
    assert all(path.stat().st_size > 0 for path in stamps)


def test_without_labels_only_the_teacher_counts(problem, student_of, judge):
    _, trials = run(problem, student_of, judge, labels=None, learning_rates=(0.01, 0.05))
    assert {trial.recipe.alpha for trial in trials} == {1.0}
    assert {trial.recipe.learning_rate for trial in trials[:4]} == {0.01, 0.05}


def test_a_setting_whose_score_is_no_number_loses(problem, student_of, held_out):
    scores = iter([np.nan, 0.5, 0.6])
    judge = HeldOut(inputs=held_out.inputs, score=lambda logits: next(scores))
    _, trials = run(problem, student_of, judge, alphas=(1.0,), recipe=replace(RECIPE, epochs=2))
    assert [trial.recipe.temperature for trial in trials] == [1.0, 4.0, 4.0]


@pytest.mark.parametrize(("settings", "expected"), [(1, [1]), (2, [2, 1]), (3, [3, 1]), (12, [12, 4, 2, 1])])
def test_rounds_shrink_by_the_ratio(settings, expected):
    assert _rounds(settings, 3) == expected


def test_bad_input_is_refused(problem, student_of, judge):
    with pytest.raises(InvalidParameterError, match=r"ratio must be at least 2\. Got 1"):
        run(problem, student_of, judge, ratio=1)
    with pytest.raises(InvalidParameterError, match="temperatures must be at least one setting to try"):
        run(problem, student_of, judge, temperatures=())
