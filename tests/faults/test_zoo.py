"""Every command on every family of models, and under every condition: a result, or one line that says what to do.

By default each family is tried as it is and under one condition, which families take in turns;
``INTERP_ZOO=all`` tries every family under every condition, ``INTERP_ZOO=bfloat16`` under those that begin so.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

import interp
import zoo
from faults import harness
from interp.errors import InputError, OutOfMemory
from interp.results import Result
from interp.spec import Pair, Pairs, Prompt

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

LONGEST = 400
IDS, OTHER = (5, 9, 12, 33, 7, 50), (5, 9, 13, 33, 7, 50)
# Of as many steps as show that a command works.
SHORT: dict[str, dict[str, Any]] = {
    "lens-train": {"steps": 2},
    "probe": {"shuffles": 1, "folds": 2},
}

Condition = Callable[[Any], AbstractContextManager[None]]


def plain(model: Any) -> AbstractContextManager[None]:  # noqa: ARG001
    return contextlib.nullcontext()


def training(model: Any) -> AbstractContextManager[None]:
    model.hf_model.train()
    return contextlib.nullcontext()


def hooked(model: Any) -> AbstractContextManager[None]:
    point = next(point for name, point in model.bridge.hook_dict.items() if name.endswith("hook_resid_pre"))
    point.add_hook(lambda tensor, hook: tensor * 1.01)  # noqa: ARG005
    return contextlib.nullcontext()


def autocast(model: Any) -> AbstractContextManager[None]:
    return torch.autocast(model.device.type, dtype=torch.bfloat16)


def windowed(model: Any) -> AbstractContextManager[None]:
    """Let attention reach three tokens back, where the model has windows at all."""
    for held in (getattr(model.hf_model, "config", None), *model.hf_model.modules()):
        if isinstance(getattr(held, "sliding_window", None), int):
            held.sliding_window = 3
    return contextlib.nullcontext()


def spoiled(model: Any) -> AbstractContextManager[None]:
    with torch.no_grad():
        list(model.hf_model.parameters())[-1].view(-1)[0] = float("nan")
    return contextlib.nullcontext()


def parametrised(model: Any) -> AbstractContextManager[None]:
    linear = next(module for module in reversed(list(model.hf_model.modules())) if isinstance(module, torch.nn.Linear))
    torch.nn.utils.parametrizations.weight_norm(linear)
    return contextlib.nullcontext()


@contextlib.contextmanager
def full_disk(model: Any) -> Iterator[None]:  # noqa: ARG001
    """Let no file take a single byte."""
    limits, previous = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)


def fewer_outputs(model: Any) -> Any:
    """Return `model` with a head for fewer tokens than it reads, if it has one that is a plain layer."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if isinstance(head, torch.nn.Linear):
        smaller = torch.nn.Linear(head.in_features, head.out_features - 40, bias=head.bias is not None)
        model.config.tie_word_embeddings = False
        model.set_output_embeddings(zoo.spread(smaller))
    return model


CONDITIONS: dict[str, Condition] = {
    "float16": plain,
    "bfloat16": plain,
    "float64": plain,
    "training": training,
    "hooked": hooked,
    "autocast": autocast,
    "no tokenizer": plain,
    "fewer outputs": plain,
    "one layer": plain,
    "NaN": spoiled,
    "parametrised": parametrised,
    "full disk": full_disk,
    "window": windowed,
    "bfloat16, training": training,
    "bfloat16, hooked": hooked,
    "bfloat16, autocast": autocast,
    "bfloat16, window": windowed,
}


def one_each() -> list[tuple[str, str]]:
    """Return family and condition: each family under one, or under all that are asked for."""
    asked = os.environ.get("INTERP_ZOO", "")
    if asked:
        conditions = [name for name in CONDITIONS if asked == "all" or name.startswith(asked)]
        every = [(family, condition) for family in zoo.FAMILIES for condition in conditions]
        return [one for one in every if one != ("rwkv", "one layer")]  # which transformers cannot build
    names = list(CONDITIONS)
    return [(family, names[number % len(names)]) for number, family in enumerate(zoo.FAMILIES)]


