import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.distillation import (
    Check,
    Hint,
    Recipe,
    TeacherCache,
    distil,
    predicted_logits,
    updates,
)

RECIPE = Recipe(epochs=6, learning_rate=0.01, batch_size=32, temperature=2.0)


def accuracy(module, problem):
    return float((predicted_logits(module, problem.inputs).argmax(1) == problem.log_probabilities.argmax(1)).mean())


def test_training_lowers_the_loss_and_the_student_comes_to_agree(problem, held_out, student_of):
    student, calls = student_of(), []
    before = accuracy(student, held_out)
    done = distil(
        student,
        problem.inputs,
        problem.log_probabilities,
        labels=problem.labels,
        recipe=replace(RECIPE, epochs=30),
        progress=lambda: calls.append(1),
    )
    assert done.history[-1].loss < 0.5 * done.history[0].loss
    assert accuracy(student, held_out) > before + 0.3
    assert len(calls) == 30 * updates(240, RECIPE) == 30 * 7
    assert not student.training
    assert (done.best_epoch, done.gap_upper_bound, done.stopped_early) == (29, None, False)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_one_seed_gives_the_same_bits_and_leaves_torchs_generator_alone(problem, student_of, state_bytes, optimizer):
    found = []
    for seed in (1, 1, 2):
        student = student_of()
        generator = torch.random.get_rng_state()
        recipe = replace(RECIPE, epochs=2, seed=seed, optimizer=optimizer, ema_decay=0.9)
        distil(student, problem.inputs, problem.log_probabilities, recipe=recipe)
        assert torch.equal(torch.random.get_rng_state(), generator)
        found.append(state_bytes(student))
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_a_cache_teaches_as_its_answers_do(problem, student_of, tmp_path, state_bytes):
    cache = TeacherCache.open(
        tmp_path,
        teacher="t",
        inputs_sha256="i",
        rows=240,
        classes=6,
        answer=lambda start, stop: problem.log_probabilities[start:stop],
    )
    found = []
    for targets in (cache, cache.targets(), cache.log_probabilities()):
        student = student_of()
        distil(student, problem.inputs, targets, recipe=replace(RECIPE, epochs=1))
        found.append(state_bytes(student))
    assert found[0] == found[1] == found[2]


def test_labels_alone_are_plain_training(problem, held_out, student_of):
    student = student_of()
    distil(student, problem.inputs, None, labels=problem.labels, recipe=replace(RECIPE, alpha=0.0, epochs=20))
    assert accuracy(student, held_out) > 0.6


def test_a_live_teacher_sees_the_augmented_batch(problem, student_of):
    seen, asked = [], []

    def augment(batch):
        seen.append(batch["points"] + torch.randn_like(batch["points"]))
        return {"points": seen[-1]}

    def teacher(batch):
        asked.append(batch["points"])
        return torch.zeros(len(batch["points"]), 6)

    distil(student_of(), problem.inputs, teacher, recipe=replace(RECIPE, epochs=1), augment=augment)
    assert len(seen) == 7
    assert all(one is other for one, other in zip(seen, asked, strict=True))


def test_views_have_answers_of_their_own(problem, student_of):
    """Under the second view points are negated, and the answer is always class 5."""
    rows = len(problem.labels)
    answers = np.full((2 * rows, 6), np.log(0.01 / 5), np.float32)
    answers[:rows, 0] = answers[rows:, 5] = np.log(0.99)
    points = {"points": np.abs(problem.inputs["points"]) + 0.5}
    views = (lambda batch: batch, lambda batch: {"points": -batch["points"]})
    student = student_of(dropout=0.0)
    recipe = replace(RECIPE, epochs=10)
    distil(student, points, answers, views=views, recipe=recipe)
    assert (predicted_logits(student, points).argmax(1) == 0).mean() > 0.95
    assert (predicted_logits(student, {"points": -points["points"]}).argmax(1) == 5).mean() > 0.95


def gap_check(problem, target):
    expected = problem.log_probabilities.argmax(1)
    return Check(
        inputs=problem.inputs,
        scores=lambda logits: (logits.argmax(1) == expected).astype(np.float64),
        upper_bound=lambda scores: float(1 - scores.mean() + 1.64 * scores.std() / len(scores) ** 0.5),
        target=target,
    )


def test_it_stops_as_soon_as_the_bound_of_the_gap_is_small_enough(problem, held_out, student_of):
    done = distil(
        student_of(),
        problem.inputs,
        problem.log_probabilities,
        recipe=replace(RECIPE, epochs=60),
        check=gap_check(held_out, 0.35),
    )
    assert done.stopped_early
    assert len(done.history) < 60
    assert done.gap_upper_bound <= 0.35
    assert done.best_epoch == len(done.history) - 1
    assert all(epoch.gap_upper_bound > 0.35 for epoch in done.history[:-1])


def test_the_weights_that_stay_are_those_of_the_best_epoch(problem, held_out, student_of):
    student, check = student_of(), gap_check(held_out, -1.0)
    recipe = replace(RECIPE, epochs=8, learning_rate=0.3, optimizer="sgd", ema_decay=0.9)
    done = distil(student, problem.inputs, problem.log_probabilities, recipe=recipe, check=check)
    bounds = [epoch.gap_upper_bound for epoch in done.history]
    assert done.best_epoch == int(np.argmin(bounds))
    logits = predicted_logits(student, held_out.inputs)
    assert check.upper_bound(check.scores(logits)) == pytest.approx(min(bounds))


