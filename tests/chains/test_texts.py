from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from halve.chains import read_record, text_student, tokenizer_of, with_variations, word_vectors, write_text_student
from halve.chains.texts import VARIATIONS_PER_TEXT
from halve.core import Model
from halve.engines import engine
from halve.engines.preprocess import preparation
from halve.errors import InvalidParameterError
from halve.measure.artifacts import adopt_files
from halve.testing.tiny_service import untrained


def parts_of(lesson, folder):
    tokenizer = tokenizer_of(lesson.teacher, folder)
    with lesson.opened() as answerer:
        return tokenizer, word_vectors(answerer)


def test_variations_are_new_texts_without_labels(make_text_lesson, tmp_path):
    lesson = make_text_lesson(60)
    tokenizer, vectors = parts_of(lesson, tmp_path)
    labelled = replace(lesson, training=replace(lesson.training, references=np.zeros(len(lesson.training), np.int64)))
    wider = with_variations(labelled, tokenizer=tokenizer, vectors=vectors)
    before, after = list(lesson.training.payloads), list(wider.training.payloads)
    assert after[: len(before)] == before
    assert len(before) < len(after) <= (1 + VARIATIONS_PER_TEXT) * len(before)
    assert max(Counter(after).values()) == 1
    assert set(wider.training.references[: len(before)]) == {0}
    assert set(wider.training.references[len(before) :]) == {-1}
    assert wider.training.sha256 != lesson.training.sha256
    again = with_variations(labelled, tokenizer=tokenizer, vectors=vectors)
    assert again.training.sha256 == wider.training.sha256, "same seed, same texts"


def test_tensors_have_no_ngrams(make_lesson):
    with pytest.raises(
        InvalidParameterError, match=r"student must be a network of yours where payloads are no texts\. Got"
    ):
        with_variations(make_lesson(5), tokenizer=None, vectors=None)


def test_the_student_has_the_teachers_classes_pieces_and_vectors(make_text_lesson, tmp_path):
    lesson = make_text_lesson(40)
    tokenizer, vectors = parts_of(lesson, tmp_path)
    assert vectors.shape == (18, 160)
    read = preparation(lesson.teacher, {"tokenizer.json": tmp_path / "tokenizer.json"})
    one, two = (text_student("ngrams", lesson, tokenizer=tokenizer, vectors=vectors, read=read) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.module.parameters(), two.module.parameters(), strict=True))
    assert one.module.words.weight.shape == (18, 128)
    assert sorted(one.module.special.tolist()) == [0, 1, 2, 3]
    ids, mask = one.read(["play song", "stop"]).values()
    assert one.module(torch.from_numpy(ids), torch.from_numpy(mask)).shape == (2, 3)
    bare = text_student("ngrams", lesson, tokenizer=tokenizer, vectors=None, read=read)
    assert len(bare.module.words.weight) == 18, "without vectors the tokenizer says how many pieces there are"


def test_a_tokenizer_must_be_given(tmp_path):
    with pytest.raises(InvalidParameterError, match=r"tokenizer must be given for texts\. Got None"):
        tokenizer_of(Model(name="teacher", engine="torch"), tmp_path)


def test_a_model_without_tables_shows_no_vectors(make_lesson):
    with make_lesson(3, module=untrained().eval()).opened() as answerer:
        assert word_vectors(answerer) is None


def test_tables_learn_what_the_teacher_answers(make_text_lesson, table_bench, tmp_path):
    lesson, unseen = make_text_lesson(150), make_text_lesson(260)
    known = set(lesson.training.payloads)
    texts = [text for text in unseen.training.payloads if text not in known]
    lesson = replace(lesson, training=replace(lesson.training, epochs=8))
    (tmp_path / "tables").mkdir()
    write_text_student(tmp_path / "tables", kind="ngrams", bench=table_bench(tmp_path), lesson=lesson, name="tables")
    record = read_record(tmp_path / "tables")
    assert record.chain == "distillation"
    assert record.n_training > len(lesson.training), "variations are learned from too"

    files = (*lesson.teacher.files, *adopt_files(tmp_path / "tables", relative_to=tmp_path))
    model = Model(name="tables", engine="onnxruntime", files=files, preprocess=lesson.teacher.preprocess)
    student, teacher = engine("onnxruntime").load(model, threads=1, folder=tmp_path), lesson.load()
    same = student.answer(texts).answers == teacher.answer(texts).answers
    student.close()
    teacher.close()
    assert len(texts) > 60
    assert same.mean() > 0.75
