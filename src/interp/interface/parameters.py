"""The arguments of commands: what one is, and those that commands share."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from interp.claim_language import Claimed
from interp.interface import kinds
from interp.interface.kinds import Kind
from interp.spec import Pairs, Prompt, Prompts, Texts

MISSING: Any = inspect.Parameter.empty


@dataclass(frozen=True)
class Parameter:
    """One argument of a command.

    Attributes
    ----------
    name
        As Python spells it; a name that is Python's own ends in an underscore.
    kind
        ``str``, ``int``, ``float`` or ``bool``.
    default
        The value when it is not given, or ``inspect.Parameter.empty`` where it must be.
    positional
        Whether it is written without a flag.
    choices
        The values allowed; empty where any is.
    names
        What its values name (``"model"``, ``"indices"``, ``"hook"`` …), for the completer and the parser.
    help
        One line from the docstring.
    """

    name: str
    kind: type
    default: Any
    positional: bool
    choices: tuple[str, ...] = ()
    names: str = ""
    help: str = ""

    @property
    def required(self) -> bool:
        """Whether the argument must be given."""
        return self.default is MISSING

    @property
    def flag(self) -> str:
        """As the command line spells it."""
        return "--" + self.name.rstrip("_").replace("_", "-")

    @property
    def values(self) -> Kind:
        """How its values are read, checked, resolved and completed."""
        return kinds.of(self.names, self.choices, self.kind)

    def check(self, value: Any) -> Any:
        """Return a value that a Python call gives as the technique takes it.

        Raises
        ------
        InputError
            The command line could not give it: it is of another kind, or not one of the choices.
        """
        return value if value is None and self.default is None else self.values.check(value, self.name)


_TEMPLATE_PARAMETER = Parameter(
    "template", bool, True, False, help="write system:, user: and assistant: lines by the model's chat template"
)
# What every command over one prompt takes besides its own arguments; the session uses them up.
_PROMPT_PARAMETERS = (
    _TEMPLATE_PARAMETER,
    Parameter("bos", bool, None, False, help="put the tokenizer's BOS in front (default: as the model's config says)"),
    Parameter("truncate", bool, False, False, help="cut a prompt that is longer than the context window"),
)
# What every command over pairs takes besides: where the pairs come from, when not from the cell.
_PAIRS_PARAMETERS = (
    Parameter("task", str, None, False, names="task", help="a task that makes the pairs: ioi, facts:landmarks …"),
    Parameter(
        "pairs",
        str,
        None,
        False,
        names="file",
        help="a file of pairs, .csv, .jsonl or .parquet: columns clean, corrupted, answer, wrong",
    ),
    Parameter("n", int, 32, False, help="how many pairs the task makes, or how many of the file's are read"),
    Parameter("seed", int, 0, False, names="seed", help="of the task's pairs"),
    Parameter("corruption", str, None, False, help="which of the task's corruptions"),
    _TEMPLATE_PARAMETER,
    Parameter("bos", bool, None, False, help="put the tokenizer's BOS in front (default: as the model's config says)"),
)
# What every command over running text takes besides.
_TEXTS_PARAMETERS = (
    Parameter(
        "text",
        str,
        None,
        False,
        names="file",
        help="a file of texts: .txt (a blank line between two), .csv, .jsonl, .parquet",
    ),
    Parameter("column", str, "text", False, help="the file's column or key that holds the text"),
    Parameter("n", int, 32, False, help="how many of the file's texts, from the first on"),
    *_PROMPT_PARAMETERS,
)
# What every command over one prompt or many takes besides: where many come from, when not from the cell.
_PROMPTS_PARAMETERS = (
    Parameter("task", str, None, False, names="task", help="a task whose clean prompts are read: ioi, facts:landmarks"),
    Parameter("n", int, 32, False, help="how many prompts the task makes, or how many of the file's are read"),
    Parameter("seed", int, 0, False, names="seed", help="of the task's prompts"),
    Parameter(
        "text", str, None, False, names="file", help="the prompt; or a file of prompts: .txt, .csv, .jsonl, .parquet"
    ),
    Parameter("column", str, "text", False, help="the file's or the table's column that holds the prompt"),
)
# What a command that tests a claim takes besides: where its prompts come from, when not from the cell.
_CLAIM_PARAMETERS = (
    Parameter("task", str, None, False, names="task", help="a task whose clean prompts it is tested on: ioi, facts"),
    Parameter("n", int, 32, False, help="how many prompts the task makes, or how many of the file's are read"),
    Parameter("seed", int, 0, False, names="seed", help="of the task's prompts, of the swaps and of the controls"),
    Parameter(
        "text", str, None, False, names="file", help="a file of prompts with a column answer: .csv, .jsonl, .parquet"
    ),
    Parameter("column", str, "text", False, help="the file's or the table's column that holds the prompt"),
    _TEMPLATE_PARAMETER,
    Parameter("bos", bool, None, False, help="put the tokenizer's BOS in front (default: as the model's config says)"),
)
# How a technique's model is named.
MODEL = Parameter("model", str, None, False, names="model", help="a loaded model, if not the current one")
# What a technique takes besides whose runs of the model can be changed; the session uses it up.
CHANGES = Parameter(
    "interventions",
    str,
    None,
    False,
    names="variable",
    help="a list of interp.Intervention, on every run of the model; in a magic, a variable that holds one",
)
# What a technique that can say what it takes before it starts takes besides.
DRY = Parameter("dry_run", bool, False, False, help="say what it would take, and run nothing")
# What a technique takes besides whose result has numbers of single pairs; the session uses it up.
OUT = Parameter(
    "out", str, None, False, names="file", help="a .parquet file for the numbers of single pairs; many stay there alone"
)
# What a technique takes besides whose call is repeated; the session uses it up.
OVER = Parameter(
    "over",
    str,
    None,
    False,
    names="over",
    help="run over these, and draw the curve: loaded models, folders, hub revisions such as step1000, or checkpoints",
)
# What commands take besides, by the kind of their body.
SHARED: dict[type, tuple[Parameter, ...]] = {
    Prompt: _PROMPT_PARAMETERS,
    Prompts: _PROMPTS_PARAMETERS,
    Pairs: _PAIRS_PARAMETERS,
    Texts: _TEXTS_PARAMETERS,
    Claimed: _CLAIM_PARAMETERS,
}