def test_hints_reach_the_weights_and_leave_no_projection_behind(problem, student_of):
    torch.manual_seed(3)
    teacher = nn.Sequential(nn.Linear(8, 40), nn.ReLU(), nn.Linear(40, 6)).eval()
    student = student_of(dropout=0.0)
    names = list(student.state_dict())

    def distance():
        with torch.no_grad():
            points = torch.from_numpy(problem.inputs["points"])
            mine, theirs = torch.relu(student[1](student[0](points))), teacher[1](teacher[0](points))
            best = torch.linalg.lstsq(mine, theirs).solution
            return float((mine @ best - theirs).square().mean())

    before = distance()
    distil(
        student,
        problem.inputs,
        problem.log_probabilities,
        recipe=replace(RECIPE, epochs=20, alpha=0.0001, feature_hint=5.0),
        teacher=teacher,
        hints=(Hint(student="2", teacher="1"),),
    )
    assert distance() < 0.8 * before
    assert list(student.state_dict()) == names


PROGRAM = """
import sys
from dataclasses import replace
from pathlib import Path
import numpy as np, torch
sys.path.insert(0, sys.argv[1])
from conftest import make_problem, make_student
from halve.techniques.compression.distillation import Checkpoint, Recipe, distil
torch.set_num_threads(1)
problem, student = make_problem(), make_student()
recipe = Recipe(epochs=8, learning_rate=0.01, batch_size=32, temperature=2.0, ema_decay=0.95, optimizer=sys.argv[4])
def augment(batch):
    return {"points": batch["points"] + 0.1 * torch.randn_like(batch["points"])}
count = 0
def progress():
    global count
    count += 1
    print(count, flush=True)
done = distil(student, problem.inputs, problem.log_probabilities, labels=problem.labels, recipe=recipe,
              augment=augment, progress=progress,
              checkpoint=Checkpoint(folder=Path(sys.argv[2]), least_seconds=0, most_seconds=0.0))
np.savez(sys.argv[3], losses=[epoch.loss for epoch in done.history],
         **{name: tensor.numpy() for name, tensor in student.state_dict().items()})
"""


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_run_that_was_killed_goes_on_to_the_same_bits(tmp_path, optimizer):
    def command(folder, result):
        here = os.path.dirname(__file__)  # noqa: PTH120 - for the subprocess
        return [sys.executable, "-c", PROGRAM, here, str(tmp_path / folder), str(tmp_path / result), optimizer]

    whole = subprocess.run(command("one", "one.npz"), capture_output=True, text=True, check=True)
    assert whole.stdout.split()[-1] == "56"
    with subprocess.Popen(command("two", "two.npz"), stdout=subprocess.PIPE, text=True) as process:
        for _ in range(17):
            process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
    assert not (tmp_path / "two.npz").exists()
    resumed = subprocess.run(command("two", "two.npz"), capture_output=True, text=True, check=True)
    assert 0 < len(resumed.stdout.split()) < 56 - 10
    with np.load(tmp_path / "one.npz") as one, np.load(tmp_path / "two.npz") as two:
        assert one.files == two.files
        assert all(np.array_equal(one[name], two[name]) for name in one.files)


def test_a_finished_run_is_read_and_not_trained_again(problem, student_of, tmp_path, state_bytes):
    found = []
    for expected in (7 * 2, 0):
        student, calls = student_of(), []
        done = distil(
            student,
            problem.inputs,
            problem.log_probabilities,
            recipe=replace(RECIPE, epochs=2),
            checkpoint=tmp_path,
            progress=lambda calls=calls: calls.append(1),
        )
        assert len(calls) == expected
        found.append((state_bytes(student), done.history))
    assert found[0] == found[1]
    assert len(list(tmp_path.iterdir())) == 1
    distil(student_of(seed=5), problem.inputs, problem.log_probabilities, recipe=RECIPE, checkpoint=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_bad_input_is_refused(problem, student_of):
    def train(student=None, inputs=problem.inputs, targets=problem.log_probabilities, recipe=RECIPE, **options):
        return distil(student or student_of(), inputs, targets, recipe=recipe, **options)

    with pytest.raises(InvalidParameterError, match="inputs must be at least one row"):
        train(inputs={})
    with pytest.raises(InvalidParameterError, match="inputs must be all of one length, as the labels"):
        train(labels=problem.labels[:5])
    with pytest.raises(InvalidParameterError, match=r"targets must be for the 240 rows of inputs and views\. Got 9"):
        train(targets=problem.log_probabilities[:9])
    with pytest.raises(InvalidParameterError, match=r"alpha must be 0 where there is no teacher\. Got 0\.9"):
        train(targets=None, labels=problem.labels)
    with pytest.raises(InvalidParameterError, match=r"labels must be given where alpha is 0\. Got None"):
        train(targets=None, recipe=replace(RECIPE, alpha=0.0))
    with pytest.raises(InvalidParameterError, match="teacher must be a torch module where there are hints"):
        train(hints=(Hint(student="0", teacher="0"),))
    with pytest.raises(ModelError, match=r"the student must return logits \(batch, 6\)\. Got shape \(32, 3\)"):
        train(student=nn.Linear(8, 3))
    with pytest.raises(ModelError, match=r"the loss must be finite\. Got nan in epoch 0"):
        train(inputs={"points": np.full((240, 8), np.nan, np.float32)})


def test_an_auxiliary_loss_is_added_to_every_update():
    torch.manual_seed(0)
    inputs = {"x": np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)}
    answers = np.full((64, 3), np.log(1 / 3), np.float32)
    recipe = Recipe(epochs=40, learning_rate=0.05, batch_size=16, weight_decay=0.0)
    free, held = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
    held.load_state_dict(free.state_dict())
    distil(free, inputs, answers, recipe=recipe)
    distil(held, inputs, answers, recipe=recipe, auxiliary=lambda module: 10 * (module.bias - 1).square().sum())
    assert (held.bias - 1).abs().max() < 0.2, "the bias was pulled to 1"
    assert (free.bias - 1).abs().min() > 0.5
