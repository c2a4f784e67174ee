import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.errors import ModelError, StorageError
from halve.techniques.compression.quantization.agreement import Agreement
from halve.techniques.compression.quantization.hardware import Hardware, Probe, Saturation
from halve.techniques.compression.quantization.manifest import (
    LayerRecord,
    Manifest,
    check_folder,
    check_host,
    file_sha256,
    read_manifest,
)

TEXT = st.text(max_size=12)
NUMBER = st.floats(0, 1e6, allow_nan=False)
PROBES = st.builds(
    Probe,
    hardware=st.builds(
        Hardware, architecture=TEXT, instruction_sets=st.lists(st.sampled_from(["avx2", "i8mm"]), max_size=2).map(tuple)
    ),
    saturation=st.builds(Saturation, saturates=st.booleans(), relative_error=NUMBER),
)
RECORDS = st.builds(
    LayerRecord,
    name=TEXT,
    operator=TEXT,
    bits=st.integers(2, 32),
    activation_bits=st.none() | st.integers(2, 8),
    scheme=TEXT,
    error=st.none() | NUMBER,
    fp32_seconds=st.none() | NUMBER,
    int8_seconds=st.none() | NUMBER,
    decision=TEXT,
    reason=TEXT,
)
MANIFESTS = st.builds(
    Manifest,
    model_sha256=TEXT,
    source_sha256=TEXT,
    calibration_sha256=st.none() | TEXT,
    seed=st.integers(0, 2**40),
    method=TEXT,
    recipe=TEXT,
    weight_bits=st.integers(2, 8),
    activation_bits=st.none() | st.integers(2, 8),
    agreement=st.builds(Agreement, argmax_disagreement_share=st.floats(0, 1), relative_rmse=NUMBER, n=st.integers(1)),
    seconds=st.none() | NUMBER,
    fp32_seconds=st.none() | NUMBER,
    size_bytes=st.integers(0),
    fp32_size_bytes=st.integers(0),
    layers=st.lists(RECORDS, max_size=3).map(tuple),
    probe=PROBES,
    versions=st.dictionaries(TEXT, TEXT, max_size=3),
)

VNNI = Probe(
    hardware=Hardware(architecture="x86", instruction_sets=("avx2", "avx512f", "avx512_vnni")),
    saturation=Saturation(saturates=False, relative_error=0.0),
)
AVX2 = Probe(
    hardware=Hardware(architecture="x86", instruction_sets=("avx2",)),
    saturation=Saturation(saturates=True, relative_error=0.494),
)


def record(*, bits=8, activation_bits: int | None = 8):
    return LayerRecord(
        name="conv1", operator="Conv", bits=bits, activation_bits=activation_bits, scheme="symmetric, per channel",
        error=0.01, fp32_seconds=2e-4, int8_seconds=1e-4, decision="int8", reason="faster in INT8 here",
    )  # fmt: skip


def manifest(*records, probe=VNNI, model_sha256="ab"):
    return Manifest(
        model_sha256=model_sha256, source_sha256="cd", calibration_sha256="ef", seed=0, method="auto",
        recipe="W8A8, minmax ranges", weight_bits=8, activation_bits=8,
        agreement=Agreement(argmax_disagreement_share=0.01, relative_rmse=0.02, n=100), seconds=1e-3,
        fp32_seconds=2e-3, size_bytes=100, fp32_size_bytes=400, layers=records, probe=probe,
        versions={"onnxruntime": "1.32.0"},
    )  # fmt: skip


@given(MANIFESTS)
def test_what_is_written_is_read(written):
    assert Manifest.from_json(written.to_json()) == written


@given(MANIFESTS)
def test_the_text_depends_on_the_values_alone(written):
    reordered = replace(written, versions=dict(reversed(written.versions.items())))
    assert reordered.to_json() == written.to_json()
    assert json.loads(written.to_json()) == json.loads(json.dumps(written.to_document()))


