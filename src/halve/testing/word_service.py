"""A text service of a few kilobytes: topics, words and templates; for tests of everything that reads texts.

Each question is a topic's word in a frame of small words; the answer is the topic. The model in service knows every
word. `write_word_service` writes a config over it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import nn

TOPICS = {
    "money": ("pay", "bill", "price", "cost", "cash"),
    "travel": ("flight", "hotel", "train", "trip", "car"),
    "food": ("eat", "cook", "recipe", "meal", "lunch"),
    "health": ("doctor", "sleep", "pain", "pill", "nurse"),
}
FRAMES = (
    "what about the {} please",
    "tell me of my {} now",
    "i want a {} here",
    "how is the {} going",
    "my {} is it ok",
)
SMALL_WORDS = tuple(sorted({word for frame in FRAMES for word in frame.replace("{} ", "").split()} | {"today", "soon"}))
WORDS = ("[PAD]", "[UNK]", *SMALL_WORDS, *(word for words in TOPICS.values() for word in words))
MAX_TOKENS = 16


def questions(count: int, *, seed: int) -> tuple[list[str], NDArray[np.int64]]:
    """Return different questions and their topics' numbers; other seeds give others, some of them the same."""
    random = np.random.default_rng(seed)
    topics = list(TOPICS.values())
    found: dict[str, int] = {}
    while len(found) < count:
        topic = int(random.integers(len(topics)))
        word = topics[topic][int(random.integers(len(topics[topic])))]
        text = FRAMES[int(random.integers(len(FRAMES)))].format(word)
        extra = [SMALL_WORDS[place] for place in random.integers(len(SMALL_WORDS), size=3)]
        found[" ".join([*extra, text])] = topic
    return list(found), np.array(list(found.values()), dtype=np.int64)


def examples() -> tuple[list[str], NDArray[np.int64]]:
    """Return 1,200 questions and their topics."""
    return questions(1200, seed=1)


def lessons() -> tuple[list[str], NDArray[np.int64]]:
    """Return 700 questions to learn from."""
    return questions(700, seed=2)


def teacher() -> "nn.Module":
    """Return the model in service: it sums a weight per word and topic."""
    return _bag(_topic_weights(), normalize=False)


def encoder() -> "nn.Module":
    """Return a module that gives one vector per text: words at random directions, those of a topic near each other."""
    random = np.random.default_rng(0)
    directions = random.normal(size=(len(TOPICS), 24))
    vectors = 0.9 * random.normal(size=(len(WORDS), 24)) + _topic_weights() @ directions
    return _bag(vectors, normalize=True)


def write_tokenizer(path: Path) -> None:
    """Write the `tokenizer.json` of the words."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(path))


def write_log(folder: Path) -> None:
    """Write `log.jsonl`, 600 questions with their topics, and `encoder`, a folder that `halve cache` reads.

    Args:
        folder: Exists.
    """
    from halve.techniques.compression.quantization import export_onnx

    rows = [
        {"question": text, "answer": int(topic), "who": text[0]}
        for text, topic in zip(*questions(600, seed=5), strict=True)
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "encoder").mkdir()
    write_tokenizer(folder / "encoder" / "tokenizer.json")
    ids = np.ones((2, 4), dtype=np.int64)
    export_onnx(encoder(), {"input_ids": ids, "attention_mask": ids}, folder / "encoder" / "model.onnx")


def write_word_service(folder: Path, *, changes: Mapping[str, Any] | None = None) -> Path:
    """Write the tokenizer and a config over this module into a folder that exists; return the config's path.

    Args:
        folder: Exists.
        changes: Of the config's keys; None leaves a key out.
    """
    import yaml

    write_tokenizer(folder / "tokenizer.json")
    preprocess = {"kind": "wordpiece", "tokenizer_file": "tokenizer.json", "max_tokens": MAX_TOKENS}
    config: dict[str, Any] = {
        "schema": "halve.config/1",
        "name": "words",
        "examples": {"entry": f"{__name__}:examples"},
        "model": {"name": "teacher", "entry": f"{__name__}:teacher", "preprocess": preprocess},
        "training": {"entry": f"{__name__}:lessons"},
        "encoder": {"entry": f"{__name__}:encoder", "preprocess": preprocess},
        "traffic": {"generate": {"kind": "poisson", "requests_per_second": 300.0, "duration_seconds": 10.0}},
        "objective": {"quality_drop_at_most": 0.02, "latency_p99_seconds": 0.2},
        "replay": {"seconds": 0},
        **(changes or {}),
    }
    path = folder / "words.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in config.items() if value is not None}, sort_keys=False))
    return path


def _topic_weights() -> NDArray[np.float64]:
    """Return 1 where a word belongs to a topic, (words, topics)."""
    return np.array([[float(word in words) for words in TOPICS.values()] for word in WORDS])


def _bag(weights: NDArray[np.float64], *, normalize: bool) -> "nn.Module":
    import torch
    from torch import nn

    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(*weights.shape)
            self.table.weight = nn.Parameter(torch.tensor(4 * weights, dtype=torch.float32), requires_grad=False)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            total = (self.table(input_ids) * attention_mask.unsqueeze(-1).to(torch.float32)).sum(dim=1)
            return nn.functional.normalize(total, dim=1) if normalize else total

    return Bag().eval()
