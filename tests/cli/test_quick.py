"""`atmo ask` reads its command line without Typer, all others read plain values without what Typer reads them with, and
both understand the same."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import pytest
from typer import Context
from typer.exceptions import TyperException

from atmo.cli import ask_commands, quick, typed
from tests.cli.inside import inside, leaves

PLAIN = [
    ["ask", "hello"],
    ["ask", "two", "words", "report.md", "--file", "a.txt", "-f", "b.txt"],
    ["ask"],
    ["ask", "--model", "a", "hello", "-m", "b", "--node", "desk", "--type", "chat", "--system", "Be short."],
    ["ask", "hello", "-w", "residency=eu", "--where", "min_tps=20"],
    ["ask", "--max-tokens", "5", "--seed", "7", "--temperature", "0.5", "--timeout", "30", "hello"],
    ["ask", "--explain", "--private", "--yes", "--plain", "--json", "hello", ""],
]
LEFT = [
    ["chat", "hello"],
    [],
    ["--help"],
    ["ask", "--help"],
    ["ask", "--modle", "x", "hello"],
    ["ask", "--model=x", "hello"],
    ["ask", "-mx", "hello"],
    ["ask", "hello", "--model"],
    ["ask", "--model", "--json"],
    ["ask", "--", "--hello"],
    ["ask", "-"],
    ["ask", "--max-tokens", "many"],
    ["ask", "--max-tokens", "1.5"],
    ["ask", "--temperature", "9"],
    ["ask", "--timeout", "0"],
    ["ask", "--temperature", "."],
    ["ask", "--temperature", "1e3"],
    ["ask", "--seed", "٣"],
]


DEFAULTS = {name: option.default for name, option in inspect.signature(ask_commands.asked).parameters.items()}


def meant(options: dict[str, Any]) -> dict[str, Any]:
    """With what is not said; no words are as good as an empty list of them."""
    return {name: None if value == [] else value for name, value in {**DEFAULTS, **options}.items()}


@pytest.mark.parametrize("line", PLAIN, ids=" ".join)
def test_it_understands_what_typer_understands(line: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[dict[str, Any]] = []
    monkeypatch.setattr(ask_commands, "asked", lambda **options: heard.append(options))
    monkeypatch.setattr(sys, "argv", ["atmo", *line])
    assert typed.run() == 0
    read = quick.read(line)
    assert read is not None
    assert meant(read) == meant(heard[0])


@pytest.mark.parametrize("line", LEFT, ids=" ".join)
def test_whatever_is_not_plain_is_left_to_typer(line: list[str]) -> None:
    assert quick.read(line) is None


def test_it_knows_every_option_that_typer_knows() -> None:
    numbers = {**quick.WHOLE, **quick.REAL}
    for option in leaves()["ask"].params:
        for word in option.opts if option.param_type_name == "option" and option.name != "help" else ():
            if option.is_flag:
                assert quick.FLAGS[word] == option.name
            elif option.multiple:
                assert quick.LISTS[word] == option.name
            elif word in numbers:
                name, least, most = numbers[word]
                assert (name, least, most) == (option.name, option.min, option.max)
                assert type(option.default) is (int if word in quick.WHOLE else float)
            else:
                assert (quick.TEXTS[word], option.default) == (option.name, "")


def test_an_answer_into_a_pipe_waits_for_nothing_that_it_does_not_need(environ: dict[str, str]) -> None:
    """Typer, rich and asyncio would be half of the time until the first word."""
    code = "import sys\nfrom atmo.cli import ask_commands\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"typer", "rich", "asyncio", "zmq", "cryptography", "numpy", "fastapi"}.isdisjoint(done.stdout.split())
    assert inside("ask", "hello").code == 3


VALUES = [
    "",
    "x",
    "5",
    "-1",
    "007",
    "1.5",
    "1.",
    ".5",
    "-0",
    "-0.0",
    "1e3",
    "+5",
    " 5",
    "1_000",
    "٣",
    "9" * 20,
    "nan",
    5,
    2.0,
]


def outcome(parameter: Any, value: Any, context: Context) -> Any:
    """What becomes of a value, with its type: -0.0 is not 0."""
    many = parameter.multiple or parameter.nargs == -1
    try:
        return repr(parameter.get_runtime_param().coerce([value] if many else value, parameter, context))
    except TyperException as exc:
        return exc.format_message()


def test_every_value_of_every_command_means_what_typer_reads() -> None:
    ours, typers = leaves(typed.command()), leaves()
    context, seen = Context(ours["ask"]), set()
    for name, command in ours.items():
        for one, other in zip(command.params, typers[name].params, strict=True):
            kind = (str(one.type_descriptor.annotation), getattr(one, "min", None), getattr(one, "max", None))
            if kind in seen or one.type_descriptor.annotation is bool:
                continue
            seen.add(kind)
            for value in VALUES:
                assert outcome(one, value, context) == outcome(other, value, context), (name, one.name, value)
    assert len(seen) > 10


def test_no_command_waits_for_what_it_does_not_need(environ: dict[str, str]) -> None:
    """All of it together would be half a second for each; pydantic alone a tenth."""
    code = """
import sys
from atmo.cli import running
for words in ("node status", "mesh", "mesh invite", "mesh members", "models", "keys", "config", "receipt list", ""):
    sys.argv = ["atmo", *words.split()]
    running.execute()
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(done.stdout.splitlines()[-1].split())
    assert {"typer", "rich", "cryptography"} <= modules
    assert {"pydantic", "asyncio", "zmq", "numpy", "fastapi", "structlog", "httpx", "prompt_toolkit"}.isdisjoint(
        modules
    )
