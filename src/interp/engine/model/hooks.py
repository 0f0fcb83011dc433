"""The only place that installs hooks. What it installs is gone when its scope ends, whatever ended the scope."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint, LensHandle

# The dictionaries in which torch keeps a module's hooks.
_HOOK_DICTS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)

_HELD: Any = itemgetter(*_HOOK_DICTS)

Hook = Callable[..., Any]


class Interrupts:
    """A scope in which Ctrl-C can stop the work but never the setting up or the tearing down.

    While `allowed` is false an interrupt waits; it is delivered when the scope has ended. While it is true an
    interrupt goes to the handler that was there before, once: delivering it turns `allowed` off, so that the tearing
    down that follows is not itself interrupted; a second one meanwhile asks for what is happening already, and is
    dropped. Threads other than the main one get no signals and need no scope.
    """

    def __init__(self) -> None:
        self.allowed = False
        self._delivered = False
        self._waiting: tuple[int, FrameType | None] | None = None
        self._previous: Any = None
        self._installed = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.allowed:
            self._waiting = (number, frame)
            return
        self.allowed = False
        self._delivered = True
        self._previous(number, frame)

    def begin(self) -> None:
        """Hold interrupts back from here on."""
        if threading.current_thread() is not threading.main_thread():
            return
        current = signal.getsignal(signal.SIGINT)
        if not callable(current):  # ignored, the system's default, or not Python's: nothing raises here
            return
        self._previous = current
        self._installed = True
        signal.signal(signal.SIGINT, self._handle)

    def end(self) -> None:
        """Put the earlier handler back and deliver an interrupt that waited."""
        self.allowed = False
        if not self._installed:
            return
        self._installed = False
        signal.signal(signal.SIGINT, self._previous)
        if self._waiting is not None and not self._delivered:
            self._previous(*self._waiting)


def interruptible(
    body: Callable[[], Any], *, before: Callable[[], Any] | None = None, after: Callable[[], Any] | None = None
) -> Any:
    """Call `body`; of the interrupts that come meanwhile the first one stops it, and only that one is delivered.

    `before` and `after` are not stopped: an interrupt waits until they are through. `after` runs whatever happens, also
    where `before` fails.
    """
    interrupts = Interrupts()
    interrupts.begin()
    try:
        if before is not None:
            before()
        interrupts.allowed = True
        return body()
    finally:
        interrupts.allowed = False
        try:
            if after is not None:
                after()
        finally:
            interrupts.end()


def undisturbed(body: Callable[[], Any]) -> None:
    """Call `body`, which is short; an interrupt waits until it is through.

    Python's own locks are no place for one: what starts a thread, or waits for one, can be left with a lock that it
    neither has nor has given back.
    """
    interruptible(lambda: None, before=body)


def run_hooked(
    points: Sequence[tuple[HookPoint, Hook]],
    body: Callable[[], Any],
    *,
    before: Callable[[], Any] | None = None,
    after: Callable[[], Any] | None = None,
    gradients: bool = False,
) -> Any:
    """Call `body` with forward hooks on `points`, and take them off again.

    An interrupt during `body` stops it; one during the installing or the removing waits until the hooks are off.
    Gradients are off meanwhile unless asked for. This is not ``torch.no_grad``, whose leaving an interrupt can prevent:
    the user's own backward would fail from then on.

    Parameters
    ----------
    points
        Hook points and functions ``(tensor, hook=point) -> tensor | None``, installed in this order.
    body
        What runs with the hooks on.
    before, after
        Run next to the installing and the removing, held off from interrupts as those are (switches, for instance).
    gradients
        Whether autograd records what `body` does.

    Returns
    -------
    Any
        What `body` returned.
    """
    installed: list[tuple[HookPoint, LensHandle]] = []
    recording = torch.is_grad_enabled()

    def install() -> None:
        torch.set_grad_enabled(gradients)
        if before is not None:
            before()
        for point, hook in points:
            installed.append((point, point.add_hook(hook)))

    def remove() -> None:
        try:
            for point, handle in installed:
                handle.hook.remove()
                point.fwd_hooks[:] = [other for other in point.fwd_hooks if other is not handle]
            if after is not None:
                after()
        finally:
            torch.set_grad_enabled(recording)

    return interruptible(body, before=install, after=remove)


def guarded(body: Callable[[], Any], *, gradients: bool = False) -> Any:
    """Call `body`, with or without autograd; whatever ends it, autograd's switch is as it was before."""
    return run_hooked((), body, gradients=gradients)


