import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from halve.core import Example
from halve.errors import WorkloadError
from halve.workload import encode_references, examples_from, read_examples, read_payloads

IMAGES = np.arange(12, dtype=np.float64).reshape(3, 2, 2)
CLASSES = np.array([0, 2, 0], dtype=np.uint8)


def read(path: Path) -> list[Example]:
    return read_examples(path, payload="x", reference="y")


def plain(examples: list[Example]) -> list[tuple[object, object]]:
    return [(e.payload if isinstance(e.payload, str) else e.payload.tolist(), e.reference) for e in examples]


def jsonl(folder: Path, *rows: object) -> Path:
    path = folder / "examples.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def csv(folder: Path, *cells: tuple[str, str]) -> Path:
    path = folder / "examples.csv"
    path.write_text("x,y\n" + "".join(f"{left},{right}\n" for left, right in cells))
    return path


def npz(folder: Path, **given: object) -> Path:
    path = folder / "examples.npz"
    np.savez_compressed(path, **given)  # type: ignore[arg-type]
    return path


def parquet(folder: Path, **columns: object) -> Path:
    path = folder / "examples.parquet"
    pq.write_table(pa.table(columns), path)
    return path


class TestFormats:
    """The same examples read the same out of every file that can hold them."""

    def test_tensors(self, tmp_path: Path) -> None:
        rows = [{"x": image.tolist(), "y": int(c), "more": 1} for image, c in zip(IMAGES, CLASSES, strict=True)]
        expected = [(image.tolist(), int(c)) for image, c in zip(IMAGES, CLASSES, strict=True)]
        for path in (
            jsonl(tmp_path, *rows),
            npz(tmp_path, x=IMAGES, y=CLASSES),
            parquet(tmp_path, x=IMAGES.tolist(), y=CLASSES),
        ):
            examples = read(path)
            assert plain(examples) == expected
            assert {(e.payload.dtype, type(e.reference)) for e in examples} == {(np.dtype(np.float32), int)}

    def test_flat_lists_in_parquet(self, tmp_path: Path) -> None:
        for kind in (pa.list_(pa.float32()), pa.list_(pa.int8(), 2), pa.large_list(pa.float64())):
            examples = read(parquet(tmp_path, x=pa.array([[1, 2], [3, 4]], kind), y=["a", "b"]))
            assert plain(examples) == [([1.0, 2.0], "a"), ([3.0, 4.0], "b")]
            assert examples[0].payload.dtype == np.float32

    def test_texts(self, tmp_path: Path) -> None:
        expected = [("ja, gut", "pos"), ("", "neg")]
        quoted = tmp_path / "quoted.csv"
        quoted.write_text('y,x\npos,"ja, gut"\nneg,\n')
        for path in (
            jsonl(tmp_path, {"x": "ja, gut", "y": "pos"}, "", {"x": "", "y": "neg"}),
            quoted,
            npz(tmp_path, x=np.array(["ja, gut", ""]), y=np.array(["pos", "neg"])),
            parquet(tmp_path, x=["ja, gut", ""], y=["pos", "neg"]),
        ):
            examples = read(path)
            assert plain(examples) == expected
            assert {(type(e.payload), type(e.reference)) for e in examples} == {(str, str)}

    def test_whole_numbers_in_csv_are_class_indices(self, tmp_path: Path) -> None:
        assert plain(read(csv(tmp_path, ("a", "1"), ("b", "0")))) == [("a", 1), ("b", 0)]
        assert plain(read(csv(tmp_path, ("a", "1"), ("b", "x")))) == [("a", "1"), ("b", "x")]

    def test_suffix_in_capitals(self, tmp_path: Path) -> None:
        assert len(read(csv(tmp_path, ("a", "1"), ("b", "0")).rename(tmp_path / "E.CSV"))) == 2

    @given(
        images=arrays.arrays(np.float32, (4, 3), elements=st.floats(allow_nan=False, allow_infinity=False, width=32)),
        classes=st.lists(st.integers(0, 9), min_size=4, max_size=4).filter(lambda c: len(set(c)) > 1),
    )
    @settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_npz_and_parquet_are_exact(self, tmp_path: Path, images: np.ndarray, classes: list[int]) -> None:
        expected = [(image.tolist(), c) for image, c in zip(images, classes, strict=True)]
        assert plain(read(npz(tmp_path, x=images, y=np.array(classes)))) == expected
        assert plain(read(parquet(tmp_path, x=list(images), y=classes))) == expected


