"""Distil a causal language model into a smaller one: token by token, or on texts that the teacher wrote.

Token level: at every position the student is drawn to the teacher's distribution of the next token,

    L = mean over positions of  a T^2 D(teacher_T || student_T) + (1 - a) CE(next token, student)

Position i of a text predicts token i + 1, so a text of n tokens has n - 1 targets; padding has none. The teacher's
answers may come from a `TeacherCache` with (texts * (tokens - 1)) rows, text by text, or be asked anew.

Sequence level: the teacher continues prompts, greedily or by sampling, and the student is trained on the result as on
any text (a = 0), the prompts themselves not counted. It needs no distribution of the teacher: any endpoint can teach.

Source: Kim and Rush 2016, arXiv:1606.07947 (both levels); Sanh et al. 2019, arXiv:1910.01108.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.distillation.batching import cut, rows_of
from halve.techniques.compression.distillation.checkpoint import Checkpoint
from halve.techniques.compression.distillation.losses import combined
from halve.techniques.compression.distillation.outcome import Distilled
from halve.techniques.compression.distillation.recipe import Recipe
from halve.techniques.compression.distillation.run import Run
from halve.techniques.compression.distillation.sources import Answers, Source
from halve.techniques.compression.distillation.teacher_cache import Answer
from halve.techniques.compression.distillation.train import keeper, require_torch, seeded

if TYPE_CHECKING:
    import torch
    from torch import nn

Integers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Texts:
    """Tokenized texts, padded at the end.

    Args:
        input_ids: int64 (texts, tokens), tokens >= 2.
        attention_mask: int64 (texts, tokens), 1 for tokens that are there; they come first.
        counted: int64 (texts, tokens), 1 for tokens that the student is to predict; None for all but the first.
    """

    input_ids: Integers
    attention_mask: Integers
    counted: Integers | None = None

    def __post_init__(self) -> None:
        shape = self.input_ids.shape
        if len(shape) != 2 or shape[0] < 1 or shape[1] < 2:
            raise InvalidParameterError("input_ids", rule="(texts, at least 2 tokens)", value=shape)
        for name in ("attention_mask", "counted"):
            array = getattr(self, name)
            if array is not None and array.shape != shape:
                raise InvalidParameterError(name, rule=f"of shape {shape}, as input_ids", value=array.shape)

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def inputs(self) -> dict[str, NDArray[Any]]:
        """What the models take."""
        return {"input_ids": self.input_ids, "attention_mask": self.attention_mask}

    @property
    def positions(self) -> NDArray[np.bool_]:
        """Which positions have a target: (texts, tokens - 1), position i predicts token i + 1."""
        there: NDArray[np.bool_] = (self.attention_mask[:, :-1] != 0) & (self.attention_mask[:, 1:] != 0)
        if self.counted is not None:
            there &= self.counted[:, 1:] != 0
        return there


def distil_language_model(
    student: "nn.Module",
    texts: Texts,
    targets: Source,
    *,
    recipe: Recipe,
    checkpoint: Path | Checkpoint | None = None,
    progress: Callable[[], None] | None = None,
) -> Distilled:
    """Train a causal language model in place; see the module.

    Args:
        student: Takes `input_ids` and `attention_mask`, returns logits (batch, tokens, vocabulary).
        texts: What it is trained on.
        targets: A cache, `Targets` or log-probabilities with a row for each of texts * (tokens - 1) positions,
            padding included, or a callable that returns log-probabilities (batch, tokens, vocabulary) for a batch.
            None with alpha = 0: plain training, for sequence level.
        recipe: How; a batch is so many texts.
        checkpoint, progress: As of `distil`.

    Raises:
        InvalidParameterError: If targets do not fit the texts, or no position has a target.
        ModelError: If the student's logits have another shape or the loss is not finite.
    """
    require_torch()
    loss = TokenLoss(texts, targets, recipe=recipe)
    with seeded(recipe.seed):
        run = Run(student, texts.inputs, loss, recipe=recipe)
        run.progress = progress
        run.add_hints(None, ())
        run.keeper = keeper(checkpoint, student, texts.inputs, loss, recipe=recipe, settings=("language model",))
        return run.finish()


class TokenLoss:
    """The loss of a batch of texts; a `sources.Loss`."""

    def __init__(self, texts: Texts, source: Source, *, recipe: Recipe) -> None:
        self._texts, self._recipe = texts, recipe
        self._positions = texts.positions
        if not self._positions.any():
            raise InvalidParameterError("counted", rule="at least one token to predict", value=0)
        self._answers = Answers(source, rows=self._positions.size, recipe=recipe)

    @property
    def identity(self) -> object:
        """See `Loss`."""
        return {"answers": self._answers.identity, "positions": self._positions}

    def __call__(self, logits: "torch.Tensor", rows: Integers, batch: "dict[str, torch.Tensor]") -> "torch.Tensor":
        """Return the mean over the batch's positions that have a target; 0 if there is none."""
        import torch

        if logits.ndim != 3 or logits.shape[:2] != batch["input_ids"].shape:
            wanted = (*batch["input_ids"].shape, "vocabulary")
            raise ModelError(f"the student must return logits {wanted}. Got {tuple(logits.shape)}.")
        reach = logits.shape[1] - 1
        used = self._positions[rows, :reach]
        numbers = (rows[:, None] * self._positions.shape[1] + np.arange(reach))[used]
        chosen = torch.from_numpy(used)
        if not len(numbers):
            return logits.sum() * 0
        mine = logits[:, :reach][chosen]
        divergences = self._answers.divergences(mine, numbers, batch, chosen)
        labels = batch["input_ids"][:, 1:][chosen]
        return combined(divergences, mine, labels, temperature=self._recipe.temperature, alpha=self._recipe.alpha)


