"""The session's own commands: loading, choosing, looking at and freeing models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from interp.errors import InputError, printable
from interp.interface.registry import command
from interp.methods._shared import features
from interp.methods._shared.models import way
from interp.results import Result
from interp.spec import DeviceName, DtypeName, LoadableName, ModelName, UnloadableName

if TYPE_CHECKING:
    import pandas as pd

    from interp.engine.model.loaded import LoadedModel
    from interp.interface.session import Session


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Table(Result):
    """A small table.

    Attributes
    ----------
    title
        One line that says what it lists.
    columns, rows
        Names, and one tuple of values to a row.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    _html: ClassVar[str] = "interp.views.kit.table:html"

    def summary(self) -> str:
        """Return the title."""
        return self.title

    def text(self) -> str:
        """Return the title and the rows, in aligned columns."""
        cells = [tuple(printable(str(value)) for value in row) for row in (self.columns, *self.rows)]
        widths = [max(len(row[n]) for row in cells) for n in range(len(self.columns))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
        ]
        return "\n".join(
            [printable(self.title), *(lines if self.rows else []), *(f"note: {printable(n)}" for n in self.notes)]
        )

    def __repr__(self) -> str:
        return f"Table({printable(self.title)})"

    def to_frame(self) -> pd.DataFrame:
        """Return the rows as a pandas table."""
        import pandas as pd

        return pd.DataFrame(list(self.rows), columns=list(self.columns))


@command
def load(
    session: Session,
    source: LoadableName | None = None,
    *,
    device: DeviceName | None = None,
    dtype: DtypeName | None = None,
    revision: str | None = None,
    remote_code: bool = False,
    adapter: str | None = None,
    max_memory: str | None = None,
    device_map: str | None = None,
    name: str | None = None,
    spill: float | None = None,
) -> LoadedModel:
    """Load a model and make it the current one: a folder, a hub name, a GGUF file; without a name, the bundled one.

    Parameters
    ----------
    source
        A folder, a .gguf file, an adapter's folder, or a hub name such as gpt2 or owner/name; the small model that
        comes with interp when not given.
    device
        auto (cuda, then mps, then cpu), cpu, cuda, cuda:0 or mps.
    dtype
        auto (float32 on a CPU, the checkpoint's elsewhere), float32, bfloat16, float16 or float64.
    revision
        The hub revision: a branch, a tag, or a commit hash.
    remote_code
        Allow the repository's own Python code to run; off unless given, and pinned by --revision.
    adapter
        A folder with a PEFT adapter, such as LoRA's, to merge in; in Python, a model object is copied first.
    max_memory
        How much of the weights may be in memory, such as 4GB: they stay in their safetensors files, in the dtype that
        they have there, and are read layer by layer, once for a whole sweep; with a GPU, of its memory.
    device_map
        auto or balanced: divided among the devices that are here, as accelerate does it; or a JSON file that says for
        modules where they go, such as {"model.layers.0": "cpu", "": "disk"}; in Python also a dict.
    name
        What to call the model here; its folder's or repository's name when not given.
    spill
        Gigabytes of temporary files that activations pushed out of memory may take; what %config says when not given.

    Returns
    -------
    LoadedModel
        Its ``bridge`` is the live TransformerBridge.

    Raises
    ------
    InputError
        Nothing is there, the hub cannot be reached, or the weights are pickles.

    Examples
    --------
    >>> interp.load(device="cpu")  # the bundled model; give a folder, a hub name, a GGUF file or a model for another
    LoadedModel(bundled: 4 layers × 4 heads, float32 on cpu, without hooks)
    """
    return session.load(
        source,
        device=device,
        dtype=dtype,
        revision=revision,
        remote_code=remote_code,
        adapter=adapter,
        max_memory=max_memory,
        device_map=device_map,
        name=name,
        spill=spill,
    )


