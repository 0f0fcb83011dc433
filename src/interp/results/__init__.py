"""What techniques return: frozen dataclasses of numpy arrays and token strings that know how they were made."""

from interp.results.base import (
    Own,
    Provenance,
    Result,
    as_data,
    checked_path,
    has_page,
    resolve,
    spelled,
    strongest,
    write_atomically,
)

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
    "write_atomically",
]
