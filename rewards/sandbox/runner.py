"""Inside the sandbox: defines a program's functions and calls them as asked.

The program shares this process and may do anything to it, so nothing it says is believed: it is
only ever asked for plain values, and never sees what is expected of them.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from rewards.sandbox.channel import Channel
from rewards.sandbox.literals import NotPlain, dumps, loads


def main(init: dict[str, Any]) -> None:
    """`init` holds `program`, `names` and `channel` (file numbers to read from and write to)."""
    channel = Channel(*init["channel"])
    _silence()
    namespace: dict[str, Any] = {"__name__": "program", "__builtins__": __builtins__}
    try:
        code = compile(init["program"], "<program>", "exec")
    except BaseException as error:  # SyntaxError, MemoryError, RecursionError, ValueError
        channel.send(dumps(["unreadable", _said(error)]))
        return
    try:
        exec(code, namespace)
        missing = [name for name in init["names"] if not callable(namespace.get(name))]
    except BaseException as error:
        channel.send(dumps(["failed", _said(error)]))
        return
    channel.send(dumps(["failed", f"does not define {missing[0]}"] if missing else ["ready", ""]))
    while not missing:
        name, arguments, keywords = loads(channel.receive())
        channel.send(_call(namespace[name], arguments, keywords))


def _call(function: Any, arguments: list[Any], keywords: dict[str, Any]) -> str:
    try:
        return dumps(["value", function(*arguments, **keywords)])
    except NotPlain as error:
        return dumps(["failed", f"returns what is not passed on: {error}"])
    except BaseException as error:  # SystemExit and KeyboardInterrupt are the program's too
        return dumps(["failed", _said(error)])


def _said(error: BaseException) -> str:
    return f"raises {type(error).__name__}"[:200]


def _silence() -> None:
    """What the program prints goes nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    sys.stdin = open(os.devnull)  # noqa: PTH123, SIM115
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
