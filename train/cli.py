"""What all commands share: flags, one-line errors, exit codes, locks."""

import contextlib
import fcntl
import os
import pathlib
import signal
import sys
import threading
from collections.abc import Callable, Iterable

from absl import app, flags, logging

DONE, FAILED, USAGE, PREEMPTED = 0, 1, 2, 75
LONGEST = 500  # characters of a word in an error message


class UsageError(Exception):
    """The command line is wrong; exit code 2."""


class RunError(Exception):
    """The command line is valid, but the command cannot do it; exit code 1."""


class Preempted(Exception):
    """The command was told to stop and saved everything; restart it; exit code 75."""


def run(main: Callable[[list[str]], None], define_flags: Callable[[], None]) -> None:
    """Parses the flags, calls `main` with the other arguments and exits the process.

    Exit codes: 0 done, 2 usage, 75 preempted after saving, 1 anything else. Errors of
    the three classes above, and those of the operating system, are printed on one line;
    others keep their traceback.
    """
    define_flags()
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdout.reconfigure(errors="backslashreplace")  # names in any encoding

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
            sys.exit(
                fail("interrupted", "start the same command again to resume", FAILED)
            )

    with _interrupts_of_destructors():
        app.run(guarded, flags_parser=_parse)


@contextlib.contextmanager
def _interrupts_of_destructors():
    """Repeats Ctrl-C if Python has discarded it, as it does in `__del__` methods."""
    report = sys.unraisablehook

    def repeat_or_report(unraisable):
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            again = os.getpid(), signal.SIGINT
            threading.Timer(0.05, os.kill, again).start()  # after the destructor
        else:
            report(unraisable)

    sys.unraisablehook = repeat_or_report
    try:
        yield
    finally:
        sys.unraisablehook = report


@contextlib.contextmanager
def imports():
    """A context for imports that take seconds: Ctrl-C ends them without a traceback."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


@contextlib.contextmanager
def lock(directory: pathlib.Path, work: str | None = None):
    """Holds an exclusive lock on a directory, on this machine.

    Args:
        directory: The directory to lock.
        work: What this process does in the directory, such as `"is training in"`, for
            the error of others. `None` waits for the lock.

    Raises:
        RunError: If another process has the lock and `work` is given.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (fcntl.LOCK_NB if work else 0))
        except BlockingIOError as error:
            raise RunError(
                f"Another process {work} {directory}. Expected a directory that no "
                "other process uses. Received: a locked one."
            ) from error
        yield
    finally:
        os.close(descriptor)


def no_arguments(arguments: list[str]) -> None:
    """Checks that a command that takes only flags has no other arguments.

    Raises:
        UsageError: If there is an argument that is not a flag.
    """
    if arguments:
        received = " ".join(arguments)
        raise UsageError(f"Expected flags (--name=value) only. Received: {received}.")


def require_together(pairs: Iterable[tuple[str, str]]) -> None:
    """Checks flags that have a meaning only with another one.

    Args:
        pairs: Names of flags, each with that of the flag it needs.

    Raises:
        UsageError: If a flag was given without the one it needs.
    """
    for name, other in pairs:
        if flags.FLAGS[name].present and not flags.FLAGS[other].value:
            raise UsageError(
                f"Expected --{name} with --{other} only. Received: no --{other}."
            )


def require(name: str) -> None:
    """Checks that a flag without a default was given.

    Without any argument, the documentation of the command is printed first.

    Raises:
        UsageError: If it was not.
    """
    if flags.FLAGS[name].value is None:
        if len(sys.argv) == 1:
            print(sys.modules["__main__"].__doc__)
        raise UsageError(
            f"Expected --{name}=VALUE. Received: none. --help lists all flags."
        )


def _parse(argv):
    try:
        return flags.FLAGS(argv)
    except (flags.Error, UsageError, ValueError) as error:
        sys.exit(fail("usage error", error, USAGE))
    except SystemExit:  # absl has printed the help, and would exit with 1
        sys.exit(DONE)


def fail(kind: str, error: Exception | str, code: int) -> int:
    """Prints an error on one line and returns the exit code."""
    words = (
        word if len(word) <= LONGEST else f"{word[: LONGEST // 2]}...{word[-20:]}"
        for word in str(error).split()
    )
    print(f"{kind}: {' '.join(words)}", file=sys.stderr, flush=True)
    return code
