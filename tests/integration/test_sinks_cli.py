"""`attnscope sinks`: what it says to bad input (exit code 2, existing files untouched)."""

from __future__ import annotations

from pathlib import Path

from _command import refused, run


def test_an_unknown_mode_is_refused(tmp_path: Path) -> None:
    refused(run("sinks", "--mode", "odd", "--out", tmp_path / "sinks"), "'odd'", "'relative' or 'paper'")
    assert not (tmp_path / "sinks").exists()


def test_other_people_s_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").write_text("ten years of work")
    refused(run("sinks", "--out", tmp_path), "thesis.doc", "Choose another --out")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.doc"]


def test_both_commands_share_their_options() -> None:
    report, sinks = run("report", "--help"), run("sinks", "--help")
    for option in ("--text", "--context", "--prompts", "--seed", "--revision", "--batch-tokens", "--random-weights"):
        assert option in report.output
        assert option in sinks.output
    for option in ("--no-interventions", "--draws"):
        assert option in sinks.output
