"""How a launcher ends: a user's mistake is one line on stderr and exit status 2."""

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


def launch(main: Callable[[], int | None]) -> None:
    """Run a launcher's `main` and exit with the status that it returns.

    A mistake of the user ends in one line and status 2; `--traceback` on the command line shows
    where it was raised. Every other exception keeps its traceback.
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
    sys.exit(status or 0)


def is_mistake(error: Exception) -> bool:
    """Whether the user can put it right: a value, or a file that is missing or not allowed.

    transformers raises a plain OSError, without a number, for a model that it does not find.
    """
    return isinstance(error, (ValueError, *FILE_MISTAKES)) or type(error) is OSError


def mistake_line(error: Exception) -> str:
    """The error's text on one line, with the process's number where it is not the first."""
    rank = os.environ.get("RANK", "0")
    where = "" if rank == "0" else f" in process {rank}"
    text = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
    return f"error{where}: {text or type(error).__name__} ({TRACEBACK} shows where)"
