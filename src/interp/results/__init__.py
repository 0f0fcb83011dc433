"""What techniques return: frozen dataclasses of numpy arrays and token strings that know how they were made."""

from interp.results.base import Provenance, Result, has_page, resolve, views_of
from interp.results.code import Own, spelled
from interp.results.effects import strongest
from interp.results.saving import as_data, checked_path, write_atomically

__all__ = [
    "Own",
    "Provenance",
    "Result",
    "as_data",
    "checked_path",
    "has_page",
    "resolve",
    "spelled",
    "strongest",
    "views_of",
    "write_atomically",
]
