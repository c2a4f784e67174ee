"""Compression techniques in a row on one model: pruned, taught, put into integers; with one record of all of it."""

from halve.chains.files import CALIBRATION_ROWS, batches_of, first_rows, seconds_as_served, write_integers, write_module
from halve.chains.lesson import HeldOut, Inputs, Lesson, all_cores, module_of
from halve.chains.making import Maker
from halve.chains.mixtures import write_mixture
from halve.chains.ngrams import ngram_student, tokenizer_of, with_variations, word_vectors, write_ngrams
from halve.chains.pruned import write_pruned
from halve.chains.recipes import ngram_recipe, recovery_recipe, shown, student_recipe
from halve.chains.record import ChainRecord, ChainStep, read_record
from halve.chains.students import Student, searched, taught, write_student

__all__ = [
    "CALIBRATION_ROWS",
    "ChainRecord",
    "ChainStep",
    "HeldOut",
    "Inputs",
    "Lesson",
    "Maker",
    "Student",
    "all_cores",
    "batches_of",
    "first_rows",
    "module_of",
    "ngram_recipe",
    "ngram_student",
    "read_record",
    "recovery_recipe",
    "searched",
    "seconds_as_served",
    "shown",
    "student_recipe",
    "taught",
    "tokenizer_of",
    "with_variations",
    "word_vectors",
    "write_integers",
    "write_mixture",
    "write_module",
    "write_ngrams",
    "write_pruned",
    "write_student",
]
