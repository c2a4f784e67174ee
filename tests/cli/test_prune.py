import json

import pytest

from halve.cli import main
from halve.testing.tiny_service import write_service

WIDE = "from halve.testing.tiny_service import teacher\n\n\ndef wide():\n    return teacher(width=1024)\n"
COMMON = ("prune", "wide_models:wide", "--data", "points.npz", "--payload", "inputs", "--epochs", "2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The tiny service, and its teacher made much too wide."""
    path = tmp_path_factory.mktemp("prune")
    write_service(path, examples=400)
    (path / "wide_models.py").write_text(WIDE)
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


@pytest.mark.slow
def test_json_is_one_object_with_the_record(folder, halve):
    code, out, error = halve(
        *COMMON, "--target-latency-ratio", "0.6", "--importance", "magnitude", "--label", "classes", "--int8", "--json",
        "-o", "small",
    )  # fmt: skip
    assert code == 0, error
    document = json.loads(out)
    assert document["schema"] == "halve.prune/1"
    assert document["recipe"] == json.loads((folder / "small" / "recipe.json").read_text())
    cut, taught, rounded = document["recipe"]["steps"]
    assert cut["parameters"] == {"target_latency_ratio": 0.6, "importance": "magnitude"}
    assert taught["parameters"]["epochs"] == 2
    assert rounded["technique"] == "quantization"
    assert document["judged_by"] == "labels"
    names = ["manifest.json", "model.onnx", "pruned.json", "recipe.json", "weights.safetensors"]
    assert sorted(path.name for path in (folder / "small").iterdir()) == names
    assert not (folder / ".small.work").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (("-o", "."), "out must be a folder that does not exist yet"),
        (("--target-latency-ratio", "1.5"), "target_latency_ratio must be in (0, 1). Got 1.5"),
        (("--learning-rate", "-1"), "learning_rate must be positive. Got -1.0"),
        (("--payload", "nope"), "points.npz must have a column 'nope'"),
        (("--hold-out", "0"), "hold_out must be in (0, 1). Got 0.0"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_1(folder, halve, changes, sentence):
    code, out, error = halve(*COMMON, "-o", "bad", *changes)
    assert (code, out) == (1, "")
    assert len(error.splitlines()) == 1
    assert sentence in error
    assert not (folder / ".bad.work").exists()


def test_a_file_cannot_be_pruned(folder, halve):
    from halve.techniques.compression.quantization import export_onnx
    from halve.testing.tiny_service import points, untrained

    export_onnx(untrained(), {"input": points()[0][:8]}, folder / "file.onnx")
    code, _, error = halve("prune", "file.onnx", *COMMON[2:], "-o", "bad")
    assert (code, len(error.splitlines())) == (1, 1)
    assert "must be a torch module to be changed. It is a file" in error
    assert halve("prune", "absent.onnx", *COMMON[2:], "-o", "bad")[2].startswith("error: model must be an ONNX file")
