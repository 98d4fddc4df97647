"""The commands on the embedded model on a CPU: wall time of each report with its default plan, in a fresh process.

usage: python kernels/benchmarks/reports_cpu.py [--out FILE]
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMANDS = ("report", "sinks", "retrieval", "frequency")


def seconds(command: str, folder: Path) -> float:
    """Return the wall time of one command, imports and loading included."""
    begin = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "attnscope", command, "--device", "cpu", "--out", str(folder / command)],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - begin


def main() -> None:
    """Run every command once and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    lines = [f"{platform.processor() or platform.machine()}, Python {platform.python_version()}", ""]
    lines += ["| command | seconds |", "| --- | --- |"]
    with tempfile.TemporaryDirectory() as folder:
        for command in COMMANDS:
            lines.append(f"| attnscope {command} | {seconds(command, Path(folder)):.0f} |")
            print(lines[-1], flush=True)
    if arguments.out is not None:
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
