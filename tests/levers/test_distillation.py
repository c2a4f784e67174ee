from pathlib import Path

import numpy as np
import pytest

from halve import chains
from halve.levers.distillation import Distillation
from halve.testing.tiny_service import BUILT_LOG


@pytest.fixture(scope="module")
def made(tmp_path_factory, open_training_bench):
    """Bench, stack and everything that distillation proposed for it."""
    with open_training_bench(tmp_path_factory.mktemp("distilled")) as (bench, stack):
        yield bench, stack, list(Distillation().propose(stack, bench))


def test_each_student_is_proposed_alone_and_first(made):
    _, stack, changes = made
    alone = [change for change in changes if len(change.after.models) == 1]
    assert [change.after.models[0].name for change in alone] == ["tiny-distilled", "tiny-distilled-int8"]
    first = [change for change in changes if len(change.after.models) == 2]
    assert {change.after.models[0].name for change in first} == {"tiny-distilled", "tiny-distilled-int8"}
    for change in first:
        assert change.after.models[1] == stack.models[0]
        assert change.after.stages[0].accept is not None


def test_thresholds_keep_the_promise_on_the_search_split(made):
    bench, _, changes = made
    promise = bench.workload.objective.quality_drop_at_most
    for change in changes:
        if len(change.after.models) == 2:
            assert bench.drop_upper_bound(np.asarray(bench.measure(change.after).scores)) <= promise


def test_the_student_has_learned_what_its_teacher_answers(made):
    bench, stack, changes = made
    student = changes[0].after.models[0]
    same = bench.outcomes(student).answers == bench.outcomes(stack.models[0]).answers
    untrained = bench.load(bench.students()[0])
    guesses = untrained.answer([example.payload for example in bench.workload.search]).answers
    untrained.close()
    assert same.mean() > 0.85
    assert (guesses == bench.outcomes(stack.models[0]).answers).mean() < 0.6


def test_a_student_is_a_file_with_its_chain_written_beside_it(made):
    bench, _, changes = made
    for change in changes:
        student = change.after.models[0]
        assert (student.engine, student.entry) == ("onnxruntime", None)
        folder = (bench.model_folder(student) / student.files[0].path).parent
        record = chains.read_record(folder)
        assert record.parent == "teacher"
        assert record.n_training == len(bench.workload.training)
        expected = "distillation > quantization" if student.name.endswith("int8") else "distillation"
        assert record.chain == expected


def test_asking_again_trains_and_asks_nothing(made):
    bench, stack, changes = made
    log = bench.folder.parent.parent / BUILT_LOG
    log.unlink(missing_ok=True)
    again = list(Distillation().propose(stack, bench))
    assert [change.after for change in again] == [change.after for change in changes]
    assert not log.exists()


def test_training_data_holds_no_example(made):
    bench, *_ = made
    examples = {
        example.payload.tobytes() for split in ("search", "certify") for example in bench.workload.examples(split)
    }
    assert not examples & {payload.tobytes() for payload in bench.workload.training.payloads}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"training": None}, "not tried: the config names no training data"),
        ({"students": []}, "not tried: the config names no students to train"),
    ],
)
def test_without_data_or_students_it_says_so(tmp_path, open_training_bench, changes, reason):
    with open_training_bench(tmp_path, changes=changes) as (bench, stack):
        lever = Distillation()
        assert list(lever.propose(stack, bench)) == []
        assert lever.nothing(stack, bench) == reason


def test_a_killed_training_leaves_what_it_was_asked(made):
    bench, *_ = made
    teachers = Path(bench.workspace("teachers"))
    assert [*teachers.rglob("*.safetensors")], "the teacher's answers outlive the build"
