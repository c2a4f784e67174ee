import subprocess
import sys
from typing import get_args

import pytest

from halve.core import EngineName
from halve.engines import engine
from halve.errors import InvalidParameterError


@pytest.mark.parametrize("name", get_args(EngineName))
def test_every_engine_is_found_by_its_name(name):
    assert engine(name).name == name


def test_an_unknown_engine_lists_the_known_ones():
    with pytest.raises(
        InvalidParameterError,
        match=r"engine must be one of torch, onnxruntime, openvino, openai_http, recorded. Got 'tpu'",
    ):
        engine("tpu")


@pytest.mark.parametrize("name", get_args(EngineName))
def test_threads_must_be_at_least_one(name, make_model, folder):
    with pytest.raises(InvalidParameterError, match=r"threads must be at least 1. Got 0"):
        engine(name).load(make_model(name), threads=0, folder=folder)


def test_naming_engines_and_techniques_loads_no_heavy_library():
    code = (
        "import sys, halve.engines, halve.testing.engine_contract, halve.techniques.compression.quantization;"
        "[halve.engines.engine(name) for name in ('torch', 'onnxruntime', 'openvino', 'openai_http', 'recorded')];"
        "heavy = ('torch', 'onnx', 'onnxruntime', 'openvino', 'tokenizers', 'pyarrow', 'pydantic');"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("torch", "torch", "torch"), ("onnxruntime", "onnxruntime", "onnx"), ("openvino", "openvino", "openvino")],
)
def test_a_missing_library_is_named_with_its_pip_command(name, package, extra, folder, make_model):
    files = {name: "convolution.onnx", "torch": "convolution.safetensors"}
    code = f"""
import hashlib, pathlib, sys
sys.modules[{package!r}] = None
from halve.core import Model, ModelFile
from halve.engines import engine
from halve.errors import MissingExtraError
folder = pathlib.Path({str(folder)!r})
digest = hashlib.sha256((folder / {files[name]!r}).read_bytes()).hexdigest()
file = ModelFile(path={files[name]!r}, sha256=digest, size_bytes=1)
model = Model(name="m", engine={name!r}, files=(file,), entry="a:b")
try:
    engine({name!r}).load(model, threads=1, folder=folder)
except MissingExtraError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"the {name} engine needs {package}: pip install 'halve[{extra}]'"
