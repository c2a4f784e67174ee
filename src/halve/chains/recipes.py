"""How long and how fast each kind of student is trained unless the user says otherwise."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from halve.chains.lesson import Lesson
from halve.chains.record import Scalar
from halve.techniques.compression import distillation

if TYPE_CHECKING:
    from halve.techniques.compression.distillation import Recipe

SHOWN = ("epochs", "learning_rate", "temperature", "alpha", "divergence", "optimizer", "batch_size")
"""What of a recipe stands in a record."""

STUDENT_EPOCHS, RECOVERY_EPOCHS, TEXT_EPOCHS = 12, 3, 6


def student_recipe(lesson: Lesson) -> "Recipe":
    """Return how a network of the user's is trained from scratch."""
    return distillation.Recipe(
        epochs=lesson.training.epochs or STUDENT_EPOCHS,
        learning_rate=2e-3,
        batch_size=_batch_size(lesson),
        temperature=4.0,
        alpha=0.9,
        seed=lesson.seed,
    )


def recovery_recipe(lesson: Lesson) -> "Recipe":
    """Return how a network that was cut from its teacher is trained on."""
    return distillation.Recipe(
        epochs=lesson.training.epochs or RECOVERY_EPOCHS,
        learning_rate=1e-3,
        batch_size=_batch_size(lesson),
        temperature=4.0,
        alpha=0.9,
        seed=lesson.seed,
    )


def text_recipe(lesson: Lesson, kind: str) -> "Recipe":
    """Return how a text student is trained: `convolution` or `ngrams`. Chosen on CLINC150's validation queries."""
    is_table = kind == "ngrams"
    return distillation.Recipe(
        epochs=lesson.training.epochs or TEXT_EPOCHS,
        learning_rate=5e-3 if is_table else 2e-3,
        batch_size=min(250, len(lesson.training)),
        weight_decay=0.0,
        temperature=2.0,
        alpha=1.0,
        ema_decay=None if is_table else 0.99,
        seed=lesson.seed,
    )


def shown(recipe: "Recipe") -> dict[str, Scalar]:
    """Return what of a recipe stands in a model's record."""
    return {key: value for key, value in asdict(recipe).items() if key in SHOWN}


def _batch_size(lesson: Lesson) -> int:
    return min(128, len(lesson.training))
