import json
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

import halve
from halve import chains
from halve.assembly.lessons import in_parts
from halve.engines import engine
from halve.errors import InvalidParameterError, ModelError, UserError, WorkloadError
from halve.testing.tiny_service import teacher, training_points, untrained, write_service
from halve.workload import training_set

INPUTS, CLASSES = training_points()
UNSEEN = INPUTS[1200:]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Answers of teachers are kept below the test's folder."""
    monkeypatch.setenv("HALVE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def told(inputs):
    import torch

    with torch.inference_mode():
        return teacher()(torch.from_numpy(inputs)).argmax(1).numpy()


def answers_of(made, payloads):
    answerer = engine(made.model.engine).load(made.model, threads=1, folder=made.folder)
    try:
        return answerer.answer(list(payloads)).answers
    finally:
        answerer.close()


def distill(out, *, data=None, n=1000, **given):
    arguments = {"student": untrained(), "epochs": 15, "learning_rate": 0.02, **given}
    return halve.distill(
        arguments.pop("teacher", None) or teacher(),
        data=list(INPUTS[:n]) if data is None else data,
        out=out,
        **arguments,
    )


def test_an_unlabelled_student_comes_near_its_teacher(tmp_path):
    made = distill(tmp_path / "student")
    assert np.mean(answers_of(made, UNSEEN) == told(UNSEEN)) > 0.85
    import torch

    with torch.inference_mode():
        guesses = untrained()(torch.from_numpy(UNSEEN)).argmax(1).numpy()
    assert np.mean(guesses == told(UNSEEN)) < 0.6, "untrained it guesses"
    assert made.judged_by == "the teacher's answers"
    assert made.drop.baseline == 1.0
    parts = in_parts(training_set(list(INPUTS[:1000])), share=0.2)
    assert made.drop.n == len(parts.measure)
    assert made.record == chains.read_record(made.folder)
    assert made.record.n_training == len(parts.learn)
    assert made.record.training_sha256 == parts.learn.sha256
    assert made.speed_ratio > 0
    names = ["model.onnx", "recipe.json", "weights.safetensors"]
    assert sorted(path.name for path in made.folder.iterdir()) == names
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "student"], "no work is left behind"


def test_integers_carry_both_steps(tmp_path):
    made = distill(tmp_path / "student", data=(list(INPUTS[:1000]), list(CLASSES[:1000])), integers=True)
    assert made.record.chain == "distillation > quantization"
    assert [step.technique for step in made.record.steps] == ["distillation", "quantization"]
    assert made.judged_by == "labels"
    assert (made.folder / "manifest.json").is_file()
    assert made.model.recipe.technique == "quantization"
    assert np.mean(answers_of(made, UNSEEN) == told(UNSEEN)) > 0.8


def test_a_second_student_asks_the_teacher_nothing(tmp_path):
    distill(tmp_path / "one", n=200, epochs=1)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert len([path for path in before if path.suffix == ".safetensors"]) == 3, "to learn, to stop and to measure"
    distill(tmp_path / "two", n=200, epochs=2, seed=1)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*") if path.is_file()} == before


def test_partly_labelled_data_are_judged_by_their_labels(tmp_path):
    labels = [["red", "green", "blue"][label] if row % 2 else "" for row, label in enumerate(CLASSES[:400])]
    made = distill(tmp_path / "s", data=(list(INPUTS[:400]), labels), labels=("red", "green", "blue"), epochs=2)
    references = [int(label) if row % 2 else None for row, label in enumerate(CLASSES[:400])]
    measure = in_parts(training_set(list(INPUTS[:400]), references), share=0.2).measure
    assert made.judged_by == "labels"
    assert made.drop.n == np.sum(measure.references >= 0)


def test_an_early_stop_saves_epochs(tmp_path):
    made = distill(tmp_path / "s", epochs=40, quality_drop_at_most=0.3)
    (step,) = made.record.steps
    assert step.parameters["stopped_early"] is True
    assert step.parameters["best_epoch"] < 39


def test_the_search_finds_numbers_that_stand_in_the_record(tmp_path):
    made = distill(tmp_path / "s", n=300, epochs=4, search=True)
    (step,) = made.record.steps
    assert step.parameters["epochs"] == 4
    assert 0 <= step.parameters["alpha"] <= 1


