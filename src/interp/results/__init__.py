"""What techniques return: frozen dataclasses of numpy arrays and token strings that know how they were made."""

from interp.results.base import Result, has_page, has_view, held_in, resolve, views_of
from interp.results.code import Own, spelled
from interp.results.costs import Costs
from interp.results.effects import strongest
from interp.results.provenance import Provenance
from interp.results.saving import as_data

__all__ = [
    "Costs",
    "Own",
    "Provenance",
    "Result",
    "as_data",
    "has_page",
    "has_view",
    "held_in",
    "resolve",
    "spelled",
    "strongest",
    "views_of",
]
