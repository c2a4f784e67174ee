"""The sets: what each answerer said to each question, whether that was right, and what it cost."""

import ast
import csv
import gzip
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._cascade import prices
from halve.errors import WorkloadError

Array = np.ndarray[Any, np.dtype[np.float64]]

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples"))  # intents imports its neighbour by its bare name, as a config does.

GSM8K = (
    "Meta-Llama-3.1-8B-Instruct",
    "Mistral-Nemo-Instruct-2407",
    "gemma-2-9b-it",
    "gemini-1.5-flash",
    "deepseek-chat",
    "gpt-4o-mini-2024-07-18",
    "Meta-Llama-3.1-70B-Instruct",
    "claude-3-haiku-20240307",
    "Qwen2-72B-Instruct",
    "Llama-3.1-405B-Inst@sambanova",
    "Mistral-Large-2",
    "claude-3-5-haiku-20241022",
    "gpt-4o-2024-08-06",
    "claude-3-5-sonnet-20241022",
)
CRUX = (
    "Meta-Llama-3.1-8B-Instruct",
    "Qwen2.5-7B-Instruct",
    "gemma-2-9b-it",
    "gemini-1.5-flash",
    "deepseek-v2.5-0908",
    "Qwen2.5-72B-Instruct",
    "Meta-Llama-3.1-70B-Instruct",
    "gpt-4o-mini-2024-07-18",
    "Qwen2.5-32B-Instruct",
    "claude-3-5-haiku-20241022",
    "o1-mini-2024-09-12",
    "Mistral-Large-2",
    "gpt-4o-2024-08-06",
    "claude-3-5-sonnet-20241022",
    "o1-preview-2024-09-12",
)
"""Menus that a team could have had in 2024, from 8 B to the best; one entry per model."""

USD_PER_VCPU_SECOND = 0.08925 / 2 / 3600
"""c7i.large in us-east-1, on demand, 2 vCPU (prices_cloud): for models that run on our own processors."""


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """One set.

    Args:
        name: Of the set.
        answerers: Names, by rising mean cost.
        scores: 0 or 1, float64 (answerers, questions).
        usd: Of each call, the same shape.
        answers: Digests of normalised answers, int64, the same shape; equal is the same answer.
        signals: What is known of an answer beside itself, float64 (answerers, questions, signals).
        signal_names: Of these.
        asked: What is known of a question before anyone is asked, float64 (questions, features).
        asked_names: Of these.
        vectors: MiniLM vectors of the questions, float32 (questions, 384), or None where there is no text.
        shifted: bool (questions,): a harder part, for streams whose questions change.
        shift: What that part is.
    """

    name: str
    answerers: tuple[str, ...]
    scores: Array
    usd: Array
    answers: Any
    signals: Array
    signal_names: tuple[str, ...]
    asked: Array
    asked_names: tuple[str, ...]
    vectors: Any
    shifted: Any
    shift: str

    @property
    def questions(self) -> int:
        return int(self.scores.shape[1])

    @property
    def strong(self) -> int:
        """Return the answerer with the highest mean score over the whole set: what is in service today."""
        return int(np.argmax(self.scores.mean(axis=1)))


def data_folder() -> Path:
    """Return the folder of the shared data.

    Raises:
        WorkloadError: If HALVE_DATA is not set.
    """
    root = os.environ.get("HALVE_DATA")
    if root is None:
        raise WorkloadError("HALVE_DATA must name the folder that holds zeroeval and routerbench_subset. Got nothing.")
    return Path(root)


def by_cost(**columns: Any) -> Recorded:
    """Return a set with its answerers sorted by mean cost."""
    order = np.argsort(columns["usd"].mean(axis=1), kind="stable")
    names = columns.pop("answerers")
    rows = {key: columns.pop(key)[order] for key in ("scores", "usd", "answers", "signals")}
    return Recorded(answerers=tuple(names[place] for place in order), **rows, **columns)


