"""Runs a launcher. A user's mistake ends it with one line on stderr and exit status 2."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

TRACEBACK = "--traceback"
FILE_MISTAKES = (
    FileExistsError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)
# What torch, DeepSpeed and compilers say where a part of the installation is missing.
INSTALLATION_WORDS = (
    "Error building extension",
    "Ninja is required",
    "Unable to JIT load",
    "DeepSpeed Op Builder: Installed CUDA version",
    "Python.h: No such file",
)
DOCTOR = "make doctor says what is missing in this installation, and what to do."


def launch(main: Callable[[], int | None]) -> None:
    """Run a launcher's `main` and exit with the status that it returns.

    A user's mistake gives one line on stderr and status 2. `--traceback` on the command line shows
    where it was raised. Every other exception keeps its traceback; below that of an incomplete
    installation stands how to find what is missing.
    """
    shows_traceback = TRACEBACK in sys.argv[1:]
    sys.argv[1:] = [word for word in sys.argv[1:] if word != TRACEBACK]
    try:
        status = main()
    except (ValueError, OSError) as error:
        if shows_traceback or not is_mistake(error):
            raise
        print(mistake_line(error), file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        if is_installation_error(error):
            error.add_note(DOCTOR)
        raise
    sys.exit(status or 0)


def is_installation_error(error: Exception) -> bool:
    """Whether a package, or what DeepSpeed needs to build an extension, is missing."""
    absent = isinstance(error, ImportError)
    return absent or any(word in str(error) for word in INSTALLATION_WORDS)


def is_mistake(error: Exception) -> bool:
    """Whether the user can correct the error: a wrong value, or a missing or forbidden file.

    For a model that transformers does not find, it raises a plain OSError without an error number.
    """
    return isinstance(error, (ValueError, *FILE_MISTAKES)) or type(error) is OSError


def mistake_line(error: Exception) -> str:
    """The error's text on one line. It names the process, unless that is the first one."""
    rank = os.environ.get("RANK", "0")
    where = "" if rank == "0" else f" in process {rank}"
    text = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
    return f"error{where}: {text or type(error).__name__} ({TRACEBACK} shows where)"
