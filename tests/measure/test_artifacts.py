import errno
import hashlib
from pathlib import Path

import pytest

from halve.errors import StorageError
from halve.measure.artifacts import adopt_files, new_folder, sha256_of


def test_a_folder_is_whole_or_absent(tmp_path: Path) -> None:
    target = tmp_path / "models" / "m"

    def interrupted() -> None:
        with new_folder(target) as partial:
            (partial / "half").write_text("x")
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert list((tmp_path / "models").iterdir()) == []
    with new_folder(target) as partial:
        (partial / "deep").mkdir()
        (partial / "deep" / "a").write_bytes(b"abc")
        assert not target.exists()
    assert (target / "deep" / "a").read_bytes() == b"abc"


def test_a_full_disk_is_said_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="the disk is full"), new_folder(tmp_path / "m"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_files_are_adopted_with_their_hashes(tmp_path: Path) -> None:
    (tmp_path / "m" / "deep").mkdir(parents=True)
    (tmp_path / "m" / "b").write_bytes(b"bb")
    (tmp_path / "m" / "deep" / "a").write_bytes(b"abc")
    files = adopt_files(tmp_path / "m", relative_to=tmp_path)
    assert [(file.path, file.size_bytes) for file in files] == [("m/b", 2), ("m/deep/a", 3)]
    assert files[1].sha256 == hashlib.sha256(b"abc").hexdigest() == sha256_of(tmp_path / "m" / "deep" / "a")
