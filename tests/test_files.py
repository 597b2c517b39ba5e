"""Files appear whole, or what was there before stays."""

import json

import pytest

from cpic._files import replace_file, write_json


def test_a_file_is_replaced(tmp_path):
    path = tmp_path / "new" / "a.json"
    write_json(path, {"a": [1, "é"]})
    write_json(path, [2.5, None])
    assert json.loads(path.read_text()) == [2.5, None]
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


@pytest.mark.parametrize("error", [OSError("no"), RuntimeError("full"), KeyboardInterrupt()])
def test_what_was_there_stays(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("before")

    def write(file):
        file.write(b"half")
        raise error

    with pytest.raises(OSError if isinstance(error, RuntimeError) else type(error)):
        replace_file(path, write)
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_value_that_json_lacks_writes_nothing(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("before")
    with pytest.raises(TypeError):
        write_json(path, {1, 2})
    assert path.read_text() == "before"
