"""Functions of the user's, as bytes and back: only where the user has said that workers are to run them.

What comes back from such bytes may do anything, so that a worker reads none unless it was started to.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from interp.engine.model.functions import is_own
from interp.errors import InputError


class _Trust:
    here = False  # of this process, as a worker


def trust() -> None:
    """Let this process, a worker, run functions that it is sent."""
    _Trust.here = True


def require() -> None:
    """See to it that functions can be written down.

    Raises
    ------
    InputError
        They cannot.
    """
    if importlib.util.find_spec("cloudpickle") is None:
        raise InputError("functions go to workers by cloudpickle; type pip install 'interp[trust]'")


def packed(function: Callable[..., Any]) -> Tensor:
    """Return a function as bytes, ``uint8 [n]``, with all that it uses of modules that are the user's own.

    Raises
    ------
    InputError
        It cannot be written down.
    """
    require()
    import cloudpickle

    module = sys.modules.get(getattr(function, "__module__", None) or "")
    own = module if isinstance(module, ModuleType) and module.__name__ != "__main__" and is_own(function) else None
    try:
        if own is not None:  # a worker has no such module to import
            cloudpickle.register_pickle_by_value(own)
        data = cloudpickle.dumps(function)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{getattr(function, '__name__', 'the function')} cannot go to workers: {reason}") from None
    finally:
        if own is not None:
            cloudpickle.unregister_pickle_by_value(own)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def unpacked(data: Tensor) -> Callable[..., Any]:
    """Return what `packed` was given.

    Raises
    ------
    InputError
        This worker runs no code.
    """
    if not _Trust.here:
        raise InputError("this worker runs no functions of yours; connect with --trust")
    import cloudpickle

    return cloudpickle.loads(data.numpy().tobytes())