def number_or_text(answer: str) -> str:
    """Return an answer to a question about a number in one form: 195000 for "$195,000.00"."""
    plain = answer.strip().replace("$", "").replace(",", "").rstrip("%.").strip()
    try:
        value = float(plain)
    except ValueError:
        return plain.lower()
    return f"{value:.6g}"


def value_or_text(answer: str) -> str:
    """Return a Python value in one form, whatever its quotes and spaces."""
    plain = answer.strip()
    try:
        return repr(ast.literal_eval(plain))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return plain


def digest(text: str) -> int:
    """Return 63 bits of a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def zeroeval(name: str, models: tuple[str, ...], normal: Callable[[str], str]) -> dict[str, Any]:
    """Return rows of one ZeroEval table for these models, on the questions that all of them answered."""
    sys.setrecursionlimit(max(sys.getrecursionlimit(), 10_000))
    found: dict[str, dict[str, tuple[float, float, str]]] = {model: {} for model in models}
    with gzip.open(data_folder() / "zeroeval" / f"{name}_per_query.csv.gz", "rt", newline="") as file:
        for row in csv.DictReader(file):
            if row["model"] in found:
                given = (float(row["correct"]), float(row["output_chars"]), normal(row["answer"]))
                found[row["model"]][row["id"]] = given
    common = set.intersection(*(set(rows) for rows in found.values()))
    keys = sorted(common, key=lambda key: int(key.rsplit("#", 1)[1]))
    cells = [[found[model][key] for key in keys] for model in models]
    return {
        "keys": keys,
        "scores": np.array([[cell[0] for cell in row] for row in cells]),
        "characters": np.array([[cell[1] for cell in row] for row in cells]),
        "answers": np.array([[digest(cell[2]) for cell in row] for row in cells]),
        "empty": np.array([[float(cell[2] == "") for cell in row] for row in cells]),
    }


def answer_signals(characters: Array, empty: Array) -> Array:
    """Return log length, its square (short and long are both bad signs), and whether there is no answer."""
    logs = np.log(np.maximum(characters, 1))
    return np.stack([logs, (logs - logs.mean(axis=1, keepdims=True)) ** 2, empty], axis=2)


SIGNALS = ("log_characters", "log_characters_squared", "no_answer")


def gsm8k() -> Recorded:
    """GSM8K, 1,319 questions; cost of question and answer. Shift: the longest third of the questions."""
    rows = zeroeval("gsm", GSM8K, number_or_text)
    questions = {}
    with gzip.open(data_folder() / "zeroeval" / "gsm_questions.jsonl.gz", "rt") as file:
        for line in file:
            row = json.loads(line)
            questions[row["id"]] = row
    known = [place for place, key in enumerate(rows["keys"]) if key in questions]
    keys = [rows["keys"][place] for place in known]
    rows = {name: rows[name][:, known] for name in ("scores", "characters", "answers", "empty")}
    texts = [questions[key]["question"] for key in keys]
    prompts = np.array([questions[key]["prompt_chars"] for key in keys], dtype=float)
    lengths = np.array([len(text) for text in texts], dtype=float)
    numbers = np.array([len(re.findall(r"\d+", text)) for text in texts], dtype=float)
    return by_cost(
        name="gsm8k",
        answerers=GSM8K,
        scores=rows["scores"],
        usd=costs(GSM8K, prompts, rows["characters"]),
        answers=rows["answers"],
        signals=answer_signals(rows["characters"], rows["empty"]),
        signal_names=SIGNALS,
        asked=np.column_stack([np.log(lengths), numbers]),
        asked_names=("log_question_characters", "numbers_in_question"),
        vectors=vectors_of(texts),
        shifted=lengths >= np.quantile(lengths, 2 / 3),
        shift="the longest third of the questions",
    )


def crux() -> Recorded:
    """CRUX, 800 questions without text, so only answers are charged. Shift: where the cheapest model writes most."""
    rows = zeroeval("crux", CRUX, value_or_text)
    cheapest = rows["characters"][0]
    return by_cost(
        name="crux",
        answerers=CRUX,
        scores=rows["scores"],
        usd=costs(CRUX, np.zeros(len(cheapest)), rows["characters"]),
        answers=rows["answers"],
        signals=answer_signals(rows["characters"], rows["empty"]),
        signal_names=SIGNALS,
        asked=np.empty((len(cheapest), 0)),
        asked_names=(),
        vectors=None,
        shifted=cheapest >= np.quantile(cheapest, 2 / 3),
        shift="the third that the cheapest model writes most about",
    )


def costs(models: tuple[str, ...], prompts: Array, characters: Array) -> Array:
    """Return USD of each call."""
    return np.array(
        [
            [
                prices.usd(model, input_characters=before, output_characters=after)
                for before, after in zip(prompts, row, strict=True)
            ]
            for model, row in zip(models, characters, strict=True)
        ]
    )


TASKS = ("mbpp", "arc_challenge", "winograde")


def routerbench() -> Recorded:
    """MBPP, ARC-Challenge and Winogrande as one traffic, real USD, 11 models. Shift: to Winogrande."""
    csv.field_size_limit(10**8)
    rows: dict[str, tuple[str, dict[str, str]]] = {}
    for task in TASKS:
        for part in ("train", "test"):
            with (data_folder() / "routerbench_subset" / f"{task}_{part}.csv").open(newline="") as file:
                rows |= {row["sample_id"]: (task, row) for row in csv.DictReader(file)}
    models = tuple(name[: -len("|total_cost")] for name in next(iter(rows.values()))[1] if name.endswith("|total_cost"))
    needed = [*models, *(f"{model}|total_cost" for model in models)]
    kept = [(task, row) for task, row in rows.values() if all(row[name] != "" for name in needed)]
    responses = [[plain_response(row[f"{model}|model_response"], task) for task, row in kept] for model in models]
    raw_lengths = np.array([[len(row[f"{model}|model_response"]) for _, row in kept] for model in models], dtype=float)
    texts = [question_of(row["prompt"]) for _, row in kept]
    tasks = np.array([task for task, _ in kept])
    empty = np.array([[float(given == "") for given in row] for row in responses])
    return by_cost(
        name="routerbench",
        answerers=models,
        scores=np.array([[float(row[model]) for _, row in kept] for model in models]),
        usd=np.array([[float(row[f"{model}|total_cost"]) for _, row in kept] for model in models]),
        answers=np.array([[digest(given) for given in row] for row in responses]),
        signals=answer_signals(raw_lengths, empty),
        signal_names=SIGNALS,
        asked=np.column_stack(
            [np.log([len(text) for text in texts]), tasks == "mbpp", tasks == "arc_challenge"]
        ).astype(float),
        asked_names=("log_question_characters", "asks_for_code", "has_four_choices"),
        vectors=vectors_of(texts),
        shifted=tasks == "winograde",
        shift="Winogrande alone",
    )


def question_of(prompt: str) -> str:
    """Return the last question of a prompt: the ones before it are worked examples."""
    try:
        parts = ast.literal_eval(prompt)
        text = str(parts[0]) if isinstance(parts, list) else str(parts)
    except (ValueError, SyntaxError):
        text = prompt
    blocks = [block for block in text.split("\n\n") if block.strip()]
    return blocks[-1] if blocks else text


def plain_response(response: str, task: str) -> str:
    """Return the letter chosen, or the text of the code."""
    if task == "mbpp":
        return " ".join(response.split())
    letter = re.search(r"\b([A-E])\b", response)
    return letter.group(1) if letter else response.strip().lower()[:40]


def served_here(name: str, most: int) -> Recorded | None:
    """Return models of a finished `halve optimize examples/NAME.yaml`, if such a run folder is here.

    Those that have answered both splits. Costs are measured seconds on one vCPU. Shift: the third of the classes that
    the cheapest model is least sure of, by the strongest model's answer.
    """
    found = [tables_of(folder / "outcomes") for folder in sorted((ROOT / "runs").glob(f"{name}-????????????"))]
    tables = max(found, key=len, default={})
    if len(tables) < 2:
        return None

    def column(model: str, key: str) -> Array:
        return np.concatenate([np.array(table[key].to_pylist(), dtype=float) for table in tables[model]])

    models = tuple(tables)
    chosen = np.random.default_rng(0).permutation(len(column(models[0], "score")))[:most]
    probabilities = np.stack([column(model, "probabilities") for model in models])[:, chosen]
    answers = np.stack([column(model, "answer") for model in models])[:, chosen].astype(np.int64)
    seconds = np.stack([column(model, "compute_seconds") for model in models])[:, chosen]
    scores = np.stack([column(model, "score") for model in models])[:, chosen]
    signals = probability_signals(probabilities)
    return by_cost(
        name=name,
        answerers=models,
        scores=scores,
        usd=USD_PER_VCPU_SECOND * seconds,
        answers=answers,
        signals=signals,
        signal_names=("log_odds", "margin", "entropy"),
        asked=np.empty((len(chosen), 0)),
        asked_names=(),
        vectors=None,
        shifted=least_sure(answers[np.argmax(scores.mean(axis=1))], signals[np.argmin(seconds.mean(axis=1)), :, 0]),
        shift="the third of the classes that the cheapest model is least sure of",
    )


def least_sure(classes: Any, sure: Array) -> Any:
    """Return which rows are of the third of the classes with the least mean sureness, bool (n,)."""
    places = np.unique(classes, return_inverse=True)[1]
    means = np.bincount(places, weights=sure) / np.bincount(places)
    return (means <= np.quantile(means, 1 / 3))[places]


def tables_of(folder: Path) -> dict[str, Any]:
    """Return the two tables, search and certify, of each model that has both."""
    import pyarrow.parquet as parquet

    tables = {}
    for path in sorted(folder.glob("*-certify.parquet")):
        other = path.with_name(path.name.replace("-certify.", "-search."))
        if other.is_file():
            tables[path.name.rsplit("-", 2)[0]] = [parquet.read_table(one) for one in (other, path)]
    return tables


def probability_signals(probabilities: Array) -> Array:
    """Return log-odds of the maximum probability, margin and entropy, (models, images, 3)."""
    from halve.techniques.inference.cascading import confidence

    maximum, margin, entropy = (
        np.stack([confidence(rows, rule) for rows in probabilities])
        for rule in ("maximum_probability", "margin", "entropy")
    )
    limited = np.clip(maximum, 1e-6, 1 - 1e-6)
    return np.stack([np.log(limited / (1 - limited)), margin, entropy], axis=2)


def vectors_of(texts: list[str]) -> Any:
    """Return MiniLM vectors of texts, float32 (texts, 384), kept in `~/.cache/halve-benchmarks/vectors`."""
    key = hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]
    path = Path.home() / ".cache" / "halve-benchmarks" / "vectors" / f"minilm-{key}.npy"
    if path.is_file():
        return np.load(path, allow_pickle=False)
    import torch
    from examples.intents import encoder, tokenizer_file
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_file()))
    tokenizer.enable_truncation(256)
    tokenizer.enable_padding()
    model, order = encoder(), np.argsort([len(text) for text in texts])
    found = np.empty((len(texts), 384), dtype=np.float32)
    with torch.no_grad():
        for start in range(0, len(texts), 64):
            rows = order[start : start + 64]
            encoded = tokenizer.encode_batch([texts[row] for row in rows])
            ids, masks = (torch.tensor([getattr(one, kind) for one in encoded]) for kind in ("ids", "attention_mask"))
            found[rows] = model(ids, masks).numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, found, allow_pickle=False)
    return found