class TestFilesThatCannotBeUsed:
    @pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet", "npz"])
    def test_missing_and_empty(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"examples.{suffix}"
        with pytest.raises(WorkloadError, match=rf"examples\.{suffix} must be a file\. There is none\."):
            read(path)
        path.touch()
        with pytest.raises(WorkloadError, match=rf"examples\.{suffix} must hold at least 1 row\. It is empty\."):
            read(path)

    def test_unknown_suffix(self, tmp_path: Path) -> None:
        with pytest.raises(WorkloadError, match=r"must end in \.jsonl, \.csv, \.parquet, \.npz\. Got '\.pkl'"):
            read(tmp_path / "examples.pkl")

    def test_missing_column_names_the_near_one(self, tmp_path: Path) -> None:
        for path in (
            jsonl(tmp_path, {"x": "a", "label": 0}),
            npz(tmp_path, x=np.array(["a"]), label=np.array([0])),
            parquet(tmp_path, x=["a"], label=[0]),
        ):
            with pytest.raises(WorkloadError, match=r"must have a column 'labels'\. Did you mean 'label'\?"):
                read_examples(path, payload="x", reference="labels")

    @pytest.mark.parametrize("suffix", ["parquet", "npz"])
    @pytest.mark.parametrize("content", [b"not a table", b"PAR1", b"\x93NUMPY", b"PK\x03\x04", b"\x80\x04."])
    def test_damaged(self, tmp_path: Path, suffix: str, content: bytes) -> None:
        path = tmp_path / f"examples.{suffix}"
        path.write_bytes(content)
        with pytest.raises(WorkloadError, match=r"must be a readable (Parquet|NPZ) file"):
            read(path)

    @given(data=st.data())
    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_a_cut_or_flipped_file_is_read_or_refused_in_words(self, tmp_path: Path, data: st.DataObject) -> None:
        if data.draw(st.booleans()):
            path = npz(tmp_path, x=IMAGES, y=CLASSES)
        else:
            path = parquet(tmp_path, x=IMAGES.reshape(3, 4).tolist(), y=CLASSES)
        content = bytearray(path.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
        try:
            read(path)
        except WorkloadError as error:
            refusal = str(error)
        else:
            refusal = ""
        assert refusal == "" or str(path) in refusal

    def test_a_single_array_is_no_npz(self, tmp_path: Path) -> None:
        with (tmp_path / "examples.npz").open("wb") as file:
            np.save(file, IMAGES)
        with pytest.raises(WorkloadError, match="it holds a single array without a name"):
            read(tmp_path / "examples.npz")

    def test_python_objects_in_npz_are_not_unpickled(self, tmp_path: Path) -> None:
        with pytest.raises(WorkloadError, match="readable NPZ file without Python objects"):
            read(npz(tmp_path, x=np.array(["a", None], dtype=object), y=np.array([0, 1])))

    def test_an_npz_value_without_rows(self, tmp_path: Path) -> None:
        with pytest.raises(WorkloadError, match=r"array 'y' of .* must have one row per example"):
            read(npz(tmp_path, x=IMAGES, y=np.array(1)))

    def test_lengths_that_differ(self, tmp_path: Path) -> None:
        with pytest.raises(WorkloadError, match=r"must hold one reference per payload\. Got 3 and 2\."):
            read(npz(tmp_path, x=IMAGES, y=CLASSES[:2]))

    def test_no_rows(self, tmp_path: Path) -> None:
        with pytest.raises(WorkloadError, match=r"must hold at least 1 row\. Got 0\."):
            read(npz(tmp_path, x=IMAGES[:0], y=CLASSES[:0]))

    @pytest.mark.parametrize(
        ("line", "message"),
        [("{oops", "line 2 of .* must be JSON"), ("[1, 2]", r"line 2 of .* JSON object\. Got \[1, 2\]")],
    )
    def test_line_that_is_no_object(self, tmp_path: Path, line: str, message: str) -> None:
        with pytest.raises(WorkloadError, match=message):
            read(jsonl(tmp_path, {"x": "a", "y": 0}, line))

    def test_jsonl_that_is_not_utf8(self, tmp_path: Path) -> None:
        (tmp_path / "examples.jsonl").write_bytes(b"\xff\xfe{}")
        with pytest.raises(WorkloadError, match="must be UTF-8"):
            read(tmp_path / "examples.jsonl")


class TestRowsThatCannotBeUsed:
    @pytest.mark.parametrize("bad", [0.5, None, [1], True, -1, "", {"a": 1}, float("nan")])
    def test_reference_that_is_neither_index_nor_text(self, tmp_path: Path, bad: object) -> None:
        with pytest.raises(
            WorkloadError, match=r"reference of row 2 of .* must be a class index from 0, or a text\. Got"
        ):
            read(jsonl(tmp_path, {"x": "a", "y": 0}, {"x": "b", "y": bad}))

    def test_measurements_in_csv_are_no_classes(self, tmp_path: Path) -> None:
        with pytest.raises(WorkloadError, match=r"reference of row 1 of .* class index from 0, or a text\. Got 1\.0\."):
            read(csv(tmp_path, ("a", "1"), ("b", "0.5")))

    def test_float_references_in_npz(self, tmp_path: Path) -> None:
        with pytest.raises(WorkloadError, match=r"reference of row 1 .* Got 0\.0\."):
            read(npz(tmp_path, x=IMAGES, y=CLASSES.astype(float)))

    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e300])
    def test_number_that_is_not_finite_in_float32(self, tmp_path: Path, bad: float) -> None:
        rows = [{"x": [[1.0, 2.0]], "y": 0}, {"x": [[1.0, bad]], "y": 1}]
        message = rf"payload of row 2 of .* must be finite numbers that float32 holds\. Got {bad}".replace("+", r"\+")
        with pytest.raises(WorkloadError, match=message):
            read(jsonl(tmp_path, *rows))

    def test_missing_number_in_parquet(self, tmp_path: Path) -> None:
        with pytest.raises(WorkloadError, match=r"payload of row 2 of .* Got nan"):
            read(parquet(tmp_path, x=[[1.0, 2.0], [None, 1.0]], y=[0, 1]))

    def test_shapes_that_differ(self, tmp_path: Path) -> None:
        rows = [{"x": [1, 2], "y": 0}, {"x": [3, 4], "y": 1}, {"x": [5], "y": 1}]
        message = r"payload of row 3 of .* must be a tensor of shape \(2,\), like row 1\. Got a tensor of shape \(1,\)"
        with pytest.raises(WorkloadError, match=message):
            read(jsonl(tmp_path, *rows))

    def test_text_among_tensors(self, tmp_path: Path) -> None:
        with pytest.raises(
            WorkloadError, match=r"payload of row 2 of .* must be a tensor of shape \(1,\).* Got a text"
        ):
            read(jsonl(tmp_path, {"x": [1], "y": 0}, {"x": "b", "y": 1}))

    def test_index_among_texts(self, tmp_path: Path) -> None:
        with pytest.raises(WorkloadError, match=r"reference of row 2 of .* must be a text, like row 1\. Got 1\."):
            read(jsonl(tmp_path, {"x": "a", "y": "cat"}, {"x": "b", "y": 1}))

    @pytest.mark.parametrize("bad", [None, 5, [[1], [2, 3]], ["a", "b"], {"k": 1}, [None], 1 + 2j])
    def test_payload_that_is_neither_text_nor_numbers(self, bad: object) -> None:
        with pytest.raises(
            WorkloadError, match=r"payload of row 2 of .* must be a text, or numbers in a regular shape\."
        ):
            examples_from(([[1], bad], [0, 1]))

    def test_long_values_are_cut(self) -> None:
        with pytest.raises(WorkloadError, match=r"Got \['a', .*\.\.\.\.$"):
            examples_from(([[1], ["a"] * 1000], [0, 1]))

    def test_one_class(self, tmp_path: Path) -> None:
        message = r"at least 2 classes\. All 2 are 'cat': quality cannot be measured with one class"
        with pytest.raises(WorkloadError, match=message):
            read(csv(tmp_path, ("a", "cat"), ("b", "cat")))