@command
def models(session: Session) -> Table:
    """The loaded models: device, dtype, size; the current one is marked.

    Examples
    --------
    >>> interp.models()
    Table(1 model loaded)
    """
    from interp.engine.memory import readable

    rows = tuple(
        (
            "●" if name == session.current else "",
            name,
            f"{m.geometry.n_layers} × {m.geometry.n_heads}"
            + (f" ({m.geometry.n_kv_heads} KV)" if m.geometry.n_kv_heads != m.geometry.n_heads else ""),
            str(m.device),
            m.dtype,
            readable(m.nbytes),
            way(m),
        )
        for name, m in session.models.items()
    )
    count = f"{len(rows)} model{'' if len(rows) == 1 else 's'} loaded"
    return Table(
        title=count if rows else "no model is loaded; type %interp load, with a folder or a hub name if you like",
        columns=("current", "model", "layers × heads", "device", "dtype", "weights", "runs"),
        rows=rows,
    )


@command
def use(session: Session, name: ModelName) -> LoadedModel:
    """Make a loaded model the current one.

    Parameters
    ----------
    name
        Its name, as %interp models lists it.

    Raises
    ------
    InputError
        No such model is loaded.

    Examples
    --------
    >>> interp.use("bundled")
    LoadedModel(bundled: 4 layers × 4 heads, float32 on cpu, without hooks)
    """
    return session.use(name)


@command
def status(session: Session) -> Table:
    """The current model, memory, the activation store's account, and hooks of your own.

    Examples
    --------
    >>> interp.status()
    Table(bundled on cpu)
    """
    if session.current is None:
        return Table(
            title="no model is loaded; type %interp load, with a folder or a hub name if you like",
            columns=("what", "value"),
            rows=(),
        )
    from interp.engine.memory import free_bytes, readable
    from interp.interface.session import memory_in_use

    model = session.get()
    account = model.store.ledger()
    hooks = model.user_hooks()
    rows: list[tuple[str, str]] = [
        ("model", f"{model.name}, {model.dtype} on {model.device}, {readable(model.nbytes)}"),
        ("runs", way(model)),
        ("chat template", "there is one" if model.tokens.has_template else "none: chats need --no-template"),
        ("features", ", ".join(features.names(model)) or "none"),
        ("free memory", f"{readable(free_bytes(model.device))} on {model.device}"),
        ("this process", readable(memory_in_use()["process"])),
        (
            "store",
            f"{account.entries} entries, {readable(account.device_bytes + account.ram_bytes)} "
            f"of {readable(account.budget)}",
        ),
        ("store on disk", f"{readable(account.disk_bytes)} of {readable(account.disk_budget)}"),
        ("store hits", f"{account.hits} hits, {account.misses} misses"),
        ("forwards run", str(model.forwards)),
        ("your hooks", "none" if not hooks else f"{len(hooks)} (results are computed anew each time, past the store)"),
        *(("", hook) for hook in hooks),
    ]
    return Table(
        title=f"{model.name} on {model.device}", columns=("what", "value"), rows=tuple(rows), notes=model.notes
    )


@command
def clear(session: Session) -> Table:
    """Empty the activation stores and give the device's reserve back.

    Examples
    --------
    >>> interp.clear()
    Table(freed ... in ... entries)
    """
    if not session.models:
        return Table(title="nothing to clear: no model is loaded", columns=(), rows=())
    from interp.engine.memory import empty_cache, readable

    accounts = [model.store.ledger() for model in session.models.values()]
    for model in session.models.values():
        with model.lock:
            model.store.clear()
            features.forgotten(model)
            empty_cache(model.device)
    held = sum(a.device_bytes + a.ram_bytes + a.disk_bytes for a in accounts)
    return Table(title=f"freed {readable(held)} in {sum(a.entries for a in accounts)} entries", columns=(), rows=())


@command
def unload(session: Session, name: UnloadableName | None = None) -> Table:
    """Forget a model (the current one when not named) or a set of features, and free its memory.

    Parameters
    ----------
    name
        Its name, as %interp models or %interp features lists it; a model's features go with it.

    Raises
    ------
    InputError
        Nothing of that name is loaded.

    Examples
    --------
    >>> interp.load(name="second")
    LoadedModel(second: 4 layers × 4 heads, ...)
    >>> interp.unload("second")
    Table(second is unloaded; bundled is current)
    """
    held = set(session.models)
    gone = session.unload(name)
    now = f"; {session.current} is current" if session.current and held != set(session.models) else ""
    return Table(title=f"{gone} is unloaded{now}", columns=(), rows=())


__all__ = ["InputError", "Table", "clear", "load", "models", "status", "unload", "use"]
