import hashlib
import importlib
import json
import math
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from halve.core import Model, ModelFile, Outcomes, Preprocess
from halve.engines.recorded import save_recorded
from halve.engines.torch import save_weights
from halve.techniques.compression.quantization import export_onnx

WORDS = ("the", "cat", "sat", "on", "mat", "dog", "ran", "far", "away", "why", "not", "now", "then", "here", "this")
TEXTS = ("the cat sat", "dog ran far away", "why not", "this is it", "that was then and there it is now", "a", "")


def as_model_file(path: Path) -> ModelFile:
    content = path.read_bytes()
    return ModelFile(path=path.name, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))


@pytest.fixture
def model_file():
    """Return what turns a path into a file of a model in its folder."""
    return as_model_file


@pytest.fixture(scope="session")
def tiny():
    """The module of tiny models, importable by its name."""
    folder = str(Path(__file__).parent / "entries")
    sys.path.insert(0, folder)
    yield importlib.import_module("halve_tiny_models")
    sys.path.remove(folder)


@pytest.fixture(scope="session")
def images():
    return [*np.random.default_rng(5).standard_normal((7, 1, 8, 8)).astype(np.float32)]


@pytest.fixture(scope="session")
def texts():
    return list(TEXTS)


@pytest.fixture(scope="session")
def folder(tiny, images, tmp_path_factory):
    """A folder of weights, ONNX files, a tokenizer and a recording, all of the same two tiny models."""
    import torch

    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    convolution, encoder = tiny.convolution().eval(), tiny.encoder().eval()
    ids = np.arange(24).reshape(3, 8) % 22 + 4
    mask = np.ones_like(ids)
    mask[1, 5:] = 0
    save_weights(convolution, root / "convolution.safetensors")
    save_weights(encoder, root / "encoder.safetensors")
    export_onnx(convolution, {"input": np.stack(images)}, root / "convolution.onnx")
    export_onnx(encoder, {"input_ids": ids, "attention_mask": mask}, root / "encoder.onnx")
    write_tokenizer(root / "tokenizer.json")
    write_recording(root / "recorded.parquet", images)
    return root


def write_tokenizer(path: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing

    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.save(str(path))


def write_recording(path: Path, images) -> None:
    n = len(images)
    probabilities = np.full((n, 4), 0.1, np.float32)
    answers = np.arange(n) % 4
    probabilities[np.arange(n), answers] = 0.7
    outcomes = Outcomes(
        model="recorded",
        answers=answers,
        scores=np.ones(n),
        compute_seconds=np.linspace(0.1, 0.7, n),
        probabilities=probabilities,
    )
    save_recorded(outcomes, path, payloads=images)


@pytest.fixture
def make_model(folder):
    """Return a model over files of the folder."""

    def make(engine, *names, entry=None, text=False, max_tokens=16):
        kind = {"kind": "wordpiece", "tokenizer_file": "tokenizer.json", "max_tokens": max_tokens} if text else {}
        return Model(
            name="tiny",
            engine=engine,
            files=tuple(as_model_file(folder / name) for name in names),
            entry=entry,
            preprocess=Preprocess(**kind),
        )

    return make


@dataclass
class ScriptedServer:
    """An HTTP server on this host that answers as its script says, and remembers what it was asked.

    Args:
        script: From the request's JSON to (status, headers, body); a dict is sent as JSON, None cuts the connection.
        released: Set at the end of the test; a script that waits for it makes a client time out.
    """

    script: Callable | None = None
    requests: list = field(default_factory=list)
    connections: int = 0
    url: str = ""
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def bodies(self):
        return [body for _, _, body in self.requests]


class QuietServer(ThreadingHTTPServer):
    daemon_threads = False  # server_close() waits for them, so that every socket is closed by then

    def handle_error(self, request, client_address):
        """A client that gave up is part of the script."""


@pytest.fixture
def server():
    scripted = ScriptedServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 5
        disable_nagle_algorithm = True

        def setup(self):
            super().setup()
            scripted.connections += 1

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            scripted.requests.append((self.path, dict(self.headers), body))
            reply = scripted.script(body)
            if reply is None:
                self.close_connection = True
                return
            status, headers, content = reply
            if isinstance(content, dict):
                content = json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format, *args):
            """Say nothing."""

    listener = QuietServer(("127.0.0.1", 0), Handler)
    scripted.url = f"http://127.0.0.1:{listener.server_address[1]}/v1"
    thread = threading.Thread(target=listener.serve_forever, args=(0.01,))
    thread.start()
    yield scripted
    scripted.released.set()
    listener.shutdown()
    thread.join()
    listener.server_close()


def tokens_reply(probabilities):
    """Return a chat completion whose first token has these probabilities, {token: probability}."""
    top = [{"token": token, "logprob": math.log(p), "bytes": None} for token, p in probabilities.items()]
    return {"choices": [{"message": {"content": "?"}, "logprobs": {"content": [{**top[0], "top_logprobs": top}]}}]}


def text_reply(text):
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}


@pytest.fixture
def replies():
    """What turns token probabilities, or a text, into a chat completion."""
    return tokens_reply, text_reply
