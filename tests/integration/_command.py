"""Run the command line in this process."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from attnscope.cli import app


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "300"})


def refused(result: Result, *words: str) -> None:
    """Exit code 2, and a message that holds the words."""
    assert result.exit_code == 2, result.output
    _, found, message = result.stderr.partition("error: ")
    assert found, result.stderr
    for word in words:
        assert word in message, message