def edited(change):
    document = manifest(record()).to_document()
    change(document)
    return json.dumps(document)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", r"manifest\.json must be JSON\. Expecting"),
        ("[]", r"schema of manifest\.json must be 'halve\.quantized/1'\. Got \[\]"),
        (edited(lambda d: d.update(schema="halve.quantized/2")), r"schema of .* Got 'halve\.quantized/2'"),
        (edited(lambda d: d.pop("schema")), r"schema of .* Got None"),
        (edited(lambda d: d.pop("seed")), r"manifest\.json must have the fields .*Missing: \['seed'\]; unknown: \[\]"),
        (edited(lambda d: d.update(date="today")), r"Missing: \[\]; unknown: \['date'\]"),
        (edited(lambda d: d.update(seed=True)), r"manifest\.json: seed must be int\. Got True"),
        (edited(lambda d: d.update(seed="1")), r"manifest\.json: seed must be int\. Got '1'"),
        (edited(lambda d: d.update(layers={})), r"manifest\.json: layers must be tuple"),
        (edited(lambda d: d["layers"][0].pop("bits")), r"manifest\.json: layers\[0\] must have the fields"),
        (edited(lambda d: d["layers"][0].update(error="low")), r"layers\[0\]: error must be a finite number"),
        (edited(lambda d: d["versions"].update(onnx=1)), r"manifest\.json: versions\.onnx must be str\. Got 1"),
        (edited(lambda d: d["probe"].update(hardware=3)), r"manifest\.json: probe: hardware must be Hardware\. Got 3"),
        (edited(lambda d: d["agreement"].update(relative_rmse=1e400)), r"relative_rmse must be a finite number"),
    ],
)
def test_what_is_not_exactly_this_schema_is_refused(text, problem):
    with pytest.raises(ModelError, match=problem):
        Manifest.from_json(text)


def test_a_whole_number_is_a_number():
    assert Manifest.from_json(edited(lambda d: d.update(seconds=2))).seconds == 2.0


def test_eight_bits_made_where_nothing_saturates_are_refused_where_it_does():
    with pytest.raises(ModelError, match=r"1 of 2 layers \(first 'conv1'\) must not have 8-bit weights here: ") as info:
        check_host(manifest(record(), record(bits=7)), probe=AVX2)
    assert "those of x86-avx512-vnni, where the model was quantized, do not" in str(info.value)
    assert "Quantize it again here, or anywhere with 7-bit weights." in str(info.value)


@pytest.mark.parametrize("made", [record(bits=7), record(bits=4), record(bits=32), record(activation_bits=None)])
def test_what_cannot_saturate_only_warns_of_its_speed(made):
    (warning,) = check_host(manifest(made), probe=AVX2)
    assert warning == "speeds were measured on x86-avx512-vnni; on this host, x86-avx2, they are not known."


def test_what_was_measured_as_it_saturates_is_known():
    assert check_host(manifest(record(), probe=AVX2), probe=AVX2) == ()
    assert len(check_host(manifest(record(), probe=AVX2), probe=VNNI)) == 1


def test_the_name_of_the_processor_decides_nothing():
    """The host claims VNNI, its products saturate: an emulator."""
    claims = Probe(hardware=VNNI.hardware, saturation=AVX2.saturation)
    with pytest.raises(ModelError, match="must not have 8-bit weights here"):
        check_host(manifest(record()), probe=claims)


def test_this_host_is_probed_if_nobody_did():
    from halve.techniques.compression.quantization.hardware import gather_probe

    assert check_host(manifest(record(), probe=gather_probe())) == ()


def test_the_note_says_where_and_why():
    assert manifest().host_note.startswith("made and measured on x86-avx512-vnni: 8-bit products do not saturate")


def test_a_folder_is_checked_with_its_model(tmp_path):
    assert check_folder(tmp_path) == ()
    assert read_manifest(tmp_path) is None
    model = tmp_path / "model.onnx"
    model.write_bytes(b"model")
    made = manifest(record(), model_sha256=file_sha256(model))
    made.write(tmp_path)
    assert read_manifest(tmp_path) == made
    assert check_folder(tmp_path, probe=VNNI) == ()
    with pytest.raises(ModelError, match="must not have 8-bit weights here"):
        check_folder(tmp_path, probe=AVX2)
    model.write_bytes(b"another")
    with pytest.raises(ModelError, match=r"model\.onnx must be the file that its manifest\.json describes"):
        check_folder(tmp_path, probe=VNNI)
    model.unlink()
    with pytest.raises(ModelError, match=r"model\.onnx must exist beside its manifest\.json"):
        check_folder(tmp_path, probe=VNNI)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "manifest.json").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ModelError, match=r"manifest\.json cannot be read"):
        check_folder(tmp_path)


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(StorageError, match=r"manifest\.json could not be written"):
        manifest().write(tmp_path / "absent")
