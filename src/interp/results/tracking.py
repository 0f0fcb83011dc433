"""Results in an experiment tracker: Weights & Biases or TensorBoard."""

from __future__ import annotations

import functools
import importlib
import inspect
import io
import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from interp.errors import InputError
from interp.results import Result, as_data


def log(result: Result, run: Any, step: int | None = None) -> None:
    """Write a result's numbers, picture, table and provenance to a run; see `Result.log`."""
    name = result.provenance.technique or type(result).__name__.removesuffix("Result").lower()
    if hasattr(run, "add_scalar") and hasattr(run, "add_image"):
        _to_tensorboard(result, run, name, step)
    elif hasattr(run, "log") and type(run).__module__.partition(".")[0] == "wandb":
        _to_wandb(result, run, name, step)
    else:
        raise InputError(
            f"log takes a Weights & Biases run or a TensorBoard SummaryWriter; {type(run).__name__} is neither"
        )


def numbers(result: Result) -> Mapping[str, float]:
    """Return a result's single numbers by name, with the seconds and forwards that it took.

    Examples
    --------
    >>> from interp.results import Result
    >>> numbers(Result())
    {'seconds': 0.0, 'forwards': 0.0}
    """
    own = {field.name: getattr(result, field.name) for field in fields(result) if not field.name.startswith("_")}
    own |= {name: getattr(result, name) for name in _computed(type(result))}
    found = {
        name: float(value)
        for name, value in own.items()
        if isinstance(value, int | float | np.number) and not isinstance(value, bool | np.bool_)
    }
    return found | {"seconds": result.provenance.seconds, "forwards": float(result.provenance.forwards)}


@functools.cache
def _computed(kind: type[Result]) -> tuple[str, ...]:
    """Return the properties of a class of results that are single numbers, as they declare it."""
    return tuple(
        name
        for name, value in inspect.getmembers_static(kind)
        if isinstance(value, property)
        and not name.startswith("_")
        and value.fget.__annotations__.get("return") in {"float", "float | None"}
    )


def _to_wandb(result: Result, run: Any, name: str, step: int | None) -> None:
    wandb = importlib.import_module("wandb")
    said: dict[str, Any] = {f"{name}/{key}": value for key, value in numbers(result).items()}
    said[f"{name}/provenance"] = wandb.Html(f"<pre>{_escaped(_provenance(result))}</pre>", inject=False)
    table = _table(result)
    if table is not None:
        said[f"{name}/table"] = wandb.Table(dataframe=table)
    picture = _picture(result)
    if picture is not None:
        said[f"{name}/picture"] = wandb.Image(picture, caption=repr(result))
    run.log(said, step=step)


def _to_tensorboard(result: Result, writer: Any, name: str, step: int | None) -> None:
    for key, value in numbers(result).items():
        writer.add_scalar(f"{name}/{key}", value, global_step=step)
    picture = _picture(result)
    if picture is not None:
        writer.add_image(f"{name}/picture", np.asarray(picture), global_step=step, dataformats="HWC")
    table = _table(result)
    if table is not None:
        for key in (key for key in table.columns if table[key].dtype.kind == "f"):
            values = table[key].dropna().to_numpy()
            if len(values):
                writer.add_histogram(f"{name}/{key}", values, global_step=step)
    # TensorBoard reads Markdown: what is indented is shown as it is.
    indented = "\n".join(f"    {line}" for line in _provenance(result).split("\n"))
    writer.add_text(f"{name}/provenance", indented, global_step=step)


def _picture(result: Result) -> Any:
    """Return the picture as pixels, or ``None`` where the result has none."""
    try:
        png = result.png()
    except InputError:
        return None
    try:
        image = importlib.import_module("PIL.Image")
    except ImportError:
        raise InputError("pictures in a tracker need Pillow: pip install 'interp[track]'") from None
    drawn = image.open(io.BytesIO(png)).convert("RGBA")
    page = image.new("RGBA", drawn.size, "white")  # behind the frame's round corners
    page.alpha_composite(drawn)
    return page.convert("RGB")


def _table(result: Result) -> Any:
    try:
        return result.to_frame()
    except NotImplementedError:
        return None


def _provenance(result: Result) -> str:
    return json.dumps(as_data(result.provenance), indent=1, ensure_ascii=True)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
