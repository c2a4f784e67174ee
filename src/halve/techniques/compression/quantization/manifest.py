"""What an artifact is and where it was measured: `manifest.json` beside the model, checked where it is loaded.

The file depends on nothing but the inputs and the recorded timings: no date, no path. Reading is strict: a manifest
of another schema, or with a field too many or too few, is refused.

An artifact with 8-bit weights made where products do not saturate is wrong where they do. So loading it repeats the
saturation probe, a matter of milliseconds, and refuses with what to do. Speeds measured on another class of processor
are only worth a warning.
"""

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from halve.errors import InvalidParameterError, ModelError, StorageError
from halve.techniques.compression.quantization.agreement import Agreement
from halve.techniques.compression.quantization.hardware import Probe, gather_probe

SCHEMA = "halve.quantized/1"
FILE_NAME = "manifest.json"
MODEL_NAME = "model.onnx"
FP32_BITS = 32
SATURATING_BITS = 8
"""Weights of so many bits can saturate; of fewer they cannot."""


@dataclass(frozen=True, kw_only=True)
class LayerRecord:
    """One line of the per-layer table.

    Args:
        name, operator: Of the ONNX node.
        bits: Of the weight; 32 is fp32.
        activation_bits: Of what it reads; None where that stays fp32 (fp32 and weight-only layers).
        scheme: In words: `symmetric, per channel`.
        error: Relative RMSE that the layer's quantization causes; None where it was not measured.
        fp32_seconds, int8_seconds: Of the layer alone, on the host of the manifest; None where not measured.
        decision: `int8`, `fp32`, `weight-only`, ...
        reason: One sentence.
    """

    name: str
    operator: str
    bits: int
    activation_bits: int | None
    scheme: str
    error: float | None
    fp32_seconds: float | None
    int8_seconds: float | None
    decision: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A quantized model's papers.

    Args:
        model_sha256: Of `model.onnx`.
        source_sha256: Of the fp32 model.
        calibration_sha256: Of the calibration inputs; None where none were used.
        seed: Of everything that drew.
        method: As asked for: `auto`, `static`, ...
        recipe: What was done, in words.
        weight_bits, activation_bits: As asked for; activation_bits is None for weight-only.
        agreement: With fp32, on inputs that nothing was calibrated on.
        seconds, fp32_seconds: Median of one call of the whole model; None where not measured.
        size_bytes, fp32_size_bytes: Of the ONNX files.
        layers: In topological order.
        probe: The host it was made and measured on.
        versions: Of the libraries that made it, by name.
    """

    model_sha256: str
    source_sha256: str
    calibration_sha256: str | None
    seed: int
    method: str
    recipe: str
    weight_bits: int
    activation_bits: int | None
    agreement: Agreement
    seconds: float | None
    fp32_seconds: float | None
    size_bytes: int
    fp32_size_bytes: int
    layers: tuple[LayerRecord, ...]
    probe: Probe
    versions: dict[str, str]

    @property
    def host_note(self) -> str:
        """Where it was made, and what the probe found there: one sentence."""
        return f"made and measured on {self.probe.hardware.hardware_class}: {self.probe.weight_bits.reason}"

    def to_document(self) -> dict[str, Any]:
        """Return plain values, as in the file."""
        return {"schema": SCHEMA, **asdict(self)}

    def to_json(self) -> str:
        """Return the file's text: the same manifest gives the same."""
        return json.dumps(self.to_document(), indent=2, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, *, name: str = FILE_NAME) -> "Manifest":
        """Read it back.

        Args:
            text: Of the file.
            name: For messages.

        Raises:
            ModelError: If it is no JSON, or not exactly this schema.
        """
        try:
            document = json.loads(text)
        except json.JSONDecodeError as error:
            raise ModelError(f"{name} must be JSON. {error}.") from error
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            found = document.get("schema") if isinstance(document, dict) else document
            raise ModelError(f"schema of {name} must be {SCHEMA!r}. Got {found!r}.")
        manifest: Manifest = _read(cls, {key: value for key, value in document.items() if key != "schema"}, name)
        return manifest

    def write(self, folder: Path) -> None:
        """Write `manifest.json`.

        Raises:
            StorageError: If the file cannot be written.
        """
        path = folder / FILE_NAME
        try:
            path.write_text(self.to_json(), encoding="utf-8")
        except OSError as error:
            raise StorageError.of(path, error) from error


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest of a model folder; None if it has none.

    Raises:
        ModelError: If it is damaged, or of another schema.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} cannot be read: {error}.") from error
    return Manifest.from_json(text, name=str(path))


