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

STUDENT_EPOCHS, TEXT_EPOCHS = 12, 6

IMAGE_AXES = 3
"""Channels, height, width: a payload of so many axes is taken for an image."""


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
    """Return how a network that was cut from its teacher, or whose layers were split, is trained on.

    Images: SGD with a high rate, as convolutions with batch norm are trained. Texts: small steps, as encoders are
    fine-tuned. Chosen on held-out training images of Fashion-MNIST and on CLINC150's validation queries.
    """
    first = lesson.training.payloads[0]
    if isinstance(first, str):
        return distillation.Recipe(
            epochs=lesson.training.epochs or 2,
            learning_rate=1e-4,
            batch_size=min(64, len(lesson.training)),
            weight_decay=0.0,
            temperature=2.0,
            alpha=0.9,
            warm_up_share=0.1,
            seed=lesson.seed,
        )
    if first.ndim >= IMAGE_AXES:
        return distillation.Recipe(
            epochs=lesson.training.epochs or 4,
            learning_rate=0.1,
            batch_size=_batch_size(lesson),
            optimizer="sgd",
            weight_decay=5e-4,
            temperature=2.0,
            alpha=0.7,
            gradient_norm=5.0,
            warm_up_share=0.1,
            seed=lesson.seed,
        )
    return distillation.Recipe(
        epochs=lesson.training.epochs or 4,
        learning_rate=1e-3,
        batch_size=_batch_size(lesson),
        temperature=2.0,
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