def stoppable(tensor: Tensor) -> Tensor:
    """Return `tensor`; the backward pass through it can be stopped there.

    Autograd goes through a whole graph without coming back to Python, and Ctrl-C is heard nowhere else: put on each
    layer's stream, this is heard within a layer's time.
    """
    if tensor.requires_grad and not tensor.is_leaf:
        tensor.register_hook(_listen)
    return tensor


def _listen(gradient: Tensor) -> None:
    """Leave `gradient` as it is: that Python is called is enough."""


@dataclass(frozen=True)
class FoundHook:
    """A hook found on a module: where, in which of torch's dictionaries, and the function."""

    module: str
    kind: str
    function: Any

    def __str__(self) -> str:
        name = getattr(self.function, "__qualname__", None) or type(self.function).__qualname__
        return f"{self.module}: {name}"


def census(modules: Sequence[tuple[str, nn.Module]]) -> frozenset[tuple[str, str, int]]:
    """Return every hook on `modules` as (module, kind, id): equal before and after means that none leaked."""
    return frozenset((found.module, found.kind, id(found.function)) for found in _all_hooks(modules))


def foreign(modules: Sequence[tuple[str, nn.Module]]) -> list[FoundHook]:
    """Return the hooks on `modules` that neither transformer-lens nor interp put there: the user's own."""
    return [found for found in _all_hooks(modules) if not _is_wiring(found)]


def _all_hooks(modules: Sequence[tuple[str, nn.Module]]) -> Iterator[FoundHook]:
    # An unhooked module costs a few dictionary look-ups: a model has thousands, and every command asks.
    states: list[dict[str, Any]] = [module.__dict__ for _, module in modules]
    hooked = map(any, map(_HELD, states))
    for (name, module), state, of_torch in zip(modules, states, hooked, strict=True):
        point = isinstance(module, HookPoint)
        if not (of_torch or (point and (state["fwd_hooks"] or state["bwd_hooks"]))):
            continue
        if point:
            for kind, handles in (("fwd", module.fwd_hooks), ("bwd", module.bwd_hooks)):
                for handle in handles:
                    yield FoundHook(name, kind, handle.user_hook)
            known = {handle.hook.id for handle in (*module.fwd_hooks, *module.bwd_hooks)}
        else:
            known = set[int]()
        for kind in _HOOK_DICTS:
            for key, function in state[kind].items():
                if key not in known:
                    yield FoundHook(name, kind, function)
    for kind in _HOOK_DICTS:
        for function in getattr(nn.modules.module, f"_global{kind}").values():
            yield FoundHook("every module", kind, function)


def _is_wiring(found: FoundHook) -> bool:
    """Whether a library wired this hook itself: transformer-lens at boot and in its first forward, accelerate where it
    places a model, transformers to collect outputs once somebody has asked for attentions (`run_with_cache` does).

    On a hook point only transformer-lens' set-up does so: a library's patching function there is the user's doing.
    """
    module = getattr(getattr(found.function, "func", found.function), "__module__", None) or ""
    if found.kind in {"fwd", "bwd"}:
        return module == "transformer_lens.model_bridge.component_setup"
    return module.startswith(("transformer_lens.model_bridge", "accelerate.", "transformers.utils.output_capturing"))
