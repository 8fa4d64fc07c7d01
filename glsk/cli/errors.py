"""What the command line says when something is wrong: one line on standard error, and an exit code."""

import functools
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from glsk.errors import GlskError
from glsk.requiring import advice

BAD_INPUT, INTERRUPTED, PIPE_CLOSED = 2, 130, 141


def say(text: str) -> None:
    """One line on standard error, whatever line ends ``text`` has."""
    print(f"glsk: {' '.join(text.split())}", file=sys.stderr)


def one_line_errors(interrupted: str = "interrupted") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Expected errors of a command become one line and exit code 2; an interrupt, 130; a closed pipe, 141, quietly.

    Args:
        interrupted: what to say after Ctrl-C, where the exception says nothing itself.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def wrapped(*args: Any, **kwargs: Any) -> None:
            try:
                command(*args, **kwargs)
                show()
            except KeyboardInterrupt as error:
                say(str(error) or interrupted)
                raise typer.Exit(INTERRUPTED) from error
            except BrokenPipeError as error:
                _drop_output()
                raise typer.Exit(PIPE_CLOSED) from error
            except Exception as error:
                line = _expected(error)
                if line is None:
                    raise
                say(f"error: {line}")
                raise typer.Exit(BAD_INPUT) from error

        return wrapped

    return decorate


def _expected(error: Exception) -> str | None:
    """What to say of an error that is not a fault of glsk; None for one that is."""
    if isinstance(error, GlskError | ValueError | OSError):
        return str(error) or type(error).__name__
    if isinstance(error, ImportError):
        return advice(error)
    if isinstance(error, ZeroDivisionError | OverflowError):
        return f"a number that was given cannot be used ({error})"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # the latter is PyTorch's
        return f"{str(error) or 'out of memory'} (smaller batches need less)"
    if isinstance(error, RuntimeError) and "allocate memory" in str(error):  # PyTorch's, on the CPU
        return "out of memory (smaller batches need less)"
    return None


def show(text: str = "") -> None:
    """``text`` on standard output, now: a closed pipe or a full disk is an error here, and not when Python ends.

    Raises:
        OSError: naming standard output; BrokenPipeError as it is.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _drop_output()
        raise OSError(error.errno, error.strerror or str(error), "standard output") from error


def _drop_output() -> None:
    """What is still buffered goes nowhere: the interpreter would complain when it ends."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError):  # a stream of Python's own, such as a test's
        pass


class Group(TyperGroup):
    """The commands; a wrong option or argument is one line too."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        try:
            code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
            show()
        except BrokenPipeError:
            _drop_output()
            sys.exit(PIPE_CLOSED)
        except (typer.Abort, KeyboardInterrupt):
            say("interrupted")
            sys.exit(INTERRUPTED)
        except Exception as error:
            # Typer brings a copy of click along, so its exceptions are known by what they can do.
            if not hasattr(error, "format_message"):
                raise
            if not error.format_message():
                sys.exit(BAD_INPUT)
            self._usage_error(error)
        sys.exit(code if isinstance(code, int) else 0)

    @staticmethod
    def _usage_error(error: Any) -> None:
        context = getattr(error, "ctx", None)
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
        else:
            say(f"error: {error.format_message()}" + (f" (see {context.command_path} --help)" if context else ""))
        sys.exit(BAD_INPUT)
