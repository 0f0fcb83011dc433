"""Ablations of more texts than are held: some are run at a time, with every component taken away, and let go of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.lazy import Lazy
from interp.methods._shared import named_positions, texts
from interp.methods._shared.patching import samples as measured
from interp.spec import Prompt, Texts

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.patching.ablation import Ablated, Job
    from interp.engine.patching.driver import OnStep
    from interp.methods._shared.patching.taken_away import Away
    from interp.metric import Metric
    from interp.results.tables import Float

_NUMBERS = 1 << 26  # characters × width of the residual stream × layers that runs begin at, of what is run at a time


def applies(data: Any, away: Away, mode: str) -> bool:
    """Return whether texts can be run some at a time: they are many, and what parts become is not taken from others."""
    return isinstance(data, Texts) and isinstance(data.texts, Lazy) and (mode == "zero" or not away.replaces)


def ablated(
    model: LoadedModel, data: Texts, away: Away, metric: Metric, mode: str, seed: int
) -> tuple[Ablated, Float, int]:
    """Return what the runs gave, the tokens that each text predicts, and of how many texts the ids are on record.

    Of all texts nothing is kept but their values, ``float64 [condition, text]``.

    Raises
    ------
    InputError
        As of texts that are held.
    """
    import torch

    from interp.engine import metrics
    from interp.engine.patching import ablation

    read = away.read(data).texts
    total, first, noted = len(read), 0, 0
    whole: Ablated | None = None
    shape = 1 + len(away.components) + (len(away.components) > 1), total
    values, done = torch.full(shape, float("nan"), dtype=torch.float64), torch.zeros(shape, dtype=torch.bool)
    weights = np.ones(total)
    for some in _parts(read, model.geometry.d_model * len({part.layer for part in away.parts})):
        encoded = texts.encode(model, Texts(some), first=first)
        if not first:
            noted = len(some)
            if metric.several:
                shortest = min(len(one.ids) for one in encoded)
                metrics.try_out(metric, model.geometry.d_vocab_out, model.device, shortest)
        prompts = named_positions.of_texts(model, encoded, first=first) if away.named else []
        samples = away.placed(model, measured.of_texts(model, encoded, metric), prompts, first=first)
        job = ablation.ablate(
            model,
            samples,
            away.parts,
            mode=mode,
            references=[],
            components=away.components,
            at=away.where(prompts),
            seed=seed,
            on_step=_told(model, first, total, len(away.components)),
        )
        if whole is None:
            _foresee(model, job, -(-total // len(some)))
        ran = job.run()
        if whole is None:
            whole = ran
        here = slice(first, first + len(some))
        values[:, here], done[:, here] = ran.values, ran.done
        if metric.of_text:
            weights[here] = [len(one.ids) - 1 for one in samples]
        whole.notes += [note for note in ran.notes if note not in whole.notes]
        first += len(some)
        if ran.stopped:
            whole.stopped, whole.interrupt = ran.stopped, ran.interrupt
            break
    assert whole is not None
    whole.values, whole.done = values, done
    return whole, weights, noted


def _parts(read: Iterable[Prompt], width: int) -> Iterator[list[Prompt]]:
    """Yield the texts, as many together as leave room for `width` numbers of each token of the runs without change."""
    part: list[Prompt] = []
    characters = 0  # no fewer than tokens, and about four times as many
    for prompt in read:
        part.append(prompt)
        characters += len(prompt.text or prompt.ids or "")
        if characters * width >= _NUMBERS or len(part) == texts.HELD:
            yield part
            part, characters = [], 0
    if part:
        yield part


def _told(model: LoadedModel, first: int, total: int, components: int) -> OnStep:
    """Return what tells how far it is of all texts."""
    runs = 1 + components + (components > 1)

    def told(done: int, of: int) -> None:  # noqa: ARG001
        model.on_step(first * runs + done, total * runs)

    return told


def _foresee(model: LoadedModel, job: Job, parts: int) -> None:
    """Forecast as many parts as there are by the first."""
    from interp.engine.forecast.costs import foresee
    from interp.engine.forecast.work import total
    from interp.engine.patching import foreseen

    def work() -> Any:
        sight, one = foreseen.of_ablation(job)
        return sight, total([one] * parts)

    foresee(model, work)


def note(count: int, of: int) -> Sequence[str]:
    """Return what is said where the ids of some texts alone are on record."""
    return [] if count >= of else [f"the token ids of the first {count:,} of {of:,} texts are in the provenance"]
