"""Row 47: a machine without a network. Nothing is asked of one, not even in vain."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import socket
import subprocess
import warnings
from urllib.parse import unquote

import pytest
from IPython.core.error import UsageError

import models
from faults import harness
from interp.errors import InputError
from interp.results import Result
from widgets.pages import taken_apart

# What a page loads: an attribute or a style that names an address. Namespaces name none.
LOADS = re.compile(
    r"""(?:src|href|srcset|action|formaction|poster|data|background)\s*=\s*["']?\s*(?!data:|\#)[^"'\s>]"""
    r"""|url\(\s*["']?(?!data:|\#)|@import|<script|<iframe|<link|<object|<embed|<base""",
    re.IGNORECASE,
)

INSIDE = re.compile(r"data:image/svg\+xml,[^\"']*")


@pytest.fixture
def asked(monkeypatch):
    """Yield the list of addresses that anything asked for, and of processes that it started; doing so fails."""
    import huggingface_hub.constants
    import transformers.utils.hub

    addresses = []

    def refuse(*arguments, **_):
        addresses.append(arguments[1:] if isinstance(next(iter(arguments), None), socket.socket) else arguments)
        raise OSError("no network here")

    # The tests' own switch would hide a request: here the libraries believe that there is a network.
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(transformers.utils.hub, "is_offline_mode", lambda: False, raising=False)
    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    for owner, names in (
        (subprocess, ("Popen",)),
        (os, ("system", "fork", "forkpty", "execv", "execve", "posix_spawn", "posix_spawnp")),
        (pty, ("spawn", "fork")),
    ):
        for name in names:
            monkeypatch.setattr(owner, name, refuse)
    return addresses


def test_a_request_would_be_seen(asked):
    import urllib.request

    with pytest.raises(OSError, match="no network"):
        urllib.request.urlopen("http://example.com")
    assert asked
    count = len(asked)
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever the hub's client makes of it
        __import__("huggingface_hub").model_info("owner/name")
    assert len(asked) > count, "the hub's client is switched off: a request of its own would not be seen"


@pytest.mark.parametrize("family", list(models.FAMILIES))
@pytest.mark.parametrize("name", harness.techniques())
def test_row_47_no_command_starts_or_asks_anything_on_any_family(name, family, shell, lend, asked):
    lend(family)
    with contextlib.suppress(InputError):  # the example's circuit is refused for families without edge gradients
        outcome = harness.ask("magic", shell, harness.valid(name, family))
        assert outcome.error is None or isinstance(outcome.error, InputError | UsageError), repr(outcome.error)
    assert asked == []


def test_a_process_would_be_seen(asked):
    for start in (lambda: subprocess.run(["true"]), lambda: os.system("true"), os.fork):
        with pytest.raises(OSError, match="no network"):
            start()
    assert len(asked) == 3


@pytest.mark.parametrize("family", harness.FAMILIES)
def test_row_47_loading_a_folder(family, shell, folder, asked):
    harness.worked(harness.ask("magic", shell, f"%interp load {folder(family)}"))
    harness.worked(harness.ask("magic", shell, f"%interp load {folder(family)} --dtype bfloat16 --name again"))
    assert asked == []


@pytest.mark.parametrize("name", list(harness.commands()))
def test_row_47_every_command_and_every_picture(name, shell, lend, folder, asked, tmp_path):
    lend("gpt2")
    if name in {"load", "unload"}:
        harness.worked(harness.ask("magic", shell, f"%interp load {folder('llama')} --name own"))
    cell = harness.Cell("load", {"source": str(folder("llama")), "name": "own"}) if name == "load" else None
    result = harness.worked(harness.ask("magic", shell, cell or harness.valid(name)))
    if isinstance(result, Result):
        page = taken_apart(result.save(tmp_path / "x.html").read_text())
        shown = [result.html(), result._repr_mimebundle_()["text/html"], page.around, *page.strings]
        if result._svg:
            shown += [result.svg(), result.svg("dark")]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert result.png().startswith(b"\x89PNG")
        for picture in shown:
            for part in (INSIDE.sub("data:,", picture), *map(unquote, INSIDE.findall(picture))):
                found = LOADS.search(part)
                assert found is None, part[max(0, found.start() - 60) : found.end() + 60]
        if result._plotly:
            figure = result.to_plotly()
            assert figure.to_json()
        result.text()
    assert asked == []


def test_row_47_loading_the_extension_and_completing(shell, lend, asked):
    lend("gpt2")
    shell.run_cell("%reload_ext interp")
    shell.run_cell("%interp help")
    shell.Completer.completions("%interp load ", 13)
    assert asked == []


@pytest.mark.parametrize("door", harness.DOORS)
@pytest.mark.usefixtures("asked")
def test_row_47_a_hub_name_without_a_network_is_one_line(door, shell, lend):
    model = lend("gpt2")
    with harness.unharmed(model, shell):
        cell = harness.Cell("load", {"source": "no-owner-of-ours/no-such-model"})
        harness.refused(harness.ask(door, shell, cell), "no-owner-of-ours/no-such-model", "local folder")
