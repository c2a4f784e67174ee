import sys

import pytest

from halve.assembly import entries
from halve.errors import ConfigError, UserError, WorkloadError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from halve.errors import WorkloadError\n"
        "NUMBER = 3\n"
        "def three(): return NUMBER\n"
        "def breaks(): raise KeyError('lost')\n"
        "def ours(): raise WorkloadError('no data today.')\n"
    )
    (tmp_path / "broken.py").write_text("import a_module_that_is_not_there\n")
    return tmp_path


def test_a_function_beside_the_config_is_called(folder):
    with entries.importable(folder):
        assert entries.call("mine:three", field="examples.entry") == 3


def test_the_folder_leaves_the_import_path_and_its_modules_are_forgotten(folder, tmp_path_factory):
    path = list(sys.path)
    with entries.importable(folder):
        entries.call("mine:three", field="f")
    assert sys.path == path
    assert "mine" not in sys.modules
    other = tmp_path_factory.mktemp("other")
    (other / "mine.py").write_text("def three(): return 'three'\n")
    with entries.importable(other):
        assert entries.call("mine:three", field="f") == "three"


def test_modules_from_elsewhere_stay(folder):
    sys.modules.pop("colorsys", None)
    with entries.importable(folder):
        assert entries.resolve("colorsys:rgb_to_hsv", field="f")
    assert "colorsys" in sys.modules


def test_the_path_is_mended_after_a_failure(folder):
    path = list(sys.path)
    with pytest.raises(ZeroDivisionError), entries.importable(folder):
        raise ZeroDivisionError
    assert sys.path == path


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ("mine", "field: it must be 'module:function'. Got 'mine'."),
        (":three", "field: it must be 'module:function'. Got ':three'."),
        ("mine:", "field: it must be 'module:function'. Got 'mine:'."),
        ("mine:NUMBER", "field: 'mine:NUMBER' must be a function. Got int."),
        ("nowhere:three", "field: 'nowhere:three' cannot be imported: ModuleNotFoundError: No module named 'nowhere'."),
        ("mine:four", "AttributeError: module 'mine' has no attribute 'four'"),
        ("broken:three", "No module named 'a_module_that_is_not_there'"),
    ],
)
def test_an_entry_that_names_no_function_is_refused_in_a_sentence(folder, entry, sentence):
    with entries.importable(folder), pytest.raises(ConfigError) as caught:
        entries.resolve(entry, field="field")
    assert sentence in str(caught.value)


def test_what_the_users_code_raises_is_reported_as_theirs(folder):
    with entries.importable(folder):
        with pytest.raises(UserError, match=r"examples\.entry: mine:breaks raised KeyError: 'lost'"):
            entries.call("mine:breaks", field="examples.entry")
        with pytest.raises(WorkloadError, match=r"^no data today\.$"):
            entries.call("mine:ours", field="examples.entry")


def test_edited_code_is_another_question_also_where_it_is_only_imported(folder):
    (folder / "near.py").write_text("import far\nVALUE = 1\n")
    (folder / "far.py").write_text("VALUE = 1\n")
    (folder / "unrelated.py").write_text("VALUE = 1\n")
    (folder / "mine.py").write_text("from near import VALUE\n\n\ndef three():\n    return VALUE\n")

    def found() -> str:
        with entries.importable(folder):
            return entries.source_hash("mine:three", field="f")

    before = found()
    (folder / "unrelated.py").write_text("VALUE = 2\n")
    assert found() == before
    (folder / "far.py").write_text("VALUE = 3\n")
    assert found() != before


def test_built_in_code_has_no_file(folder):
    with entries.importable(folder):
        assert entries.source_hash("time:time", field="f") == "", "built in: there is no file"


def test_relative_imports_and_packages_are_followed_too(folder):
    (folder / "pkg").mkdir()
    (folder / "pkg" / "__init__.py").write_text("")
    (folder / "pkg" / "net.py").write_text("VALUE = 1\n")
    (folder / "pkg" / "model.py").write_text("from .net import VALUE\n\n\ndef build():\n    return VALUE\n")

    def found() -> str:
        with entries.importable(folder):
            return entries.source_hash("pkg.model:build", field="f")

    before = found()
    (folder / "pkg" / "net.py").write_text("VALUE = 2\n")
    after = found()
    assert after != before
    (folder / "pkg" / "__init__.py").write_text("VALUE = 3\n")
    assert found() != after