def made(family: str, condition: str) -> tuple[Any, Any]:
    """Return a model of `family` as `condition` has it, and its tokenizer."""
    model = zoo.FAMILIES[family](one_layer=condition == "one layer")
    dtype = condition.partition(",")[0]
    if dtype in {"float16", "bfloat16", "float64"}:
        model = model.to(getattr(torch, dtype))
    if condition == "fewer outputs":
        model = fewer_outputs(model)
    return model, None if condition == "no tokenizer" else zoo.tokenizer(family)


def asked(name: str, family: str, condition: str) -> tuple[list[Any], dict[str, Any]]:
    """Return what a valid call of the command `name` gives: positions, and by name; without a tokenizer, of ids."""
    cell = harness.valid(name, "bert" if family in zoo.ENCODERS else "gpt2", **SHORT.get(name, {}))
    if condition != "no tokenizer" or cell.body is None:
        return harness._python(cell), cell.arguments
    pairs = Pairs((Pair(Prompt(ids=IDS), Prompt(ids=OTHER), (3,), (4,)),))
    kinds = {"Prompt": list(IDS), "Pairs": pairs, "Texts": [list(IDS), list(OTHER)]}
    words: dict[str, Any] = {name: 5 for name in ("toward", "against") if name in cell.arguments}
    if name == "claim":
        said = "variable: v = given\ncarried by: resid_pre layer 1 at END\nswap v -> becomes the other answer"
        both = Pairs((*pairs.pairs, Pair(Prompt(ids=OTHER), Prompt(ids=IDS), (4,), (3,))))
        return [said], {"pairs": both, "variables": {"v": [0, 1]}, "controls": cell.arguments.get("controls", "all")}
    return [kinds[harness.commands()[name].bodies[0].__name__]], cell.arguments | words


def told(work: Callable[[], Any]) -> str:
    """Return what is wrong with how `work` ended: an empty string for a value, or one line of refusal."""
    try:
        work()
    except (InputError, OutOfMemory) as refusal:
        message = str(refusal)
        if not message.strip() or len(message.splitlines()) != 1 or len(message) > LONGEST:
            return f"a message of {len(message.splitlines())} lines, {len(message)} characters: {message}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def whole(name: str, family: str, condition: str, folder: Path) -> Result:
    """Run a command, draw its result, and save it."""
    given, named = asked(name, family, condition)
    result = getattr(interp, name.replace("-", "_"))(*given, **named)
    assert repr(result)
    assert result.html()
    if condition == "full disk":
        for suffix in (".json", ".npz", ".html"):
            with contextlib.suppress(InputError):
                result.save(folder / f"result{suffix}")
    return result


@pytest.fixture
def nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any, *command: Any, **options: Any) -> None:  # noqa: ARG001
        raise AssertionError(f"a process was started: {command}")

    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)


@pytest.mark.usefixtures("nothing_is_started")
@pytest.mark.parametrize(
    ("family", "condition"),
    [*((family, "float32") for family in zoo.FAMILIES), *one_each()],
    ids=lambda value: value.replace(", ", "+").replace(" ", "_"),
)
def test_every_command_gives_a_result_or_one_line(
    family: str, condition: str, clean_session: Any, tmp_path: Path
) -> None:
    model, tokenizer = made(family, condition)
    wrong: dict[str, str] = {}
    with warnings.catch_warnings(action="ignore"):
        loading = told(lambda: interp.load(model, tokenizer=tokenizer, name=family, device="cpu"))
        if loading or not clean_session.models:
            assert not loading
            return
        with CONDITIONS.get(condition, plain)(clean_session.get()):
            for name in harness.techniques():
                if problem := told(lambda name=name: whole(name, family, condition, tmp_path)):
                    wrong[name] = problem
    assert not wrong
