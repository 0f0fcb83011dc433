"""What every attention head does: on repeated random tokens, between words, in ioi, from a span to another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np

from interp.errors import InputError, unless_interrupted
from interp.interface.registry import technique
from interp.methods._shared import labels as kept
from interp.methods._shared import names
from interp.methods._shared.heads.scores import Scored
from interp.methods._shared.intervals import interval, too_few
from interp.methods._shared.named_positions import named
from interp.methods._shared.prompts_of import prompts_of
from interp.results import Result
from interp.results.tables import frame_of
from interp.spans import Positions
from interp.spec import Node, Variable

if TYPE_CHECKING:
    import pandas as pd

    from interp.engine.model.loaded import LoadedModel
    from interp.results.tables import Float

# Attention that makes a class of its own, R² that does, and attention beyond the baseline for a relation; copying.
_ATTENTION, _POSITION, _BEYOND, _COPYING = 0.4, 0.9, 0.2, 0.7
_PATTERNS = ("previous_token", "current_token", "duplicate_token", "induction")
_DRAWS = {"random": 10, "relation": 60, "task": 32}


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class HeadsResult(Result):
    """Scores of every head.

    Attributes
    ----------
    kind
        ``"random tokens"``, the relation's name, the task's, or ``"prompts"``.
    n
        How many prompts, sentences or pairs the scores are the means of.
    scores, spread
        Score → ``float64 [layer, head]``: the mean, and the standard deviation over prompts. Attention scores are
        weights, ``copying`` is Σλ/Σ|λ| of the OV circuit, ``position_only`` is R²; ``anti_induction``,
        ``direct_effect``, ``s_inhibition`` and ``backup`` are logits.
    chance
        Score → ``float64 [layer, head]``: what a head that does nothing of the kind has.
    interval
        Score → ``float64 [2, layer, head]``: the 95 % interval of the mean over prompts; NaN for fewer than four.
    labels
        Head (``"5.1"``) → its class; heads that no criterion fits have none.
    criteria
        Class → what makes a head one of it, thresholds and all.
    measured
        Class → the score that its heads are listed by.
    losses
        Mean loss on the random tokens and on their repeat, in nats; NaN elsewhere.
    spans
        From where to where attention was scored, where that was asked for: the only score is called ``"END → IO"``
        then, and no head has a class.
    """

    kind: str
    n: int
    scores: Mapping[str, Float]
    spread: Mapping[str, Float]
    chance: Mapping[str, Float]
    interval: Mapping[str, Float]
    labels: Mapping[str, str]
    criteria: Mapping[str, str]
    measured: Mapping[str, str]
    losses: tuple[float, float] = field(default=(float("nan"), float("nan")))
    spans: tuple[str, ...] = ()

    _html: ClassVar[str] = "interp.views.head_scores:html"
    _svg: ClassVar[str | None] = "interp.views.head_scores:svg"

    def summary(self) -> str:
        """Return how many heads of each class there are; of spans, the strongest heads."""
        if self.spans:
            strongest = ", ".join(f"{name} {self.of(name, *self.scores):.2f}" for name in self.top(n=5))
            return f"{self.provenance.model}: {self.kind}, n = {self.n}: {' → '.join(self.spans)}: {strongest}"
        held = list(self.labels.values())
        counts = ", ".join(f"{held.count(label)} {label}" for label in self.criteria if label in held)
        return f"{self.provenance.model}: {self.kind}, n = {self.n}: {counts or 'no head fits a class'}"

    def text(self) -> str:
        """Return each class with its strongest heads, one class to a line."""
        lines = [super().text()]
        if self.spans:
            lines += [self.evidence(name) for name in self.top(n=8)]
        for label in self.criteria:
            named = [f"{name} {self.of(name):.2f}" for name in self.top(label, 8)]
            if named:
                lines.append(f"{label} ({self.measured[label].replace('_', ' ')}): {', '.join(named)}")
        return "\n".join(lines)

    def top(self, label: str | None = None, n: int | None = None) -> list[str]:
        """Return the heads of a class, strongest first; of spans, and where no class is named, all heads so.

        Raises
        ------
        InputError
            No class is named, and there are several scores.

        Examples
        --------
        >>> interp.heads().top("induction", 1)
        ['1.0']
        """
        if label is None:
            if len(self.scores) > 1:
                raise InputError(f"name a class of heads: {', '.join(self.criteria)}")
            (values,) = self.scores.values()
            order = np.argsort(-np.nan_to_num(values, nan=-1.0), axis=None, kind="stable")[:n]
            return [f"{at // values.shape[1]}.{at % values.shape[1]}" for at in order.tolist()]
        held = [name for name, own in self.labels.items() if own == label]
        return sorted(held, key=lambda name: -abs(self.of(name)))[:n]

    def of(self, head: str, score: str | None = None) -> float:
        """Return a head's score; the one that its class is listed by when not named.

        Raises
        ------
        InputError
            No such head or score, or a head without a class and no score named.
        """
        layers, heads = next(iter(self.scores.values())).shape
        refusal = f"no head {head!r}; layers are 0–{layers - 1}, heads 0–{heads - 1}: write 0.0, for instance"
        node = names.head(head, refusal)
        if node.layer >= layers or node.head >= heads:
            raise InputError(refusal)
        if score is None and self.spans:
            (score,) = self.scores
        name = score or self.measured.get(self.labels.get(node.name, ""), "")
        if name not in self.scores:
            raise InputError(f"name a score of head {head}: {', '.join(self.scores)}")
        return float(self.scores[name][node.layer, node.head])

    def evidence(self, head: str) -> str:
        """Return why a head has its class: its score, how far that is from chance, and the criterion.

        Examples
        --------
        >>> interp.heads().evidence("1.0")
        'induction: ...'
        """
        value = self.of(head)
        node = Node.parse(head)
        label, at = self.labels.get(node.name, ""), (node.layer, node.head)
        name = self.measured[label] if label else next(iter(self.scores))
        chance, spread = float(self.chance[name][at]), float(self.spread[name][at])
        beyond = chance > 1e-9 and (label or value >= 1.5 * chance)
        times = f" ({value / chance:.0f} times as much)" if beyond else ""
        if not label:
            low, high = self.interval[name][(slice(None), *at)]
            sure = f" [{low:.2f}, {high:.2f}]" if np.isfinite(low) else ""
            return f"{node.name} {name}: {value:.2f}{sure}, even attention {chance:.2f}{times}"
        return f"{label}: {value:.2f} ± {spread:.2f}, chance {chance:.2f}{times}; {self.criteria[label]}"

    def to_frame(self) -> pd.DataFrame:
        """Return one row per head: layer, head, label, and each score with its sd over prompts and its chance."""
        layers, heads = next(iter(self.scores.values())).shape
        index = [(layer, head) for layer in range(layers) for head in range(heads)]
        table = frame_of(index, columns=["layer", "head"])
        table["label"] = [self.labels.get(f"{layer}.{head}", "") for layer, head in index]
        for name, values in self.scores.items():
            table[name] = values.reshape(-1)
            table[f"{name}_sd"] = self.spread[name].reshape(-1)
            table[f"{name}_chance"] = self.chance[name].reshape(-1)
        return table


@technique(body=None, changes=True)
def heads(
    model: LoadedModel,
    *,
    n: int | None = None,
    seed: int = 0,
    relation: Literal["subject-verb", "modifier"] | None = None,
    task: Annotated[str, "task"] | None = None,
    from_: Positions = None,
    to: Positions = None,
    prompts: Variable = None,
) -> HeadsResult:
    """What every head does: previous-token, duplicate-token, induction, copying … heads, with chance and spread.

    Parameters
    ----------
    n
        How many prompts of random tokens (10 when not given), sentences of a relation (60), or pairs of a task (32).
    seed
        Of the first prompt; the next ones are drawn from the seeds after it.
    relation
        Score attention between words that depend on each other instead.
    task
        Name the parts that heads play in a task instead: duplicate token, S-inhibition, name mover, negative and backup
        name mover, in ioi alone. Not every model has them all: SmolLM2-135M, of 32 pairs, has no backup. With --from
        and --to, the task whose clean prompts are read, which may be any.
    from_, to
        Score attention from one span's tokens to another's instead, such as --from END --to IO: by the names of spans,
        or by positions. What goes to all of the one's tokens is added up, the mean over the other's is taken.
    prompts
        With --from and --to, and no task: marked prompts, pairs, or a task's result; in a magic, a variable's name.

    Returns
    -------
    HeadsResult
        ``scores`` are ``float64 [layer, head]`` by name; ``labels`` show as dots in the attention viewer from then on.

    Raises
    ------
    InputError
        Fewer than two prompts, a relation and a task at once, or what the model cannot be asked.
    Interrupted
        Stopped by Ctrl-C once some prompts, sentences or the task's first run are there: what they give is in its
        ``result``, and labels in the attention viewer stay as they were.

    Notes
    -----
    The prompts are BOS and 50 different random tokens, twice (Olsson et al. 2022, "In-context Learning and Induction
    Heads"). Scores are mean attention: previous and current token over all queries, first token over those of the first
    copy, duplicate token and induction over those of the second. ``copying`` is Σλ/Σ|λ| of the OV circuit (Elhage et
    al. 2021), ``position_only`` is `explained`, ``anti_induction`` is minus the head's direct effect on the logit of
    the token that comes again, over the mean logit, the final norm frozen.

    From span to span a head's score is its attention summed over the keys of `to`, with the mean over the queries of
    `from_` and over prompts; its chance is even attention to all that these queries see.

    Examples
    --------
    >>> interp.heads(n=10).top("induction")
    ['1.0']
    >>> interp.heads(task="ioi", from_="END", to="IO", n=16).top(n=2)
    ['2.1', '1.0']
    """
    from interp.methods._shared.heads import relations, roles, scores

    if relation is not None and task is not None:
        raise InputError("heads takes --relation or --task, not both")
    if from_ is not None or to is not None or prompts is not None:
        return _between(model, n, seed, relation, task, from_, to, prompts)
    if task is not None and task.lower() != "ioi":
        raise InputError(f"heads' parts are known in ioi; in {task} say where they look: --from END --to …")
    kind = "relation" if relation is not None else "task" if task is not None else "random"
    count = _DRAWS[kind] if n is None else n
    if count < 2:
        raise InputError(f"--n {count} has no spread; use 2 or more")
    if task is not None:
        found = roles.roles(model, count, seed)
        scored = Scored(found.each, found.chance, notes=found.notes, interrupt=found.interrupt)
        labels, criteria = found.labels, found.criteria
        measured = dict(zip(criteria, _ROLES, strict=True))
    elif relation is not None:
        scored = relations.score(model, relation, count, seed)
        labels, criteria, measured = _related(scored, relation)
    else:
        scored = scores.score(model, count, seed)
        labels, criteria, measured = _classified(scored)
    interrupt = scored.interrupt
    if interrupt is None:
        try:
            kept.keep(model, {head: label for head, label in labels.items() if label not in _RESTING})
        except KeyboardInterrupt as stopped:  # which comes too late to lose what is all there
            interrupt = stopped
    result = HeadsResult(
        kind=relation or task or "random tokens",
        n=len(next(iter(scored.each.values()))),
        scores={name: each.mean(0) for name, each in scored.each.items()},
        spread={name: each.std(0, ddof=1) for name, each in scored.each.items()},
        chance=scored.chance,
        interval={name: interval(each) for name, each in scored.each.items()},
        labels=labels,
        criteria=criteria,
        measured=measured,
        losses=scored.losses,
        notes=(*scored.notes, *too_few(len(next(iter(scored.each.values()))), "prompts")),
    )
    return unless_interrupted(result, interrupt)


def _between(
    model: LoadedModel,
    n: int | None,
    seed: int,
    relation: str | None,
    task: str | None,
    from_: Any,
    to: Any,
    given: Any,
) -> HeadsResult:
    """Return every head's attention from one span to another."""
    from interp.methods._shared.heads import between

    if from_ is None or to is None:
        raise InputError("--from and --to go together: from where to where attention is scored, --from END --to IO")
    if relation is not None or (task is None) == (given is None):
        raise InputError("attention from span to span is read in one of them: a --task, or prompts=… with marks")
    found = prompts_of(model, given, task, n=_DRAWS["task"] if n is None else n, seed=seed)
    scored = between.score(model, found.spanned, from_, to)
    count = len(next(iter(scored.each.values())))
    result = HeadsResult(
        kind=found.task or "prompts",
        n=count,
        scores={name: each.mean(0) for name, each in scored.each.items()},
        spread={name: each.std(0, ddof=1) if count > 1 else each[0] * np.nan for name, each in scored.each.items()},
        chance=scored.chance,
        interval={name: interval(each) for name, each in scored.each.items()},
        labels={},
        criteria={},
        measured={},
        spans=(named(from_), named(to)),
        notes=(*scored.notes, *too_few(count, "prompts")),
    )
    return unless_interrupted(result, scored.interrupt)


# The scores that the roles of `head_roles` are listed by, in their order.
_ROLES = ("direct_effect", "direct_effect", "s_inhibition", "backup", "duplicate_token")
# Most heads of many models rest on the first token: dots on all of them would say nothing.
_RESTING = frozenset({"first token", "position only"})


def _classified(scored: Scored) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Return the classes on random tokens: labels, criteria, and the score that each class is listed by."""
    mean = {name: each.mean(0) for name, each in scored.each.items()}
    spread = {name: each.std(0, ddof=1) for name, each in scored.each.items()}
    surely = {name: mean[name] - 2 * spread[name] > scored.chance[name] for name in mean}
    named = {name: name.replace("_", " ") for name in _PATTERNS}
    levels = {name: scored.chance[name].flat[0] for name in (*_PATTERNS, "first_token")}
    criteria = {
        named[name]: f"attention {_ATTENTION} or more, and more than 2 sd above chance, {levels[name]:.3f}"
        for name in _PATTERNS
    }
    measured = {named[name]: name for name in _PATTERNS}
    if "anti_induction" in mean:
        criteria["anti-induction"] = (
            f"induction attention more than 2 sd above chance, {levels['induction']:.3f}, and a direct effect on the "
            "token that comes again more than 2 sd below 0"
        )
        measured["anti-induction"] = "anti_induction"
    criteria["same token"] = (
        f"attention {_ATTENTION} or more to the current token, half of that or more to its earlier copy, and both more "
        "than 2 sd above chance"
    )
    measured["same token"] = "duplicate_token"
    criteria["first token"] = f"attention {_ATTENTION} or more to position 0, chance {levels['first_token']:.3f}"
    if "copying" in mean:
        criteria["copying"] = (
            f"Σλ/Σ|λ| of the OV circuit {_COPYING} or more, and more than 2 sd above 0, which is {scored.shuffled:.2f} "
            "with shuffled output tokens; of none of the classes above"
        )
        measured["copying"] = "copying"
    criteria["position only"] = f"R² of the pattern by position alone {_POSITION} or more, and of no other class"
    measured |= {"first token": "first_token", "position only": "position_only"}
    labels: dict[str, str] = {}
    for layer, head in np.ndindex(mean["induction"].shape):
        at = (layer, head)
        fits = [name for name in _PATTERNS if mean[name][at] >= _ATTENTION and surely[name][at]]
        against = "anti_induction" in mean and surely["induction"][at] and surely["anti_induction"][at]
        best = max(fits, key=lambda name: mean[name][at], default="")
        if against and best in {"", "induction"}:
            labels[f"{layer}.{head}"] = "anti-induction"
        elif (
            best == "current_token" and mean["duplicate_token"][at] >= _ATTENTION / 2 and surely["duplicate_token"][at]
        ):
            labels[f"{layer}.{head}"] = "same token"
        elif best:
            labels[f"{layer}.{head}"] = named[best]
        elif mean["first_token"][at] >= _ATTENTION and surely["first_token"][at]:
            labels[f"{layer}.{head}"] = "first token"
        elif "copying" in mean and mean["copying"][at] >= max(_COPYING, 2 * scored.shuffled):
            labels[f"{layer}.{head}"] = "copying"
        elif mean["position_only"][at] >= _POSITION:
            labels[f"{layer}.{head}"] = "position only"
    return labels, criteria, measured


def _related(scored: Scored, relation: str) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    each = scored.each["beyond_distance"]
    sure = (interval(each)[0] > 0) & (each.mean(0) >= _BEYOND)
    labels = {f"{layer}.{head}": relation for layer, head in np.argwhere(sure).tolist()}
    criterion = f"attention {_BEYOND} or more above the same distance elsewhere, with the whole interval above 0"
    return labels, {relation: criterion}, {relation: "beyond_distance"}
