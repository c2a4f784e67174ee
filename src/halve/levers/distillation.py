"""Distillation: small models learn the answers of the model in service, and answer alone or first."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from halve import chains
from halve.core import Bench, Change, Model, Stack, TensorAnswerer
from halve.errors import ModelError


class Distillation:
    """Proposes each student alone, in fp32 and integers, and in front of the last model, cautious first."""

    name = "distillation"

    def __init__(self) -> None:
        self._problems: dict[str, str] = {}

    def propose(self, stack: Stack, bench: Bench) -> Iterable[Change]:
        """Yield changes by student; nothing without training data."""
        if bench.workload.training is None:
            return
        for student in self._students(bench):
            last = stack.models[-1].name
            yield Change(
                lever=self.name,
                description=f"{student.name} alone",
                before=stack,
                after=stack.with_last_only().with_model(last, student),
                reason=f"taught by {bench.baseline.name} on {len(bench.workload.training):,} payloads",
            )
            for place in chains.asked_first(stack, bench, student):
                yield place.change(
                    lever=self.name,
                    before=stack,
                    reason=f"{student.name} is sure enough for {place.accept_share:.1%} of requests",
                )

    def nothing(self, stack: Stack, bench: Bench) -> str:
        """Say why no student was proposed."""
        if bench.workload.training is None:
            return "not tried: the config names no training data"
        return "; ".join(self._problems.values()) or "not tried: the config names no students to train"

    def _students(self, bench: Bench) -> Iterator[Model]:
        maker = chains.Maker(bench=bench, technique=self.name, problems=self._problems)
        lesson = chains.Lesson.of_bench(bench, bench.baseline)
        for given in bench.students():
            recipe = chains.student_recipe(lesson)
            yield from maker.make(
                f"{given.name}-distilled",
                parent=bench.baseline,
                reads=given,
                parameters={"student": given.fingerprint[:12], **chains.shown(recipe)},
                build=partial(_train_given, bench, given, lesson),
            )
        for kind in chains.TEXT_STUDENTS if bench.baseline.preprocess.kind == "wordpiece" else ():
            name = f"{bench.baseline.name}-{kind}"
            yield from maker.make(
                name,
                parent=bench.baseline,
                reads=bench.baseline,
                parameters={"student": kind, **chains.shown(chains.text_recipe(lesson, kind))},
                build=partial(chains.write_text_student, kind=kind, bench=bench, lesson=lesson, name=name),
            )[:1]  # nearly all of it is look-ups: integers save nothing


def _train_given(bench: Bench, given: Model, lesson: chains.Lesson, folder: Path) -> None:
    answerer = bench.load(given)
    try:
        if not isinstance(answerer, TensorAnswerer):
            raise ModelError(f"student {given.name!r} shows no tensors to train on")
        student = chains.Student.of(answerer, owner=given.name)
        recipe = chains.student_recipe(lesson)
        chains.write_student(folder, lesson=lesson, student=student, recipe=recipe, name=given.name)
    finally:
        answerer.close()