class TestExamplesFromAFunction:
    def test_pair_of_arrays(self) -> None:
        examples = examples_from((IMAGES, CLASSES))
        assert [e.reference for e in examples] == [0, 2, 0]
        assert {type(e.reference) for e in examples} == {int}
        assert np.array_equal([e.payload for e in examples], IMAGES)

    def test_pair_of_lists(self) -> None:
        assert plain(examples_from((["a", "b"], ["x", "y"]))) == [("a", "x"), ("b", "y")]

    def test_examples_by_the_piece(self) -> None:
        given = [Example(payload="a", reference=0), Example(payload="b", reference=1)]
        assert examples_from(iter(given)) == given
        assert examples_from(tuple(given)) == given

    def test_numpy_scalars_become_python(self) -> None:
        examples = examples_from((np.array(["a", "b"]), [np.int32(1), np.array(0)]))
        assert [(type(e.payload), type(e.reference)) for e in examples] == [(str, int)] * 2

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (
                None,
                r"the examples function must return \(payloads, references\), or an iterable of Example\. Got NoneType",
            ),
            (["a", "b"], r"row 1 of the examples function must be an Example\. Got str"),
            (("ab", [0, 1]), r"payloads of the examples function must be a sequence\. Got str"),
            ((["a", "b"], 3), r"references of the examples function must be a sequence\. Got int"),
            ((["a"], [0, 1]), r"one reference per payload\. Got 1 and 2"),
            ([], r"must hold at least 1 row\. Got 0"),
            ((["a", "b"], [None, 1]), r"reference of row 1 of the examples function .* Got None"),
        ],
    )
    def test_anything_else_is_refused(self, value: object, message: str) -> None:
        with pytest.raises(WorkloadError, match=message):
            examples_from(value)


