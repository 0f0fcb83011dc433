"""What the model says next with one cell of a sweep patched, and without."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from interp.errors import InputError
from interp.methods._shared import span_places
from interp.methods._shared.models import likeliest_of_both
from interp.sites import FEATURES, SITES
from interp.spec import Metric

if TYPE_CHECKING:
    from torch import Tensor

    from interp.engine.model.loaded import LoadedModel
    from interp.engine.patching.cases import Aligned
    from interp.methods._shared.patching.result import PatchingResult


def likeliest(
    model: LoadedModel, result: PatchingResult, cell: Sequence[int], top: int = 5
) -> list[tuple[str, float, float]]:
    """Return the likeliest next tokens of the first pair's run, with and without a cell patched.

    Parameters
    ----------
    model
        The model that the sweep ran on.
    result
        The sweep.
    cell
        An index into the sweep's arrays.
    top
        How many tokens of each run.

    Returns
    -------
    list
        (token string, probability unpatched, probability patched), the likeliest of the patched run first.

    Raises
    ------
    InputError
        A model whose forward is not known here, or activations that came from another model.
    """
    import torch

    from interp.engine import exactness
    from interp.engine.metrics import Scorer
    from interp.engine.model import hooks
    from interp.engine.patching.cases import Case
    from interp.engine.patching.hooked import patched_logits
    from interp.engine.transformer import network
    from interp.engine.transformer.forward import forward

    if result.provenance.arguments.get("from_model") is not None:
        raise InputError("the activations came from another model; run it with model.run and interventions instead")
    if result.site == FEATURES.name:
        return likeliest_of_both(model, *_with_features(model, result, cell), top)
    at = dict(zip(result.axes, cell, strict=True))
    layer, part, position = result.layers[at["layer"]], at.get("head", at.get("neuron")), at.get("position")
    place = position if "span" not in at else _span(result, at["span"])
    base, source = _runs(result)
    found: list[tuple[Tensor, Tensor]] = []

    def run(net: network.Network) -> tuple[Tensor, Tensor]:
        held: list[Tensor] = []
        index_of = partial(SITES[result.site].index, part)

        def take(index: int, tensor: Tensor) -> None:
            if index == layer:
                held.append(tensor)

        def put(index: int, tensor: Tensor) -> Tensor | None:
            if index != layer:
                return None
            patched = tensor.clone()
            given = held[0][0]
            if isinstance(place, tuple):
                for to, taken in place:
                    patched[1][index_of(to)] = torch.stack([given[index_of(one)] for one in taken]).mean(0)
            else:
                patched[1][index_of(place)] = given[index_of(place)]
            return patched

        before, after = (torch.tensor([ids], device=model.device) for ids in (source, base))
        forward(net, before, {result.site: take}, stop=layer + 1)
        end = forward(net, after.repeat(2, 1), {result.site: put})
        unpatched, patched = net.unembed(net.final(end[:, -1])).float().softmax(-1)
        return unpatched, patched

    def lean(check: exactness.Check) -> tuple[Tensor, Tensor]:  # noqa: ARG001
        exactness.require_known(result.site)
        net = network.read(model)
        found[:] = [hooks.guarded(lambda: run(net))]
        model.count(2)
        return found[0]

    def hooked() -> tuple[Tensor, Tensor]:
        case = Case(tuple(base), tuple(source), Scorer(Metric(), (), ()), len(base) - 1)
        patched = patched_logits(model, model, case, result.site, [(layer, part, place)])[0]
        unpatched = model.activations_of(case.base, ["last_logits"])["last_logits"][0]
        return unpatched.float().softmax(-1), patched.float().softmax(-1)

    before, after = exactness.run(
        model,
        ("likeliest", result.site),
        lean=lean,
        hooked=exactness.Refusal("a cell's likeliest tokens are computed", "use model.run with interventions"),
        sample=lambda: map(exactness.difference, found[0], hooked()),
        length=len(base),
    ).answer
    return likeliest_of_both(model, before, after, top)


def _span(result: PatchingResult, number: int) -> Aligned:
    """Return what a span of the first pair is given."""
    name, span = list(result.checks.spans[0].items())[number]
    align = str(result.provenance.arguments.get("align", "last"))
    return span_places.aligned(span, align, name, into_clean=result.direction == "noise")


def _with_features(model: LoadedModel, result: PatchingResult, cell: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the next tokens' probabilities without and with features patched, by the hooked forward."""
    from interp.engine.features import held
    from interp.engine.features.coded import coded
    from interp.engine.metrics import Scorer
    from interp.engine.patching.cases import Case
    from interp.engine.patching.features import patched_logits

    (name, digest), *_ = result.provenance.features.items()
    given = held.sets_of(model).get(name)
    if given is None or given.digest != digest:
        raise InputError(f"the features {name} were unloaded or replaced; load them and run the sweep again")
    at = dict(zip(result.axes, cell, strict=True))
    layer, feature = result.layers[at.get("layer", 0)], None
    if "feature" in at:
        layer, feature = map(int, getattr(result, "features")[at["feature"]].split("."))  # noqa: B009
    one = given.at(layer)
    base, source = _runs(result)
    case = Case(tuple(base), tuple(source), Scorer(Metric(), (), ()), len(base) - 1)
    put = coded(model, source, [one])[0].codes
    patched = patched_logits(model, [one], [put], case, [(0, feature, at.get("position"))])[0]
    unpatched = model.activations_of(case.base, ["last_logits"])["last_logits"][0]
    return unpatched.float().softmax(-1), patched.float().softmax(-1)


def _runs(result: PatchingResult) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the token ids of the run that is changed and of the one whose activations are put in."""
    clean, corrupted = result.provenance.prompts[:2]
    return (clean, corrupted) if result.direction == "noise" else (corrupted, clean)
