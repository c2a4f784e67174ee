import hashlib
from dataclasses import replace

import pytest

from halve.core import Model, ModelFile
from halve.engines.files import only_file, verified_files
from halve.errors import ModelError


@pytest.fixture
def model(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "a.onnx").write_bytes(b"abc")
    digest = hashlib.sha256(b"abc").hexdigest()
    return Model(name="m", engine="onnxruntime", files=(ModelFile(path="inner/a.onnx", sha256=digest, size_bytes=3),))


def test_files_are_found_by_their_relative_path(model, tmp_path):
    assert verified_files(model, folder=tmp_path) == {"inner/a.onnx": tmp_path / "inner" / "a.onnx"}


def test_a_changed_file_is_refused_with_both_hashes(model, tmp_path):
    (tmp_path / "inner" / "a.onnx").write_bytes(b"abd")
    both = f"{model.files[0].sha256}. Got '{hashlib.sha256(b'abd').hexdigest()}'"
    with pytest.raises(ModelError, match=both):
        verified_files(model, folder=tmp_path)


def test_a_missing_file_is_named(model, tmp_path):
    with pytest.raises(ModelError, match=r"inner/a\.onnx of model 'm' cannot be read: No such file"):
        verified_files(model, folder=tmp_path / "elsewhere")


@pytest.mark.parametrize("path", ["../a.onnx", "inner/../../a.onnx", "/etc/hostname", "inner/link.onnx"])
def test_a_path_that_leaves_the_folder_is_refused(model, tmp_path, path):
    root = tmp_path / "root"
    (root / "inner").mkdir(parents=True)
    (tmp_path / "a.onnx").write_bytes(b"abc")
    (root / "inner" / "link.onnx").symlink_to(tmp_path / "a.onnx")
    escaping = replace(model, files=(replace(model.files[0], path=path),))
    with pytest.raises(ModelError, match=f"must lie inside .* Got '{path}'"):
        verified_files(escaping, folder=root)


def test_exactly_one_file_of_a_kind(model, tmp_path):
    files = verified_files(model, folder=tmp_path)
    assert only_file(model, files, suffix=".onnx") == tmp_path / "inner" / "a.onnx"
    with pytest.raises(ModelError, match=r"exactly one \.parquet file. Got \['inner/a\.onnx'\]"):
        only_file(model, files, suffix=".parquet")
    with pytest.raises(ModelError, match=r"exactly one \.onnx file"):
        only_file(model, {**files, "b.onnx": tmp_path}, suffix=".onnx")
