"""One harness for every fault: a valid cell of any registered command, both doors to it, and what must survive.

A command joins by being registered. A new kind of cell body joins by one line in `BODIES`, a new kind of required
argument by one in `VALUES`; `test_harness.py` fails with that sentence until it is there.
"""

from __future__ import annotations

import contextlib
import io
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from IPython.core.error import UsageError
from IPython.core.getipython import get_ipython

import dictionaries
import interp
from interp.engine.model import hooks
from interp.errors import InputError, OutOfMemory
from interp.interface import registry
from interp.interface.body import pairs
from interp.interface.registry import Command
from interp.interface.session import session
from interp.results import Result
from interp.spec import Pairs, Prompt

FAMILIES = ("gpt2", "llama", "neox", "bert")
DOORS = ("magic", "python")

# Body class → a body that is fine but for the text in it.
BODIES: dict[str, Callable[[str], str]] = {
    "Prompt": lambda text: text,
    "Pairs": lambda text: f"clean: {text}\ncorrupted: {text}\nanswer: Mary\nwrong: John",
    "Texts": lambda text: text,
    "Prompts": lambda text: text,
    "Claimed": lambda text: (
        "variable: v = the answer\ncarried by: resid_post layer 0 at END\nswap v -> the answer becomes the other v\n"
        f"prompts:\nclean: {text}\nanswer: Mary\n\nclean: {text}\nanswer: John"
    ),
}

# What a required argument names → a value that is there.
VALUES: dict[str, Callable[[], Any]] = {
    "model": lambda: session.current or "gpt2",
    "pool": lambda: "here",
    "command": lambda: "tokens",
    "hook": lambda: "blocks.0.hook_resid_pre",
    "indices": lambda: 0,
    "components": lambda: "0.1",
    "heads": lambda: "0.1",
    "head": lambda: "0.0",
    "variable": lambda: _circuit(),
    "saved result": lambda: interp.tokens(texts("gpt2")),
    "feature source": lambda: _dictionaries(),
    "feature": lambda: "0.1",
    "feature list": lambda: "0.1",
}

# What may be left out only where there is something else, such as an adapter.
NEEDED = frozenset({("diff", "tuned")})

# A command that needs one of several arguments → one of them; one that writes or trains is told to do little.
ONE_OF: dict[str, dict[str, Any]] = {
    "ablate": {"heads": "0.0"},
    "features-train": {"steps": 2, "width": 32},
    "generate": {"n": 4},
    "probe": {"text": str(Path(__file__).parent / "labelled.csv")},
    "selfcheck": {"program": "induction", "ablation": "corrupted", "n": 2},
    "steer": {"toward": " John", "against": " Mary", "n": 4},
}

