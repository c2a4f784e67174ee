from pathlib import Path

import pytest

from halve.errors import WorkloadError
from halve.workload.files import check_columns, read_csv_columns


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "log.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_columns_come_in_the_order_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, '\ufeffa,b,c\n1,"x, y",3\n\n4,"two\nlines",6\n')
    assert read_csv_columns(path, columns=["c", "b"]) == [["3", "6"], ["x, y", "two\nlines"]]


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match=r"nowhere.csv must be a file\. There is none\."):
        read_csv_columns(tmp_path / "nowhere.csv", columns=["a"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "must hold at least 1 row. It is empty"),
        ("\n\n", "must have a column 'label'. It has none"),
        ("label\n", "must hold at least 1 row. It has a header only"),
        ("labels,text\na,b\n", "must have a column 'label'. Did you mean 'labels'?"),
        ("text,kind\na,b\n", "must have a column 'label'. It has text, kind"),
        ("label,text\na,b\na,b,c\n", "row 2 of .* must have as many cells as the header, 2. Got 3. Texts with commas"),
        ("label,text\na\n", "row 1 of .* Got 1"),
        (b"label\n\xff\xfe\n", "must be CSV in UTF-8"),
        ('label\n"a"b\n', "must be CSV in UTF-8: "),
    ],
)
def test_unusable_file_says_why(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(WorkloadError, match=message.replace("?", r"\?")):
        read_csv_columns(write(tmp_path, content), columns=["label"])


def test_all_wanted_columns_pass(tmp_path: Path) -> None:
    check_columns(tmp_path, wanted=["a"], known=["b", "a"])
