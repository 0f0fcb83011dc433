"""The families of models whose blocks are known, one file each; a new file here is a new family."""

from __future__ import annotations

import importlib
import pkgutil

from interp.engine.transformer.families._family import Family


def _found() -> dict[str, Family]:
    modules = [importlib.import_module(f"{__name__}.{one.name}") for one in pkgutil.iter_modules(__path__)]
    families = [module.FAMILY for module in modules if hasattr(module, "FAMILY")]
    return {name: family for family in families for name in family.names}


# What Hugging Face calls an architecture → the family that reads it.
FAMILIES = _found()
