"""`python -m bench all | NAME...`: run scenarios one after the other, print a table, store the results.

Each scenario runs in a process of its own with a time limit, and whatever it started is ended with it. Exit codes: 0
all targets met, 1 a target missed or a scenario that could not be run, 2 a wrong command.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
from rich.console import Console

from atmo.errors import AtmoError
from bench import harness, litellm, processes, report

LAST_LINES = 8  # of each log of a scenario that failed


def main(words: list[str] | None = None) -> int:
    arguments = _parser().parse_args(words)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # what was started is ended first
    try:
        if arguments.names == ["list"]:
            return _list()
        chosen = harness.names() if "all" in arguments.names else arguments.names
        for name in chosen:
            harness.load(name)
        return _run(chosen, arguments)
    except AtmoError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Benchmarks; see bench/METHODOLOGY.md.")
    parser.add_argument("names", nargs="+", metavar="NAME", help="scenarios, `all` for every one, or `list`")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="small sizes, to see that it works; stored only with --output; targets do not count",
    )
    parser.add_argument(
        "--with-litellm", action="store_true", help="gateway: measure LiteLLM's proxy, too; it is installed for that"
    )
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where results go [bench/results]")
    return parser


def _list() -> int:
    for name in harness.names():
        print(f"{name:10} {harness.load(name).what}")
    return 0


def _run(chosen: list[str], arguments: argparse.Namespace) -> int:
    if arguments.with_litellm:
        os.environ[litellm.WANTED] = "1"
    folder = arguments.output or (None if arguments.quick else harness.RESULTS)
    out = Console(stderr=arguments.json, width=None if sys.stdout.isatty() else 170)
    results, failed = [], []
    for name in chosen:
        print(f"{name} ...", file=sys.stderr, flush=True)
        result = _run_one(name, quick=arguments.quick)
        if result is None:
            failed.append(name)
            continue
        results.append(result)
        out.print(report.view(result))
        if folder is not None:
            harness.write(result, folder, beside="litellm" if arguments.with_litellm and name == "gateway" else "")
    out.print(report.summary(results, failed))
    if arguments.json:
        print(msgspec.json.format(msgspec.json.encode(results), indent=2).decode())
    met = arguments.quick or all(result.met for result in results)
    return 0 if met and not failed else 1


def _run_one(name: str, *, quick: bool) -> harness.Result | None:
    """None when the scenario failed; it has said why."""
    # The path is short because sockets live below it, and a socket's path has about 100 letters.
    with tempfile.TemporaryDirectory(prefix="atmo-bench-") as temporary:
        place, file = Path(temporary) / "w", Path(temporary) / "result.json"
        place.mkdir()
        words = [sys.executable, "-m", "bench.one", name, str(place), str(file), *(["--quick"] if quick else [])]
        environment = processes.environment({processes.MARK: str(place / "home")})
        process = subprocess.Popen(words, env=environment, cwd=harness.FOLDER.parent, stdout=sys.stderr)
        try:
            code = _wait(process, harness.load(name).limit_s)
        finally:
            _end(process)
            left = processes.end_all(place)
        if left:
            print(f"  {name} left {left} processes behind; they were ended.", file=sys.stderr)
        if code == 0 and not left:
            return msgspec.json.decode(file.read_bytes(), type=harness.Result)
        _last_words(place)
        why = f"took longer than {harness.load(name).limit_s:.0f} s" if code is None else f"ended with exit code {code}"
        print(f"  {name} {why if code != 0 else 'was not clean'}.", file=sys.stderr)
        return None


def _last_words(place: Path) -> None:
    """The ends of the logs that a failed scenario's nodes wrote; the folder is about to go."""
    for log in sorted(place.rglob("*.log")):
        for line in log.read_text(errors="replace").splitlines()[-LAST_LINES:]:
            print(f"  {log.parent.name}: {line}", file=sys.stderr)


def _wait(process: subprocess.Popen[bytes], limit_s: float) -> int | None:
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return None


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the scenario to end, so that it stops what it started; then insist."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(processes.GRACE_S * 2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    os.environ.update(processes.ONE_THREAD)
    sys.exit(main())
