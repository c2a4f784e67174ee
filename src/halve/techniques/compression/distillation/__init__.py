"""Distillation: a cheaper student that answers as its teacher does. It measures loss; the gate judges quality.

Students and hints are torch modules, so they are imported from `students` and `hints`, by whoever has torch.
"""

from halve.techniques.compression.distillation.adapters import (
    log_probabilities_of,
    log_probabilities_of_counts,
    log_probabilities_of_logits,
)
from halve.techniques.compression.distillation.batching import Augment, Inputs, predicted_logits
from halve.techniques.compression.distillation.checkpoint import Checkpoint, array_sha256
from halve.techniques.compression.distillation.copies import shallow_copy
from halve.techniques.compression.distillation.losses import (
    DIVERGENCES,
    Divergence,
    bucketed_divergence,
    distillation_loss,
    mixture_of_teachers,
    soften,
)
from halve.techniques.compression.distillation.outcome import Check, Distilled, Epoch
from halve.techniques.compression.distillation.recipe import Hint, Recipe
from halve.techniques.compression.distillation.run import updates
from halve.techniques.compression.distillation.search import HeldOut, Trial, search
from halve.techniques.compression.distillation.sources import Source
from halve.techniques.compression.distillation.targets import Targets
from halve.techniques.compression.distillation.teacher_cache import TeacherCache
from halve.techniques.compression.distillation.train import distil
from halve.techniques.compression.distillation.transfer import Variation, augment_texts, near_words

__all__ = [
    "DIVERGENCES",
    "Augment",
    "Check",
    "Checkpoint",
    "Distilled",
    "Divergence",
    "Epoch",
    "HeldOut",
    "Hint",
    "Inputs",
    "Recipe",
    "Source",
    "Targets",
    "TeacherCache",
    "Trial",
    "Variation",
    "array_sha256",
    "augment_texts",
    "bucketed_divergence",
    "distil",
    "distillation_loss",
    "log_probabilities_of",
    "log_probabilities_of_counts",
    "log_probabilities_of_logits",
    "mixture_of_teachers",
    "near_words",
    "predicted_logits",
    "search",
    "shallow_copy",
    "soften",
    "updates",
]
