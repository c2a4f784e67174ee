from dataclasses import replace

from halve.core import Model, ModelFile, Preprocess

MODEL = Model(
    name="m",
    engine="onnxruntime",
    files=(ModelFile(path="a", sha256="1" * 64, size_bytes=5), ModelFile(path="b", sha256="2" * 64, size_bytes=7)),
)


def test_size_is_the_sum_of_its_files() -> None:
    assert MODEL.size_bytes == 12


def test_the_fingerprint_follows_the_bytes_not_the_names() -> None:
    renamed = replace(MODEL, name="other", files=tuple(reversed(MODEL.files)))
    assert renamed.fingerprint == MODEL.fingerprint
    changed = (replace(MODEL.files[0], sha256="3" * 64), MODEL.files[1])
    assert replace(MODEL, files=changed).fingerprint != MODEL.fingerprint
    assert replace(MODEL, preprocess=Preprocess(max_tokens=1)).fingerprint != MODEL.fingerprint
    assert replace(MODEL, entry="m:f").fingerprint != MODEL.fingerprint