def token_answers(teacher: "nn.Module", texts: Texts) -> Answer:
    """Return what asks a teacher for `TeacherCache.open`, one row per position; rows of padding mean nothing.

    Choose `shard_rows` as a multiple of tokens - 1: a text that lies in two shards is asked for twice.
    """
    width = texts.input_ids.shape[1] - 1

    def answer(start: int, stop: int) -> NDArray[np.float32]:
        import torch

        first, last = start // width, -(-stop // width)
        parts = []
        with torch.inference_mode():
            for text in range(first, last, 16):
                rows = slice(text, min(last, text + 16))
                logits = teacher(*(torch.from_numpy(array[rows]) for array in texts.inputs.values()))
                parts.append(logits[:, :-1].log_softmax(dim=-1).flatten(0, 1).float().numpy())
        return np.concatenate(parts)[start - first * width : stop - first * width]

    return answer


def continued(
    teacher: "nn.Module", prompts: Texts, *, new_tokens: int, temperature: float = 0.0, seed: int = 0
) -> Texts:
    """Return the prompts with the teacher's continuations; only the new tokens are counted.

    Args:
        teacher: In evaluation mode; takes ids and mask, returns logits (batch, tokens, vocabulary).
        prompts: Each with at least one token.
        new_tokens: >= 1.
        temperature: 0 takes the likeliest token each time; else tokens are drawn from the distribution at that T.
        seed: Of what is drawn.
    """
    import torch

    if new_tokens < 1 or not 0 <= temperature < float("inf"):
        raise InvalidParameterError("new_tokens", rule="at least 1, temperature >= 0", value=(new_tokens, temperature))
    rows_of(prompts.inputs)
    generator = torch.Generator().manual_seed(seed)
    room = ((0, 0), (0, new_tokens))
    ids = torch.from_numpy(np.pad(prompts.input_ids, room))
    mask = torch.from_numpy(np.pad(prompts.attention_mask, room))
    counted = torch.zeros_like(mask)
    rows = torch.arange(len(ids))
    with torch.inference_mode():
        for _ in range(new_tokens):
            lengths = mask.sum(dim=1)
            seen = cut({"input_ids": ids, "attention_mask": mask})
            logits = teacher(*seen.values())[rows, lengths - 1]
            if temperature:
                token = torch.multinomial((logits / temperature).softmax(dim=-1), 1, generator=generator)[:, 0]
            else:
                token = logits.argmax(dim=-1)
            ids[rows, lengths] = token
            mask[rows, lengths] = counted[rows, lengths] = 1
    return Texts(input_ids=ids.numpy(), attention_mask=mask.numpy(), counted=counted.numpy())


def agreement(student: "nn.Module", teacher: "nn.Module", texts: Texts) -> float:
    """Return the share of positions with a target at which both would say the same next token, in [0, 1]."""
    import torch

    batch = [torch.from_numpy(array) for array in texts.inputs.values()]
    with torch.inference_mode():
        same = student(*batch)[:, :-1].argmax(-1) == teacher(*batch)[:, :-1].argmax(-1)
    return float(same.numpy()[texts.positions].mean())
