import pytest

from halve.errors import StorageError
from halve.techniques.compression.distillation.files import read_json, write_json, write_whole


def test_a_file_is_there_whole_or_stays_as_it_was(tmp_path):
    path = tmp_path / "folder" / "file.txt"
    write_whole(path, lambda partial: partial.write_text("first"))

    def fail(partial):
        partial.write_text("sec")
        raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        write_whole(path, fail)
    assert path.read_text() == "first"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


def test_what_the_disk_refuses_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="could not be written"):
        write_whole(tmp_path / "file" / "below", lambda partial: partial.write_text("x"))


def test_json_comes_back_and_damage_is_none(tmp_path):
    path = tmp_path / "document.json"
    assert read_json(path) is None
    write_json(path, {"rows": 3})
    assert read_json(path) == {"rows": 3}
    path.write_text('{"rows": ')
    assert read_json(path) is None
    path.write_text("[1]")
    assert read_json(path) is None
