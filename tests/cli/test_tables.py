import json
import subprocess
import sys

import numpy as np
import pytest

from halve.techniques.compression.quantization import export_onnx
from halve.testing.tiny_service import points, teacher


def halve(*arguments, cwd):
    command = [sys.executable, "-m", "halve.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("quantize")
    inputs, labels = points()
    export_onnx(teacher(), {"input": inputs[:32]}, path / "teacher.onnx")
    np.savez(path / "data.npz", x=inputs[:128], y=labels[:128])
    (path / "network.py").write_text("from halve.testing.tiny_service import teacher\n")
    return path


def test_the_table_says_what_why_and_fits_80_columns(folder):
    done = halve(
        "quantize", "teacher.onnx", "--calibration", "data.npz", "--payload", "x", "--accept-slower", "-o", "int8",
        cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("teacher-int8  W")
    assert "relative RMSE" in lines[1]
    assert "in fp32" in lines[2]
    assert any(line.startswith("layer") and "operator" in line for line in lines)
    assert sum("W8A8" in line or "W7A8" in line for line in lines) >= 2
    table = lines[next(number for number, line in enumerate(lines) if line.startswith("layer")) :]
    assert max(len(line) for line in table if "here" not in line) <= 80
    assert sorted(path.name for path in (folder / "int8").iterdir()) == ["manifest.json", "model.onnx"]


def test_json_is_one_object_with_the_manifest(folder):
    done = halve(
        "quantize", "network:teacher", "--calibration", "data.npz", "--payload", "x", "--label", "y",
        "--bits", "4", "--activation-bits", "4", "--qat", "1", "--accept-slower", "--json", "-o", "w4a4",
        cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == "halve.quantize/1"
    assert document["manifest"]["schema"] == "halve.quantized/1"
    assert document["manifest"] == json.loads((folder / "w4a4" / "manifest.json").read_text())
    assert [layer["bits"] for layer in document["manifest"]["layers"]][-1] == 8


def test_bad_input_is_one_sentence_and_exit_code_1(folder):
    done = halve("quantize", "teacher.onnx", "--calibration", "absent.npz", "-o", "x", cwd=folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.strip() == "error: absent.npz must be a file. There is none."
    again = halve("quantize", "teacher.onnx", "--calibration", "data.npz", "--payload", "x", "-o", ".", cwd=folder)
    assert again.returncode == 1
    assert "out must be a folder that does not exist yet" in again.stderr
