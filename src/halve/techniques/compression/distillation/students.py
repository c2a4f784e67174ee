"""Cheap students of text classifiers, over the word-piece ids that the teacher reads.

Source: Joulin et al. 2017, arXiv:1607.01759 (bags of n-grams); Kim 2014, arXiv:1408.5882 (convolutions over words);
Shen et al. 2018, arXiv:1805.09843 (pooled static word vectors).
"""

from collections.abc import Sequence

import torch  # noqa: TID253 - modules are classes; users import this module when they have torch.
from torch import nn  # noqa: TID253

from halve.errors import InvalidParameterError
from halve.techniques.compression.distillation.ngrams import NGRAMS, check_ngrams, ngram_rows


class NgramStudent(nn.Module):
    """Looks up words and hashed n-grams, adds them up, and classifies the sum: no product per token.

        h = (sum of word rows + sum of n-gram rows) / sqrt(number of rows)
        logits = W h + b + V relu(U norm(h))

    The last term, a small perceptron, is there with `hidden`.

    Args:
        vocabulary: Number of word pieces, >= 1.
        classes: Number of logits, >= 2.
        width: Length of a row.
        ngrams: Offsets; see `ngrams`.
        ngram_rows: Rows of the table that all n-grams share.
        hidden: Width of the perceptron; 0 for none, which costs points where there are many classes.
        special: Ids that are no words, such as [CLS] and [SEP]; they still mark the ends in n-grams.
        word_dropout, ngram_dropout, dropout: Shares of words, n-grams and sums left out of a training step.
    """

    special: torch.Tensor

    def __init__(  # noqa: PLR0913 - sizes and shares, each with its default
        self,
        *,
        vocabulary: int,
        classes: int,
        width: int = 128,
        ngrams: tuple[tuple[int, ...], ...] = NGRAMS,
        ngram_rows: int = 2**16,
        hidden: int = 512,
        special: Sequence[int] = (),
        word_dropout: float = 0.1,
        ngram_dropout: float = 0.2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        check_ngrams(ngrams)
        self.ngrams, self.ngram_rows = ngrams, ngram_rows
        self.word_dropout, self.ngram_dropout = word_dropout, ngram_dropout
        self.words = nn.Embedding(vocabulary, width, sparse=True)
        self.table = nn.Embedding(ngram_rows, width, sparse=True)
        self.head = Head(width, classes, hidden=hidden, dropout=dropout)
        self.register_buffer("special", torch.tensor(list(special), dtype=torch.int64), persistent=False)
        nn.init.normal_(self.words.weight, std=0.3)
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return logits, float32 (batch, classes), for int64 (batch, tokens) twice."""
        weights = self._kept(words_mask(input_ids, attention_mask, self.special), self.word_dropout)
        total, count = weighted_sum(self.words(input_ids), weights), weights.sum(dim=1)
        for offsets in self.ngrams:
            rows, inside = ngram_rows(input_ids, attention_mask, offsets, rows=self.ngram_rows)
            weights = self._kept(inside, self.ngram_dropout)
            total, count = total + weighted_sum(self.table(rows), weights), count + weights.sum(dim=1)
        logits: torch.Tensor = self.head(total / count.clamp(min=1).sqrt().unsqueeze(-1))
        return logits

    def _kept(self, present: torch.Tensor, share: float) -> torch.Tensor:
        weights = present.to(self.words.weight.dtype)
        return weights * (torch.rand_like(weights) >= share) if self.training else weights


class StaticEmbeddingStudent(nn.Module):
    """Pools static word vectors by learned weights, their mean and their maximum, and classifies by a perceptron.

    A word's weight is learned with its vector: small for words that say nothing.

    Args:
        vocabulary, classes, width, special, word_dropout, dropout: As of `NgramStudent`.
        hidden: Width of the perceptron, >= 1.
    """

    special: torch.Tensor

    def __init__(
        self,
        *,
        vocabulary: int,
        classes: int,
        width: int = 128,
        hidden: int = 256,
        special: Sequence[int] = (),
        word_dropout: float = 0.1,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.word_dropout = word_dropout
        self.words = nn.Embedding(vocabulary, width, sparse=True)
        self.importance = nn.Embedding(vocabulary, 1, sparse=True)
        self.head = Head(2 * width, classes, hidden=hidden, dropout=dropout)
        self.register_buffer("special", torch.tensor(list(special), dtype=torch.int64), persistent=False)
        nn.init.normal_(self.words.weight, std=0.3)
        nn.init.zeros_(self.importance.weight)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return logits, float32 (batch, classes), for int64 (batch, tokens) twice."""
        kept = words_mask(input_ids, attention_mask, self.special).to(self.words.weight.dtype)
        if self.training:
            kept = kept * (torch.rand_like(kept) >= self.word_dropout)
        vectors = self.words(input_ids)
        weights = kept * self.importance(input_ids).squeeze(-1).sigmoid()
        mean = weighted_sum(vectors, weights) / weights.sum(dim=1, keepdim=True).clamp(min=1e-3)
        highest = (vectors - 1e4 * (1 - kept).unsqueeze(-1)).amax(dim=1) * (kept.sum(dim=1, keepdim=True) > 0)
        logits: torch.Tensor = self.head(torch.cat([mean, highest], dim=1))
        return logits


class ConvolutionStudent(nn.Module):
    """Slides filters over three neighbouring words, takes each filter's maximum, and classifies by a perceptron.

        c_t = relu(K [v_(t-1), v_t, v_(t+1)] + b)
        h = (max over t of c_t, sum of v_t / sqrt(number of words))

    Slower than tables of n-grams and nearer to the teacher: filters share what they know between similar words, so a
    pair that no text had is no blank.

    Args:
        vocabulary, classes, width, word_dropout, dropout: As of `NgramStudent`.
        channels: Number of filters.
        hidden: Width of the perceptron, >= 1.
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        classes: int,
        width: int = 128,
        channels: int = 256,
        hidden: int = 256,
        word_dropout: float = 0.1,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.word_dropout = word_dropout
        self.words = nn.Embedding(vocabulary, width, sparse=True)
        self.dropout = nn.Dropout(dropout)
        self.filters = nn.Conv1d(width, channels, 3, padding=1)
        self.head = Head(channels + width, classes, hidden=hidden, dropout=dropout)
        nn.init.normal_(self.words.weight, std=0.3)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return logits, float32 (batch, classes), for int64 (batch, tokens) twice."""
        there = attention_mask.to(self.words.weight.dtype)
        kept = there * (torch.rand_like(there) >= self.word_dropout) if self.training else there
        vectors = self.words(input_ids) * kept.unsqueeze(-1)
        found = self.filters(self.dropout(vectors).transpose(1, 2)).relu() * there.unsqueeze(1)
        mean = vectors.sum(dim=1) / kept.sum(dim=1, keepdim=True).clamp(min=1).sqrt()
        logits: torch.Tensor = self.head(torch.cat([found.amax(dim=2), mean], dim=1))
        return logits


class Head(nn.Module):
    """logits = W h + b, and with `hidden` a perceptron's + V relu(U norm(h)).

    Args:
        width, classes: Of input and output.
        hidden: Of the perceptron; 0 for none.
        dropout: Share of inputs left out of a training step.
    """

    def __init__(self, width: int, classes: int, *, hidden: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, classes)
        self.perceptron: nn.Module | None = None
        if hidden:
            self.perceptron = nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, hidden),
                nn.ReLU(),
                nn.Dropout(dropout),
                nn.Linear(hidden, classes),
            )

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return logits (batch, classes) for (batch, width)."""
        hidden = self.dropout(hidden)
        logits: torch.Tensor = self.linear(hidden)
        return logits if self.perceptron is None else logits + self.perceptron(hidden)


def start_from_vectors(student: nn.Module, vectors: torch.Tensor, *, scale: float = 0.3) -> None:
    """Start a student's word table from the teacher's: its principal components, brought to a standard deviation.

    Args:
        student: With a table `words`.
        vectors: The teacher's word vectors, (vocabulary, any), at least as wide as the student's.
        scale: Standard deviation of the table, > 0.

    Raises:
        InvalidParameterError: If the student has no such table, or the vectors do not fit it.
    """
    table = getattr(student, "words", None)
    if not isinstance(table, nn.Embedding):
        raise InvalidParameterError("student", rule="a module with a table `words`", value=type(student).__name__)
    rows, width = table.weight.shape
    if len(vectors) != rows or vectors.shape[1] < width:
        raise InvalidParameterError("vectors", rule=f"({rows}, at least {width})", value=tuple(vectors.shape))
    with torch.no_grad():
        components = principal_components(vectors, width=width)
        table.weight.copy_(components * (scale / components.std()))


def principal_components(vectors: torch.Tensor, *, width: int) -> torch.Tensor:
    """Return the centred vectors in the basis of their `width` widest directions, float32 (n, width).

    The sign of a direction is the one that makes its largest entry positive, so that machines agree.
    """
    centred = (vectors - vectors.mean(dim=0)).double()
    directions = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -width:]
    largest = directions.abs().argmax(dim=0)
    signs = directions[largest, torch.arange(width)].sign()
    components: torch.Tensor = centred @ (directions * signs)
    return components.float()


def words_mask(input_ids: torch.Tensor, attention_mask: torch.Tensor, special: torch.Tensor) -> torch.Tensor:
    """Return 1 for tokens that are there and are no special ids, int64 (batch, tokens)."""
    is_special: torch.Tensor = (input_ids.unsqueeze(-1) == special).any(dim=-1)
    return attention_mask * ~is_special


def weighted_sum(vectors: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the sum over tokens of (batch, tokens, width) by (batch, tokens)."""
    weighted: torch.Tensor = vectors * weights.unsqueeze(-1)
    return weighted.sum(dim=1)
