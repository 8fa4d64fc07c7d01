"""Puts another build of glsk._C in the place of the installed one, for one process; glsk itself knows nothing of it."""

import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

VARIABLE = "GLSK_FUZZ_C"
"""Names the environment variable that holds the path of the extension to use; unset for the installed one."""


class _Finder(MetaPathFinder):
    def __init__(self, path: str) -> None:
        self.path = path

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return importlib.util.spec_from_file_location(fullname, self.path) if fullname == "glsk._C" else None


def install() -> None:
    """Obey :data:`VARIABLE`. Raises RuntimeError if another glsk._C is already there."""
    path = os.environ.get(VARIABLE)
    if not path:
        return
    if "glsk._C" in sys.modules:
        raise RuntimeError("glsk._C is imported already")
    sys.meta_path.insert(0, _Finder(path))
    from glsk import _C

    if _C.__file__ is None or not Path(_C.__file__).samefile(path):
        raise RuntimeError(f"{path}: not the glsk._C that was imported")


def environment(extension: Path, runtime: str, standard_library: str) -> dict[str, str]:
    """What a process needs to run a sanitized extension in a Python that is not sanitized.

    Args:
        extension: the sanitized glsk._C.
        runtime: AddressSanitizer's, to be loaded first.
        standard_library: libstdc++ or the like, so that the runtime finds the exceptions that it watches.
    """
    return {
        VARIABLE: str(extension),
        "LD_PRELOAD": f"{runtime} {standard_library}",
        # Python leaks on purpose; PyTorch mixes allocators of its own.
        "ASAN_OPTIONS": "detect_leaks=0:alloc_dealloc_mismatch=0:abort_on_error=0:detect_stack_use_after_return=0",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    }
