"""In a sandbox of its own: runs a problem's tests against functions that live in another process.

What comes back from there is plain data of built-in types, so comparing it runs no code of the
program's.
"""

from __future__ import annotations

import ast
import json
import os
import random
from types import CodeType
from typing import Any

from rewards.sandbox.channel import Channel, ChannelClosed
from rewards.sandbox.literals import NotPlain
from rewards.sandbox.objects import loads
from rewards.sandbox.remote import Function, ProgramFailed, Remote, TestsBroken, Unjudged


def main(init: dict[str, Any]) -> None:
    """`init` holds `setup` (code), `tests` (code), `check` (the name of a function that takes the
    program's, or null), `names`, `classes` (those of them that are classes), `expected` (names of
    exceptions), `by_value` and `channel`. The verdict goes to standard output, one JSON line:
    [outcome, reason] with outcome "passed", "changed" (passed, and the program changed an argument
    of the tests'), "failed", "unreadable", "unjudged" or "broken" (the tests are)."""
    verdict_to = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    outcome, reason = verdict(init, Channel(*init["channel"]))
    os.write(verdict_to, json.dumps([outcome, reason[:300]]).encode() + b"\n")


def verdict(init: dict[str, Any], channel: Channel) -> tuple[str, str]:
    remote = Remote(channel, init["expected"], by_value=init["by_value"])
    random.seed(0)
    namespace: dict[str, Any] = {"__name__": "tests"}
    functions = {
        name: Function(remote, name, is_class=name in init["classes"]) for name in init["names"]
    }
    try:
        exec(compile(init["setup"], "<setup>", "exec"), namespace)
        tests = compile(init["tests"], "<tests>", "exec")
    except Exception as error:
        return "broken", f"the tests cannot be read: {type(error).__name__}"
    state, said = first_word(channel)
    if state != "ready":
        return state, said
    namespace.update(functions)
    return _outcome(init, remote, namespace, tests)


def _outcome(
    init: dict[str, Any], remote: Remote, namespace: dict[str, Any], tests: CodeType
) -> tuple[str, str]:
    try:
        exec(tests, namespace)
        if init["check"] is not None:
            if not callable(namespace.get(init["check"])):
                return "broken", f"the tests define no {init['check']}"
            namespace[init["check"]](namespace[init["names"][0]])
    except ProgramFailed as error:
        return "failed", f"the program {error}"
    except TestsBroken as error:
        return "broken", f"the tests {error}"
    except Unjudged as error:
        return "unjudged", f"the program {error}"
    except AssertionError as error:
        return "failed", f"a test fails {str(error)[:200]}".strip()
    except (NameError, ImportError) as error:
        if _of_the_tests(error, init["tests"]):
            return "broken", f"the tests raise {type(error).__name__}: {str(error)[:200]}"
        return "failed", f"a test raises {type(error).__name__} on what the program returned"
    except Exception as error:  # a test that cannot digest what the program returned
        return "failed", f"a test raises {type(error).__name__} on what the program returned"
    if not remote.calls:
        return "broken", "the tests never call the program"
    return ("changed" if remote.changed_arguments else "passed"), ""


def _of_the_tests(error: NameError | ImportError, tests: str) -> bool:
    """Whether the error would be there whatever the program returned: not where the tests evaluate
    what it returned, nor for a variable that they do set, on some path."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None or last.tb_frame.f_code.co_filename not in ("<tests>", "<setup>"):
        return False
    if isinstance(error, ImportError):
        return True
    nodes = ast.walk(ast.parse(tests))
    stored = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return error.name not in stored


def first_word(channel: Channel) -> tuple[str, str]:
    try:
        reply = loads(channel.receive())
    except (ChannelClosed, NotPlain):
        return "failed", "the program ends while it is being defined"
    match reply:
        case [str(state), str(said)] if state in ("ready", "failed", "unreadable"):
            return state, f"the program {said}"
        case _:
            return "failed", "the program tampers with its answers"
