"""A text classifier of two table look-ups and one matrix: words and hashed word pairs, taught by a larger model.

Knows nothing of any data set; `intents.py` trains one. Everything happens on word-piece ids inside the module,
so that a server needs no other preprocessing than the larger model's.
"""

from dataclasses import dataclass

import torch
from torch import nn

from halve.demo.training import progress

PAIR_GAPS = (1, 2)
"""Word pairs are pieces next to each other, and pieces with one between them."""

_FACTOR, _MODULUS = 1_000_003, 2**31 - 1
"""Of the pair hash, (number * factor + number) mod modulus twice: below 2**62, so int64 cannot overflow."""


@dataclass(frozen=True, kw_only=True)
class NgramRecipe:
    """How the classifier is built and trained.

    Args:
        width: Length of a table's rows.
        pair_rows: Rows of the pair table; pairs that hash to the same row share it.
        epochs: Passes over the queries.
        batch_size: Queries per step.
        pair_learning_rate, word_learning_rate: Of Adam, falling linearly to nothing. Words begin with what the
            larger model knows of them, so they move less.
        word_scale: Standard deviation of the word table at the start.
        word_dropout, pair_dropout, dropout: Shares of words, pairs and sums left out of a training step.
        temperature: Of the teacher's and the student's distribution when they are compared.
        soft_share: Weight of the teacher's distribution against that of the true labels, in [0, 1].
        seed: Of weights, order and dropout.
    """

    width: int = 128
    pair_rows: int = 2**16
    epochs: int = 10
    batch_size: int = 250
    pair_learning_rate: float = 1e-2
    word_learning_rate: float = 2e-3
    word_scale: float = 0.3
    word_dropout: float = 0.2
    pair_dropout: float = 0.3
    dropout: float = 0.2
    temperature: float = 1.5
    soft_share: float = 0.7
    seed: int = 0


class NgramClassifier(nn.Module):
    """logits = W (sum of word rows + sum of pair rows) / sqrt(number of rows) + b.

    Args:
        vocabulary: Number of word pieces.
        classes: Number of logits.
        recipe: Sizes and dropout.
        special: Ids that are no words, such as [CLS] and [SEP]; they still mark the ends in pairs.
    """

    special: torch.Tensor

    def __init__(self, *, vocabulary: int, classes: int, recipe: NgramRecipe, special: tuple[int, ...]) -> None:
        super().__init__()
        self.recipe = recipe
        self.words = nn.Embedding(vocabulary, recipe.width)
        self.pairs = nn.Embedding(recipe.pair_rows, recipe.width)
        self.head = nn.Linear(recipe.width, classes)
        self.register_buffer("special", torch.tensor(special), persistent=False)
        nn.init.normal_(self.pairs.weight, std=0.02)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return logits, float32 (batch, classes), for int64 (batch, tokens) twice."""
        is_special = (input_ids.unsqueeze(-1) == self.special).any(dim=-1)
        words = self._kept(attention_mask * ~is_special, self.recipe.word_dropout)
        total, count = (self.words(input_ids) * words.unsqueeze(-1)).sum(dim=1), words.sum(dim=1)
        reach = max(PAIR_GAPS)
        ids, mask = (nn.functional.pad(tensor, (0, reach)) for tensor in (input_ids, attention_mask))
        for gap in PAIR_GAPS:
            end = gap - reach or None
            rows = pair_rows(input_ids, ids[:, gap:end], gap=gap, rows=self.recipe.pair_rows)
            kept = self._kept(attention_mask * mask[:, gap:end], self.recipe.pair_dropout)
            total, count = total + (self.pairs(rows) * kept.unsqueeze(-1)).sum(dim=1), count + kept.sum(dim=1)
        mean = total / count.clamp(min=1).sqrt().unsqueeze(-1)
        return self.head(nn.functional.dropout(mean, self.recipe.dropout, self.training))

    def _kept(self, present: torch.Tensor, share: float) -> torch.Tensor:
        weights = present.to(self.head.weight.dtype)
        return weights * (torch.rand_like(weights) >= share) if self.training else weights


def pair_rows(first: torch.Tensor, second: torch.Tensor, *, gap: int, rows: int) -> torch.Tensor:
    """Return the table row of each ordered pair of ids, int64 like `first`, in [0, rows)."""
    number = ((first + gap * _FACTOR) * _FACTOR + second) % _MODULUS
    return number * _FACTOR % _MODULUS % rows


def fit(
    model: NgramClassifier,
    *,
    tokens: torch.Tensor,
    labels: torch.Tensor,
    teacher_logits: torch.Tensor,
    word_vectors: torch.Tensor,
) -> None:
    """Train in place: Adam on a mix of true labels and the teacher's distribution.

    loss = (1 - s) CE(student, label) + s T**2 KL(teacher / T, student / T), with s = soft_share, T = temperature.

    Source: Hinton, Vinyals and Dean 2015, arXiv:1503.02531.

    Args:
        model: What to train.
        tokens: int64 (n, longest), padded with 0.
        labels: int64 (n,).
        teacher_logits: float32 (n, classes).
        word_vectors: float32 (vocabulary, any): the larger model's word vectors; their principal components
            are where the word table starts.
    """
    recipe = model.recipe
    with torch.no_grad():
        start = principal_components(word_vectors, width=recipe.width)
        model.words.weight.copy_(start * (recipe.word_scale / start.std()))
    optimizers = _optimizers(model)
    steps = recipe.epochs * -(-len(tokens) // recipe.batch_size)
    schedules = [
        torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=0.02, total_iters=steps)
        for optimizer in optimizers
    ]
    model.train()
    model.words.sparse = model.pairs.sparse = True
    with progress("training the n-gram model", total=steps) as advance:
        for _ in range(recipe.epochs):
            for chosen in torch.randperm(len(tokens)).split(recipe.batch_size):
                ids = tokens[chosen, : int((tokens[chosen] != 0).sum(dim=1).max())]
                logits = model(ids, (ids != 0).long())
                loss = distillation_loss(logits, teacher_logits[chosen], labels[chosen], recipe=recipe)
                model.zero_grad()
                loss.backward()
                for worker in (*optimizers, *schedules):
                    worker.step()
                advance()
    model.words.sparse = model.pairs.sparse = False
    model.eval()


def distillation_loss(
    logits: torch.Tensor, teacher_logits: torch.Tensor, labels: torch.Tensor, *, recipe: NgramRecipe
) -> torch.Tensor:
    """Return the mean loss of a batch; see `fit`."""
    hard = nn.functional.cross_entropy(logits, labels)
    student = nn.functional.log_softmax(logits / recipe.temperature, dim=1)
    teacher = nn.functional.log_softmax(teacher_logits / recipe.temperature, dim=1)
    soft = nn.functional.kl_div(student, teacher, reduction="batchmean", log_target=True)
    return (1 - recipe.soft_share) * hard + recipe.soft_share * recipe.temperature**2 * soft


def principal_components(vectors: torch.Tensor, *, width: int) -> torch.Tensor:
    """Return the centred vectors in the basis of their `width` widest directions, float32 (n, width)."""
    centred = (vectors - vectors.mean(dim=0)).double()
    directions = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -width:]
    return (centred @ directions).float()


def _optimizers(model: NgramClassifier) -> list[torch.optim.Optimizer]:
    recipe = model.recipe
    return [
        torch.optim.SparseAdam([model.words.weight], lr=recipe.word_learning_rate),
        torch.optim.SparseAdam([model.pairs.weight], lr=recipe.pair_learning_rate),
        torch.optim.Adam(model.head.parameters(), lr=recipe.pair_learning_rate),
    ]
