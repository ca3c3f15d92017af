"""A file is replaced as a whole or not at all, and that of an earlier run is kept."""

import pytest

from nrt_lightning.files import replaced, set_aside


def test_an_error_leaves_the_old_contents_and_nothing_else(tmp_path):
    path = tmp_path / "figures.json"
    path.write_text("old")

    def stopped():
        with replaced(path) as file:
            file.write("half")
            file.flush()
            assert path.read_text() == "old"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        stopped()
    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]
    with replaced(path) as file:
        file.write("new")
    assert path.read_text() == "new"
    assert [*tmp_path.iterdir()] == [path]


def test_a_file_of_an_earlier_run_gets_a_free_name(tmp_path, caplog):
    path = tmp_path / "metrics.csv"
    set_aside(path)
    assert not caplog.text
    for text in ("first", "second"):
        path.write_text(text)
        set_aside(path)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {
        "metrics-1.csv": "first", "metrics-2.csv": "second"
    }  # fmt: skip
    assert "metrics-2.csv" in caplog.text
