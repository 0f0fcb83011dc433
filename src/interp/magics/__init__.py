"""The ``%interp`` and ``%%interp`` magics. Importing this imports IPython alone: loading the extension is quick."""

from __future__ import annotations

import time
from typing import Any

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand
from traitlets import Int, Unicode


@magics_class
class Interp(Magics):
    """Mechanistic interpretability: ``%interp help`` lists the commands."""

    device: Unicode[str, str | bytes] = Unicode(
        "auto", help="where models are loaded: auto, cpu, cuda, cuda:0 or mps"
    ).tag(config=True)
    dtype: Unicode[str, str | bytes] = Unicode(
        "auto", help="how models are loaded: auto, float32, bfloat16, float16 or float64"
    ).tag(config=True)
    store_budget: Int[int, int] = Int(
        0, min=0, help="bytes of memory for a model's activations; 0: a quarter of what is free at loading"
    ).tag(config=True)
    disk_budget: Int[int, int] = Int(
        0, min=0, help="bytes of temporary files for activations that no longer fit in memory; 0: none"
    ).tag(config=True)

    # Not @output_can_be_silenced: it reads the prompt as Python, fails on an open bracket and drops what ends in ";".
    @no_var_expand
    @line_cell_magic
    def interp(self, line: str, cell: str | None = None) -> Any:
        """Ask a transformer language model. %interp help lists the commands."""
        began = time.monotonic()  # what is imported here is waited for, too
        from interp.magics.dispatch import dispatch

        self.configure()
        return dispatch(self._shell(), line, cell, began)

    def configure(self) -> None:
        """Hand the configured values to the session, and the budgets to the models that are loaded."""
        from interp.interface.session import Settings, session

        settings = Settings(self.device, self.dtype, self.store_budget, self.disk_budget)
        if settings == session.settings:
            return
        budgets = (session.settings.store_budget, session.settings.disk_budget)
        session.settings = settings
        if budgets != (settings.store_budget, settings.disk_budget):
            for model in session.models.values():
                model.store.set_budget(settings.store_budget or model.store.budget, settings.disk_budget)

    def _shell(self) -> InteractiveShell:
        assert isinstance(self.shell, InteractiveShell)
        return self.shell


def _usage() -> str:
    """Return what ``%%interp?`` shows: made when asked for, from the declared commands."""
    from interp.interface import catalogue

    lines = ["Ask a transformer language model."]
    for group, found in catalogue.grouped().items():
        lines += ["", group, *(f"  {catalogue.short(one):<31} {one.summary}" for one in found)]
    return "\n".join(
        [
            *lines,
            "",
            "The cell below a %%interp line is the prompt, byte for byte; -o NAME binds the result to a name.",
            "%interp help COMMAND lists what a command takes, with a cell to try.",
        ]
    )


# IPython's inspector asks an object for getdoc() before it reads a docstring.
Interp.interp.getdoc = _usage  # pyright: ignore[reportFunctionMemberAccess]


def _with_body(lines: list[str]) -> list[str]:
    r"""Give ``%%interp …`` an empty line as its body where it has none: IPython refuses it before we are asked.

    Examples
    --------
    >>> _with_body(["get_ipython().run_cell_magic('interp', 'load', '')\n"])
    ["get_ipython().run_cell_magic('interp', 'load', '\\n')\n"]
    """
    start, end = "get_ipython().run_cell_magic('interp', ", ", '')"
    if len(lines) == 1 and lines[0].startswith(start) and lines[0].rstrip().endswith(end):
        return [f"{lines[0].rstrip().removesuffix(end)}, '\\n')\n"]
    return lines


def install(shell: InteractiveShell) -> None:
    """Register the magics and the completer with `shell`, in place of earlier ones."""
    uninstall(shell)
    magics = Interp(shell)
    shell.register_magics(magics)

    def matcher(context: Any) -> Any:
        from interp.magics.completer import complete

        return complete(context)

    from IPython.core.completer import context_matcher

    matched = context_matcher(identifier="interp", priority=100)(matcher)
    shell.Completer.custom_matchers.append(matched)
    shell.input_transformers_post.append(_with_body)


def uninstall(shell: InteractiveShell) -> None:
    """Take the magics and the completer out of `shell`; nothing happens where they are not there."""
    manager: Any = shell.magics_manager
    for kind in ("line", "cell"):
        manager.magics[kind].pop("interp", None)
    magics = manager.registry.pop("Interp", None)
    if magics is not None:
        shell.configurables[:] = [c for c in shell.configurables if c is not magics]
    shell.input_transformers_post[:] = [f for f in shell.input_transformers_post if f is not _with_body]
    shell.Completer.custom_matchers[:] = [
        m for m in shell.Completer.custom_matchers if getattr(m, "matcher_identifier", None) != "interp"
    ]