class TestEncodeReferences:
    TEXTS = (Example(payload="a", reference="dog"), Example(payload="b", reference="cat"))
    INDICES = (Example(payload="a", reference=1), Example(payload="b", reference=0))

    def test_labels_become_their_positions(self) -> None:
        assert [e.reference for e in encode_references(self.TEXTS, ["cat", "dog"])] == [1, 0]

    def test_indices_and_payloads_stay(self) -> None:
        assert encode_references(self.INDICES, ["cat", "dog"]) == list(self.INDICES)

    def test_without_labels_nothing_changes(self) -> None:
        assert encode_references(self.TEXTS, ()) == list(self.TEXTS)

    @given(labels=st.lists(st.text("abc", min_size=1), min_size=1, unique=True), data=st.data())
    def test_decoding_gives_the_label_back(self, labels: list[str], data: st.DataObject) -> None:
        given = data.draw(st.lists(st.sampled_from(labels), min_size=1))
        encoded = encode_references([Example(payload="", reference=label) for label in given], labels)
        assert [labels[int(e.reference)] for e in encoded] == given

    def test_unknown_label_names_the_near_one(self) -> None:
        with pytest.raises(
            WorkloadError, match=r"reference of row 2 must be one of the labels\. Got 'cat'\. Did you mean 'cats'"
        ):
            encode_references(self.TEXTS, ["dog", "cats"])
        with pytest.raises(WorkloadError, match=r"reference of row 1 must be one of the labels\. Got 'dog'\.$"):
            encode_references(self.TEXTS, ["xyz"])

    def test_index_beyond_the_labels(self) -> None:
        with pytest.raises(WorkloadError, match=r"row 1 must be a class index below 1, the number of labels\. Got 1\."):
            encode_references(self.INDICES, ["cat"])

    def test_labels_that_are_numbers_out_of_place_could_mean_two_things(self) -> None:
        assert encode_references(self.INDICES, ["0", "1"]) == list(self.INDICES)
        with pytest.raises(WorkloadError, match=r"label '1' must stand at its own index.* It stands at 0\."):
            encode_references(self.INDICES, ["1", "0"])


class TestPayloadsAlone:
    def test_no_references_are_needed(self, tmp_path: Path) -> None:
        expected = [image.tolist() for image in IMAGES]
        for path in (
            jsonl(tmp_path, *({"x": image.tolist()} for image in IMAGES)),
            npz(tmp_path, x=IMAGES),
            parquet(tmp_path, x=IMAGES.tolist()),
        ):
            assert [payload.tolist() for payload in read_payloads(path, payload="x")] == expected
        assert read_payloads(csv(tmp_path, ("1", "a"), ("2", "a")), payload="x") == ["1", "2"]

    def test_the_rules_of_payloads_hold(self, tmp_path: Path) -> None:
        with pytest.raises(WorkloadError, match=r"payload of row 2 of .* must be a text, like row 1. Got a tensor"):
            read_payloads(jsonl(tmp_path, {"x": "a"}, {"x": [1.0]}), payload="x")
        with pytest.raises(WorkloadError, match=r"must have a column 'z'\. It has x"):
            read_payloads(npz(tmp_path, x=IMAGES), payload="z")
        with pytest.raises(WorkloadError, match=r"must hold at least 1 row\. Got 0"):
            read_payloads(jsonl(tmp_path, "\n"), payload="x")
