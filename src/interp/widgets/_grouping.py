"""Views of graphs whose nodes can be grouped: groups are the result's own, each drawn as one pill or unfolded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import traitlets

from interp.results import Result
from interp.widgets._base import Widget, weakly
from interp.widgets._rpc import Handler, Reply, Request, parameters

if TYPE_CHECKING:
    from interp.methods._shared.circuit.groups import Groups


class GroupingWidget(Widget):
    """A view that shows and changes its result's ``groups``; a subclass says by `state` what the page shows of it."""

    groups = traitlets.Dict().tag(sync=True)

    _unobserve: Callable[[], object] = staticmethod(lambda: None)

    def __init__(self, result: Result, **traits: Any) -> None:
        self._unfolded: set[str] = set()
        super().__init__(result, **{**self._grouped(result), **traits})
        self._unobserve = _groups(result).observe(weakly(self.regroup))

    def state(self, result: Any, folded: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
        """Return what the page shows, as traits, where `folded` are drawn as one."""
        raise NotImplementedError

    @property
    def unfolded(self) -> list[str]:
        """The groups whose nodes are drawn one by one."""
        return sorted(self._unfolded)

    def handlers(self) -> Mapping[str, Handler]:
        """Return the requests that change groups."""
        return {"group": self._on_group, "rename": self._on_rename, "ungroup": self._on_ungroup, "fold": self._on_fold}

    def regroup(self) -> None:
        """Show the groups as they are now."""
        self._unfolded &= set(_groups(self.result))
        # In one message: each of them says how the others are to be read.
        with self.hold_sync():
            for name, value in self._grouped(self.result).items():
                setattr(self, name, value)

    def close(self) -> None:
        """Close the view and let go of the result and its groups."""
        self._unobserve()
        super().close()

    def _grouped(self, result: Result) -> dict[str, Any]:
        groups = _groups(result)
        shown = {name: {"nodes": list(nodes), "folded": name not in self._unfolded} for name, nodes in groups.items()}
        folded = {name: nodes for name, nodes in groups.items() if name not in self._unfolded}
        return {**self.state(result, folded), "groups": shown}

    def _on_group(self, params: Mapping[str, Any], request: Request) -> Reply:  # noqa: ARG002
        """Make a group of nodes."""
        name, nodes = parameters(params, name=str, nodes=list)
        _groups(self.result).form(name.strip(), nodes)
        return Reply()

    def _on_rename(self, params: Mapping[str, Any], request: Request) -> Reply:  # noqa: ARG002
        name, to = parameters(params, name=str, to=str)
        _groups(self.result).rename(name, to.strip())
        return Reply()

    def _on_ungroup(self, params: Mapping[str, Any], request: Request) -> Reply:  # noqa: ARG002
        (name,) = parameters(params, name=str)
        del _groups(self.result)[name]
        return Reply()

    def _on_fold(self, params: Mapping[str, Any], request: Request) -> Reply:  # noqa: ARG002
        """Draw a group as one, or its nodes."""
        name, folded = parameters(params, name=tuple(_groups(self.result)), folded=range(2))
        (self._unfolded.discard if folded else self._unfolded.add)(name)
        self.regroup()
        return Reply()


def _groups(result: Any) -> Groups:
    return result.groups
