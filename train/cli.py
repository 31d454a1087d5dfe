"""How every command starts and ends: flags, one-line errors, exit codes."""

import contextlib
import fcntl
import os
import pathlib
import signal
import sys
from collections.abc import Callable

from absl import app, flags, logging

DONE, FAILED, USAGE, PREEMPTED = 0, 1, 2, 75
LONGEST = 500  # characters of a word of an error


class UsageError(Exception):
    """The command line is wrong; exit code 2."""


class RunError(Exception):
    """The command line is right, and the command cannot do it; exit code 1."""


class Preempted(Exception):
    """Asked to stop; everything is saved, start me again; exit code 75."""


def run(main: Callable[[list[str]], None], define_flags: Callable[[], None]) -> None:
    """Parses the flags, calls `main` with the other arguments and exits the process.

    Exit codes: 0 done, 2 usage, 75 preempted after saving, 1 anything else. Errors of
    the three classes above, and those of the operating system, are printed in one line;
    others keep their traceback.
    """
    define_flags()
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdout.reconfigure(errors="backslashreplace")  # names of any kind

    def guarded(argv):
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)
        try:
            main(argv[1:])
        except UsageError as error:
            sys.exit(fail("usage error", error, USAGE))
        except RunError as error:
            sys.exit(fail("error", error, FAILED))
        except Preempted as error:
            sys.exit(fail("preempted", error, PREEMPTED))
        except OSError as error:
            sys.exit(fail("error", error, FAILED))
        except KeyboardInterrupt:
            sys.exit(fail("interrupted", "the same command goes on", FAILED))

    app.run(guarded, flags_parser=_parse)


def lock(directory: pathlib.Path, work: str) -> int:
    """Keeps other processes of this machine from the same work in a directory.

    Returns:
        An open file; the lock goes when it is closed, at the latest with the process.

    Raises:
        RunError: another process has the lock.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise RunError(
            f"Another process {work} {directory}. Expected: none. Received: its lock "
            "on the directory."
        ) from error
    return descriptor


@contextlib.contextmanager
def waiting_lock(directory: pathlib.Path):
    """Within it other processes of this machine wait for their turn."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def no_arguments(arguments: list[str]) -> None:
    """For commands that take flags only.

    Raises:
        UsageError: there is an argument that is no flag.
    """
    if arguments:
        received = " ".join(arguments)
        raise UsageError(f"Expected flags (--name=value) only. Received: {received}.")


def _parse(argv):
    try:
        return flags.FLAGS(argv)
    except (flags.Error, UsageError, ValueError) as error:
        sys.exit(fail("usage error", error, USAGE))
    except SystemExit:  # absl has printed the help, and would exit with 1
        sys.exit(DONE)


def fail(kind: str, error: Exception | str, code: int) -> int:
    """Prints an error in one line; returns the exit code."""
    words = (
        word if len(word) <= LONGEST else f"{word[: LONGEST // 2]}...{word[-20:]}"
        for word in str(error).split()
    )
    print(f"{kind}: {' '.join(words)}", file=sys.stderr, flush=True)
    return code