# An argument that is about another one → that one.
WITH: dict[tuple[str, str], Callable[[], dict[str, Any]]] = {
    **{(name, flag): lambda: {"temperature": 1.0} for name in ("generate", "steer") for flag in ("top_k", "top_p")},
    ("generate", "samples"): lambda: {"temperature": 1.0},
    **{("generate", flag): lambda: {"trace": True} for flag in ("features", "direction")},
    ("ablate", "layer"): lambda: {"direction": [1.0, 2.0] * (session.get().geometry.d_model // 2)},
}

# What goes on with a text needs a model that predicts the next token, and circuits one whose attention reads a normed
# residual stream: a bidirectional one is refused.
CAUSAL = frozenset(
    {"generate", "steer", "loss", "ov", "qk", "compose", "circuit", "validate", "trace", "diff", "investigate"}
)

# What has no way with hooks.
UNHOOKED = frozenset({"trace", "diff"})

# What is about features that are loaded.
FEATURED = frozenset({"trace", "feature", "features-label"})


def _dictionaries() -> str:
    """Return a folder of dictionaries that fit the current model, or any where there is none."""
    shape = None if session.current is None else session.get().geometry
    return str(dictionaries.fitting(16, 1) if shape is None else dictionaries.fitting(shape.d_model, shape.n_layers))


def _circuit() -> Any:
    """Return a circuit of the current model; there is none of a bidirectional one, nor of none."""
    if session.current is None or not session.get().geometry.causal:
        return None
    return interp.circuit(pairs(BODIES["Pairs"](texts("gpt2")).replace("Mary gave", "John gave", 1)), edges=20)


def commands() -> Mapping[str, Command]:
    """Return every registered command by name."""
    return registry.commands()


def techniques() -> list[str]:
    """Return the names of the commands that need a model: what every test over "each command" runs through."""
    return [name for name, command in commands().items() if command.needs_model]


def bodied(family: str = "gpt2") -> list[str]:
    """Return the names of the commands whose cell body is one prompt, and that a model of `family` can answer."""
    known = [name for name, command in commands().items() if Prompt in command.bodies]
    return [name for name in known if applies(name, family)]


def applies(name: str, family: str) -> bool:
    """Whether a model of `family` can do what the command `name` asks."""
    return family != "bert" or name not in CAUSAL


def texts(family: str) -> str:
    """Return a short prompt that every technique accepts on a model of `family`."""
    return "Mary gave the [MASK] to John" if family == "bert" else "Mary gave the drink to"


def family_of(model: Any) -> str:
    """Return which of `FAMILIES` a model is of."""
    return next(family for family in FAMILIES if family in type(model.hf_model).__name__.lower())


@dataclass(frozen=True)
class Cell:
    """One use of a command, which can go through either door.

    Attributes
    ----------
    command
        The command's name.
    arguments
        Python name → value.
    body
        The cell's body; ``None`` where the command takes none.
    """

    command: str
    arguments: dict[str, Any] = field(default_factory=dict)
    body: Any = None

    def line(self) -> str:
        """Return what stands after ``%interp``."""
        words = [self.command]
        known = {p.name: p for p in commands()[self.command].parameters} if self.command in commands() else {}
        for name, value in self.arguments.items():
            flag = known[name].flag if name in known else "--" + name.replace("_", "-")
            if (
                name in known
                and known[name].names in {"variable", "direction", "saved result"}
                and not isinstance(value, str)
            ):
                get_ipython().user_ns[f"held_{name}"] = value  # the line says what the notebook calls it
                value = f"held_{name}"
            if name in known and known[name].positional:
                words.append(f'"{value}"')
            elif isinstance(value, bool):
                words.append(flag if value else "--no-" + flag[2:])
            else:
                words.append(f'{flag}="{value}"')
        return " ".join(words)

    def source(self, out: str | None = None) -> str:
        """Return the cell as it is typed."""
        line = self.line() + (f" -o {out}" if out else "")
        return f"%interp {line}" if self.body is None else f"%%interp {line}\n{self.body}\n"


@dataclass
class Outcome:
    """What came of a cell: its value or its error, and everything that was printed."""

    value: Any = None
    error: BaseException | None = None
    shown: str = ""


def valid(name: str, /, family: str = "gpt2", text: str | None = None, **arguments: Any) -> Cell:
    """Return a minimal valid cell of the command `name`, with `text` in its body and `arguments` beside it.

    Raises
    ------
    LookupError
        The harness has no example of the command's kind of body or argument yet.
    """
    command = commands()[name]
    if name in FEATURED and session.current is not None:
        dictionaries.hold(session.get())
    given: dict[str, Any] = {}
    for parameter in command.parameters:
        if not parameter.required and (name, parameter.name) not in NEEDED:
            continue
        if parameter.values.choices:
            given[parameter.name] = parameter.values.choices[0]
        elif parameter.names in VALUES:
            given[parameter.name] = VALUES[parameter.names]()
        elif parameter.kind is not str:
            given[parameter.name] = parameter.kind(1)
        else:
            raise LookupError(f"{name} needs {parameter.name}: give faults/harness.py's VALUES a {parameter.names!r}")
    body = None
    if command.body is not None:
        kind = command.bodies[0].__name__
        if kind not in BODIES:
            raise LookupError(f"{name}: give faults/harness.py's BODIES an example of a {kind}")
        body = BODIES[kind](texts(family) if text is None else text)
    for argument in arguments:
        given |= WITH.get((name, argument), dict)()
    return Cell(name, ONE_OF.get(name, {}) | given | arguments, body)


def ask(door: str, shell: Any, cell: Cell | str, *, direct: bool = False) -> Outcome:
    """Send `cell` through a door: ``"magic"`` types it into `shell`, ``"python"`` calls ``interp.command(…)``.

    `direct` calls the magic without IPython's reading of the cell, for text that IPython itself cannot read.
    """
    outcome = Outcome()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        if door == "python":
            assert isinstance(cell, Cell)
            try:
                function = getattr(interp, cell.command.replace("-", "_"))
                outcome.value = function(*_python(cell), **cell.arguments)
            except Exception as error:
                outcome.error = error
        elif direct:
            assert isinstance(cell, Cell)
            try:
                outcome.value = shell.run_cell_magic("interp", cell.line(), f"{cell.body}\n")
            except Exception as error:
                outcome.error = error
        else:
            ran = shell.run_cell(cell if isinstance(cell, str) else cell.source())
            outcome.value, outcome.error = ran.result, ran.error_in_exec or ran.error_before_exec
    outcome.shown = printed.getvalue()
    return outcome


def _python(cell: Cell) -> list[Any]:
    """Return what a Python call gives for the cell's body."""
    if cell.body is None:
        return []
    return [pairs(cell.body) if Pairs in commands()[cell.command].bodies else cell.body]


def refused(outcome: Outcome, *words: str, out_of_memory: bool = False) -> str:
    """Assert that a cell ended in a one-line error of the right class that says `words`; return its message."""
    error = outcome.error
    assert error is not None, f"nothing was refused; the cell gave {outcome.value!r}"
    expected = (UsageError, OutOfMemory if out_of_memory else InputError)
    assert type(error) in expected, f"{type(error).__name__}: {error}"
    message = str(error)
    assert message.strip()
    assert len(message.splitlines()) == 1, message
    assert "Traceback" not in outcome.shown
    for word in words:
        assert word in message, f"{word!r} is not in: {message}"
    return message


def worked(outcome: Outcome) -> Any:
    """Assert that a cell ended well, with nothing but its result printed; return the value."""
    if outcome.error is not None:
        raise AssertionError(f"{type(outcome.error).__name__}: {outcome.error}") from outcome.error
    assert "Traceback" not in outcome.shown, outcome.shown
    return outcome.value


def forward(model: Any) -> torch.Tensor:
    """Return the logits of a fixed prompt from the model itself, past everything of ours."""
    with torch.no_grad():
        return model.bridge.forward(torch.tensor([[1, 2, 3, 4, 5, 6, 7]]), return_type="logits").clone()


def census(model: Any) -> Any:
    """Return the hooks on a model's modules."""
    return hooks.census(model.modules())


def content(value: Any, without: frozenset[str] = frozenset()) -> Any:
    """Return a Result's fields but those in `without` as an independent, comparable value, Results in it likewise.

    Arrays go by shape, dtype and bytes.
    """
    if isinstance(value, Result):
        names = {f.name for f in fields(value)} - {"_live"} - without
        return {name: content(getattr(value, name), without) for name in sorted(names)}
    if isinstance(value, np.ndarray):
        return (value.shape, str(value.dtype), value.tobytes())
    if isinstance(value, Mapping):
        return {key: content(item, without) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [content(item, without) for item in value]
    return value if isinstance(value, str | int | float | bool | type(None)) else repr(value)


def answer(result: Any) -> Any:
    """Return what a Result says, without how it came to be: equal for the same model and the same cell."""
    return content(result, frozenset({"provenance", "notes", "seconds", "forwards"}))


# Of each model what was kept before the first fault; drawing takes longer than most faults.
_kept: weakref.WeakKeyDictionary[Any, dict[str, tuple[Any, ...]]] = weakref.WeakKeyDictionary()


@contextlib.contextmanager
def unharmed(model: Any, shell: Any) -> Iterator[None]:
    """Assert that a fault inside leaves earlier results, the next forward, the hooks and the session as they were."""
    kept = _kept.pop(model, {})
    for name in bodied()[:2]:
        out = f"kept_{name.replace('-', '_')}"
        if name not in kept:
            worked(ask("magic", shell, valid(name, family_of(model)).source(out=out)))
            result = shell.user_ns[out]
            kept[name] = (result, content(result), repr(result), result.text())
        shell.user_ns[out] = kept[name][0]
    hooked, logits, loaded, current = census(model), forward(model), dict(session.models), session.current
    yield
    assert census(model) == hooked, "a hook was left behind or taken away"
    assert torch.is_grad_enabled(), "gradients were left off"
    assert torch.equal(forward(model), logits), "the next forward is not bit-identical"
    assert session.models == loaded
    assert session.current == current
    for name, (result, before, shown, text) in kept.items():
        assert shell.user_ns[f"kept_{name.replace('-', '_')}"] is result
        assert content(result) == before, f"an earlier result of {name} has changed"
        assert (repr(result), result.text()) == (shown, text)
    _kept[model] = kept
