"""What an ablation measures: the clean prompts of pairs, or texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from interp.errors import InputError
from interp.methods._shared import several

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.model.tokens import Encoded
    from interp.engine.patching.ablation import Sample
    from interp.methods._shared.pairs import Encodings
    from interp.metric import Metric

Ids = tuple[int, ...]


def of_pairs(
    model: LoadedModel, pairs: Sequence[Encodings], metric: Metric
) -> tuple[list[Sample], list[Ids], list[int]]:
    """Return pairs as what is measured, the prompts that means are taken over, and of which pair each sample is.

    Answers of several tokens stand behind both.
    """
    from interp.engine.patching.ablation import Sample

    samples: list[Sample] = []
    references: list[Ids] = []
    of: list[int] = []
    for number, e in enumerate(pairs):
        for more, position, scorer in several.rows(model, e, metric, e.clean):
            samples.append(Sample(e.clean.ids + more, position, scorer))
            references += [e.clean.ids + more, e.corrupted.ids + more]
            of.append(number)
    return samples, references, of


def of_texts(model: LoadedModel, encoded: Sequence[Encoded], metric: Metric) -> list[Sample]:
    """Return texts as what is measured.

    Raises
    ------
    InputError
        A metric of pairs, a span's loss, or a token without a logit.
    """
    from interp.engine.patching.ablation import Sample

    if not metric.several or metric.span:
        raise InputError(
            f"texts are measured by their loss or by a function of all their logits (positions = 'all'), and "
            f"{metric.name} is neither; give pairs or a --task"
        )
    if metric.of_text:
        return [Sample(one.ids, len(one.ids) - 2, several.loss_of(model, one.ids)) for one in encoded]
    return [Sample(one.ids, len(one.ids) - 1, several.all_of(metric, one.ids)) for one in encoded]