def check_folder(folder: Path, *, probe: Probe | None = None) -> tuple[str, ...]:
    """Check a model folder before it is loaded; without a manifest there is nothing to check.

    Args:
        folder: Holds `model.onnx` and perhaps `manifest.json`.
        probe: Of this host; gathered if it is needed and not given.

    Returns:
        Warnings, one sentence each.

    Raises:
        ModelError: If the manifest is damaged, is another model's, or the artifact is wrong on this host.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        return ()
    model = folder / MODEL_NAME
    if not model.is_file():
        raise ModelError(f"{model} must exist beside its {FILE_NAME}.")
    if file_sha256(model) != manifest.model_sha256:
        raise ModelError(
            f"{model} must be the file that its {FILE_NAME} describes. It was changed since; make it again."
        )
    return check_host(manifest, probe=probe)


def check_host(manifest: Manifest, *, probe: Probe | None = None) -> tuple[str, ...]:
    """Refuse an artifact that is wrong on this host.

    It is wrong if products of its 8-bit weights saturate here and did not where it was measured. The probe decides,
    not the processor's name.

    Args:
        manifest: The artifact's.
        probe: Of this host; gathered if not given.

    Returns:
        Warnings, one sentence each.

    Raises:
        ModelError: If the artifact is wrong here; says what to do.
        MissingExtraError: If onnx or onnxruntime is not installed.
    """
    here, there = probe or gather_probe(), manifest.probe
    here_class, there_class = here.hardware.hardware_class, there.hardware.hardware_class
    wide = [record.name for record in manifest.layers if _can_saturate(record)]
    if wide and here.saturation.saturates and not there.saturation.saturates:
        worst = f"the worst case is {here.saturation.relative_error:.0%} off"
        raise ModelError(
            f"{len(wide)} of {len(manifest.layers)} layers (first {wide[0]!r}) must not have 8-bit weights here: "
            f"its products saturate ({worst}), those of {there_class}, where the model was quantized, do not. "
            "Quantize it again here, or anywhere with 7-bit weights."
        )
    if here_class != there_class:
        return (f"speeds were measured on {there_class}; on this host, {here_class}, they are not known.",)
    return ()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _can_saturate(record: LayerRecord) -> bool:
    return record.bits == SATURATING_BITS and record.activation_bits is not None


def _read(hint: Any, value: Any, name: str) -> Any:
    """Return a plain value as the type of a field; `name` is where it stands in the document.

    Raises:
        ModelError: If it does not fit.
    """
    if isinstance(hint, UnionType):
        (inner,) = (kind for kind in get_args(hint) if kind is not type(None))
        return None if value is None else _read(inner, value, name)
    if is_dataclass(hint) and isinstance(value, dict):
        return _read_dataclass(hint, value, name)
    if get_origin(hint) is tuple and isinstance(value, list):
        return tuple(_read(get_args(hint)[0], item, f"{name}[{index}]") for index, item in enumerate(value))
    if get_origin(hint) is dict and isinstance(value, dict):
        return {key: _read(get_args(hint)[1], item, f"{name}.{key}") for key, item in value.items()}
    largest = sys.float_info.max
    if hint is float and type(value) in (int, float) and -largest <= value <= largest:
        return float(value)
    if hint is not float and type(value) is hint:
        return value
    kind = getattr(hint, "__name__", str(hint))
    raise ModelError(f"{name} must be {'a finite number' if hint is float else kind}. Got {value!r}.")


def _read_dataclass(kind: Any, value: Mapping[str, Any], name: str) -> Any:
    hints, wanted = get_type_hints(kind), [field.name for field in fields(kind)]
    missing, unknown = [key for key in wanted if key not in value], sorted(set(value) - set(wanted))
    if missing or unknown:
        raise ModelError(f"{name} must have the fields {wanted}. Missing: {missing}; unknown: {unknown}.")
    try:
        return kind(**{key: _read(hints[key], value[key], f"{name}: {key}") for key in wanted})
    except InvalidParameterError as error:
        raise ModelError(f"{name}: {error}") from error
