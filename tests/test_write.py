"""The report at the end of a sweep."""

import tiny
from pages import data_of

from grokjax.report import page, write
from grokjax.report.write import page_path


def test_a_sweep_ends_with_a_report_and_says_where(finished):
    path, printed = finished
    assert str(page_path(path)) in printed
    data = data_of(page_path(path).read_text())
    assert len(data["runs"]) == 4
    assert {line["column"] for line in data["figures"][0]["lines"]} >= {"restricted_loss", "excluded_loss"}
    assert not list((path / "report").glob(".*.tmp"))


def test_a_report_that_cannot_be_written_does_not_fail_the_sweep(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page, "html", full)
    status, printed = tiny.train(tiny.get_config(), tmp_path / "tiny")
    assert status == 0
    assert "No space left on device" in printed
    assert f"grokjax report {tmp_path / 'tiny'}" in printed.replace("\n", " ")
    assert not list((tmp_path / "tiny" / "report").glob("*index*"))
    assert write.figure_path(tmp_path / "tiny").is_file()
