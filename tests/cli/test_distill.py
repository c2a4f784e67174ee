import json
import sys

import numpy as np
import pytest

from halve.cli import main
from halve.testing.tiny_service import write_service

TEXT_TEACHER = """
import torch
from torch import nn


class Bag(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(24, 128), nn.Linear(128, 3)

    def forward(self, input_ids, attention_mask):
        kept = attention_mask.unsqueeze(-1).float()
        return self.head((self.embedding(input_ids) * kept).sum(1) / kept.sum(1))


def bag():
    torch.manual_seed(0)
    return Bag().eval()
"""
WORDS = [f"w{number}" for number in range(20)]
POINTS = ("--data", "points.npz", "--payload", "inputs")
COMMON = ("distill", "--teacher", "tiny_models:teacher", "--student", "tiny_models:untrained", "--epochs", "2", *POINTS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The tiny service, a text teacher with its tokenizer, and logs of texts."""
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.pre_tokenizers import Whitespace

    path = tmp_path_factory.mktemp("distill")
    write_service(path, examples=300)
    (path / "text_models.py").write_text(TEXT_TEACHER)
    vocabulary = {name: number for number, name in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in ("[PAD]", "[UNK]", "[CLS]", "[SEP]")])
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(path / "tokenizer.json"))
    rng = np.random.default_rng(0)
    rows = [{"text": " ".join(rng.choice(WORDS, rng.integers(2, 6)))} for _ in range(120)]
    (path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def halve(folder, monkeypatch, capsys):
    """Return what runs a command in this process: exit code, stdout, stderr."""
    monkeypatch.setenv("HALVE_CACHE", str(folder / "cache"))
    monkeypatch.chdir(folder)

    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return left.value.code, said.out, said.err

    return run


def test_the_result_says_what_how_good_and_how_fast_in_80_columns(folder, halve_cli, monkeypatch):
    monkeypatch.setenv("HALVE_CACHE", str(folder / "cache"))
    done = halve_cli([*COMMON, "--label", "classes", "--int8", "-o", "small"], cwd=folder)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "small  distillation > quantization"
    assert lines[1].startswith("right on ")
    assert "held-out inputs, teacher on" in lines[1]
    assert lines[2].startswith("judged by labels; the drop is at most ")
    assert "times as fast as teacher" in lines[3]
    assert lines[5] == "written to small"
    assert {"distillation", "quantization"} <= set(lines)
    assert max(map(len, lines)) <= 80
    names = ["manifest.json", "model.onnx", "recipe.json", "weights.safetensors"]
    assert sorted(path.name for path in (folder / "small").iterdir()) == names
    assert not (folder / ".small.work").exists()


def test_json_is_one_object_with_the_record(folder, halve):
    code, out, _ = halve(*COMMON, "--temperature", "2", "--alpha", "1", "--json", "-o", "as-json")
    assert code == 0
    document = json.loads(out)
    assert document["schema"] == "halve.distill/1"
    assert document["recipe"] == json.loads((folder / "as-json" / "recipe.json").read_text())
    (step,) = document["recipe"]["steps"]
    assert (step["parameters"]["temperature"], step["parameters"]["alpha"]) == (2.0, 1.0)
    assert document["judged_by"] == "the teacher's answers"
    assert document["drop"]["baseline"] == 1.0
    assert document["size_bytes"] > 0


def test_texts_become_tables(folder, halve):
    code, out, error = halve(
        "distill", "--teacher", "text_models:bag", "--student", "ngrams", "--data", "log.jsonl", "--payload", "text",
        "--tokenizer", "tokenizer.json", "--epochs", "1", "--json", "-o", "tables",
    )  # fmt: skip
    assert code == 0, error
    assert json.loads(out)["recipe"]["n_training"] > 120, "variations of the texts are learned from too"
    names = ["model.onnx", "recipe.json", "tokenizer.json", "weights.safetensors"]
    assert sorted(path.name for path in (folder / "tables").iterdir()) == names


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (("-o", "."), "out must be a folder that does not exist yet"),
        (
            ("--student", "points.npz"),
            "student must be module:function returning a torch module, or one of convolution, ngrams",
        ),
        (("--teacher", "absent.onnx"), "teacher must be an ONNX file, an endpoint's .json file, or module:function"),
        (("--payload", "nope"), "points.npz must have a column 'nope'"),
        (("--label", "nope"), "points.npz must have a column 'nope'"),
        (("--student", "ngrams"), "student must be a network of yours where payloads are no texts. Got"),
        (("--alpha", "1.5"), "alpha must be in [0, 1]. Got 1.5"),
        (("--temperature", "0"), "temperature must be in (0, 100]. Got 0.0"),
        (("--hold-out", "1.5"), "hold_out must be in (0, 1). Got 1.5"),
        (("--confidence", "0.2"), "confidence must be in (0.5, 1). Got 0.2"),
        (("--label", "classes", "--labels", "a,b"), "must be a class index below 2, the number of labels"),
        (("--augment", "tiny_models:absent"), "augment: 'tiny_models:absent' cannot be imported"),
        (
            ("--teacher", "text_models:bag", "--student", "ngrams", "--data", "log.jsonl", "--payload", "text"),
            "tokenizer must be given for texts. Got None",
        ),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_1(folder, halve, changes, sentence):
    code, out, error = halve(*COMMON, "-o", "bad", *changes)
    assert (code, out) == (1, "")
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
    assert sentence in error
    assert not (folder / "bad").exists()
    assert not (folder / ".bad.work").exists()


def test_wrong_usage_is_two(halve):
    assert halve("distill", "--student", "ngrams", *POINTS, "-o", "x")[0] == 2
    assert halve(*COMMON, "--divergence", "l2", "-o", "x")[0] == 2
    assert "text_models" not in sys.modules
