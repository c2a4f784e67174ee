"""Compression techniques in a row on one model: pruned, taught, put into integers; with one record of all of it."""

from halve.chains.files import CALIBRATION_ROWS, batches_of, first_rows, seconds_as_served, write_integers, write_module
from halve.chains.lesson import HeldOut, Inputs, Lesson, all_cores, module_of
from halve.chains.making import Maker
from halve.chains.mixtures import write_mixture
from halve.chains.placing import Place, asked_first, instead_of_last
from halve.chains.pruned import write_pruned
from halve.chains.recipes import recovery_recipe, shown, student_recipe, text_recipe
from halve.chains.record import ChainRecord, ChainStep, read_record
from halve.chains.students import Student, searched, taught, write_student
from halve.chains.texts import (
    TEXT_STUDENTS,
    TextStudent,
    text_student,
    tokenizer_of,
    with_variations,
    word_vectors,
    write_text_student,
)

__all__ = [
    "CALIBRATION_ROWS",
    "TEXT_STUDENTS",
    "ChainRecord",
    "ChainStep",
    "HeldOut",
    "Inputs",
    "Lesson",
    "Maker",
    "Place",
    "Student",
    "TextStudent",
    "all_cores",
    "asked_first",
    "batches_of",
    "first_rows",
    "instead_of_last",
    "module_of",
    "read_record",
    "recovery_recipe",
    "searched",
    "seconds_as_served",
    "shown",
    "student_recipe",
    "taught",
    "text_recipe",
    "text_student",
    "tokenizer_of",
    "with_variations",
    "word_vectors",
    "write_integers",
    "write_mixture",
    "write_module",
    "write_pruned",
    "write_student",
    "write_text_student",
]
