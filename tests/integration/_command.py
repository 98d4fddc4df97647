"""Run the command line in this process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from typer.testing import CliRunner, Result

from attnscope.cli import app


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "300", "TERM": "xterm"})


def refused(result: Result, *words: str) -> None:
    """Exit code 2, and a message that holds the words."""
    assert result.exit_code == 2, result.output
    _, found, message = result.stderr.partition("error: ")
    assert found, result.stderr
    for word in words:
        assert word in message, message


def interrupted(arguments: Sequence[str], when: Callable[[], object]) -> str:
    """Run a command in its own process, press Ctrl-C once `when` holds, and return what it said (exit code 130)."""
    process = subprocess.Popen(
        [sys.executable, "-m", "attnscope", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "200", "TERM": "xterm"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
    )
    deadline = time.monotonic() + 120
    while not when() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert "interrupted" in stderr
    return stderr