@pytest.mark.parametrize(
    ("given", "error", "sentence"),
    [
        ({"alpha": 1.5}, InvalidParameterError, r"alpha must be in \[0, 1\]\. Got 1\.5"),
        ({"temperature": 0.0}, InvalidParameterError, r"temperature must be in \(0, 100\]\. Got 0\.0"),
        ({"learning_rate": -1.0}, InvalidParameterError, r"learning_rate must be positive\. Got -1\.0"),
        ({"divergence": "l2"}, InvalidParameterError, "divergence must be one of forward_kl"),
        ({"hold_out": 1.5}, InvalidParameterError, r"hold_out must be in \(0, 1\)\. Got 1\.5"),
        ({"hold_out": 1e-6}, InvalidParameterError, "hold_out must be large enough for 200 payloads"),
        ({"confidence": 0.2}, InvalidParameterError, r"confidence must be in \(0\.5, 1\)\. Got 0\.2"),
        ({"quality_drop_at_most": 0.0}, InvalidParameterError, "quality_drop_at_most must be in"),
        ({"teacher": "absent.onnx"}, InvalidParameterError, r"teacher must be .* endpoint's \.json file"),
        ({"student": "absent.onnx"}, InvalidParameterError, "student must be"),
        ({"student": "ngrams"}, InvalidParameterError, "a network of yours where payloads are no texts"),
        ({"student": "absent:student"}, ModelError, "absent"),
        ({"data": []}, WorkloadError, r"must hold at least 1 row\. Got 0"),
        ({"data": "absent.npz"}, WorkloadError, r"absent\.npz must be a file"),
        ({"data": ["up", "down"]}, InvalidParameterError, r"tokenizer must be given for texts\. Got None"),
        ({"data": ["up", "down"], "tokenizer": "absent.json"}, InvalidParameterError, r"tokenizer must be a tokenizer"),
        ({"augment": "absent:shake"}, UserError, "augment: 'absent:shake' cannot be imported"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_one_sentence_and_leaves_nothing(tmp_path, given, error, sentence):
    with pytest.raises(error, match=sentence) as caught:
        distill(tmp_path / "out", n=200, **given)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == []


def test_bad_numbers_are_refused_before_the_teacher_is_asked(tmp_path):
    with pytest.raises(InvalidParameterError, match="alpha"):
        distill(tmp_path / "out", n=200, alpha=-0.1)
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_exists_is_not_written_over(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(InvalidParameterError, match="out must be a folder that does not exist yet"):
        distill(tmp_path / "out")


SLOW_USER = """
import time
from pathlib import Path

from halve.testing.tiny_service import teacher as _teacher
from halve.testing.tiny_service import untrained as student


def note(name, text):
    with Path(__file__).with_name(name).open("a") as log:
        log.write(f"{text}\\n")


def teacher():
    module = _teacher()
    module.register_forward_hook(lambda module, inputs, output: note("asked.log", len(output)))
    return module


def shake(batch):
    time.sleep(0.1)
    note("updates.log", 1)
    return batch
"""
EPOCHS = 65
"""Of one update, 0.1 s at least: longer than the five seconds after which a state is kept."""


def lines(path):
    return path.read_text().split() if path.exists() else []


@pytest.mark.slow
def test_a_killed_command_goes_on_where_it_was(tmp_path, halve_argv):
    np.savez(tmp_path / "data.npz", x=INPUTS[:150])
    (tmp_path / "slow_user.py").write_text(SLOW_USER)
    command = halve_argv(
        "distill", "--teacher", "slow_user:teacher", "--student", "slow_user:student", "--data", "data.npz",
        "--payload", "x", "--augment", "slow_user:shake", "--epochs", EPOCHS, "-o", "out",
    )  # fmt: skip
    work = tmp_path / ".out.work"
    running = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 120
    while not list(work.rglob("student-*.safetensors")):
        assert running.poll() is None, running.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    assert not (tmp_path / "out").exists()
    parts = in_parts(training_set(list(INPUTS[:150])), share=0.2)
    before, updates = sum(map(int, lines(tmp_path / "asked.log"))), len(lines(tmp_path / "updates.log"))
    assert before >= len(parts.learn) + len(parts.stop)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.safetensors")}
    for name in ("asked.log", "updates.log"):
        (tmp_path / name).unlink()

    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 0, again.stderr
    assert 0 < len(lines(tmp_path / "updates.log")) <= EPOCHS - 10
    assert updates + len(lines(tmp_path / "updates.log")) >= EPOCHS
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    asked = [int(line) for line in lines(tmp_path / "asked.log")]
    assert sum(rows for rows in asked if rows > 1) <= len(parts.measure), "only what measures is new to it"
    assert json.loads((tmp_path / "out" / "recipe.json").read_text())["steps"][0]["parameters"]["epochs"] == EPOCHS
    assert not work.exists()


def test_a_service_is_distilled_from_its_own_folder(tmp_path, monkeypatch):
    write_service(tmp_path / "service")
    monkeypatch.chdir(tmp_path / "service")
    made = halve.distill(
        "tiny_models:teacher", student="tiny_models:untrained", data="points.npz", payload="inputs", label="classes",
        out=Path("student"), epochs=1,
    )  # fmt: skip
    assert (made.record.parent, made.judged_by) == ("teacher", "labels")
    assert sorted(Path("built.log").read_text().split()) == ["teacher", "untrained"], "each is built once"
