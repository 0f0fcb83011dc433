"""An investigation: one prompt in, a tested explanation out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.errors import InputError, unless_interrupted
from interp.interface.registry import find, technique
from interp.methods._shared import pairs as pairs_of
from interp.methods._shared.investigation import account, asked, twin
from interp.methods._shared.investigation.result import InvestigateResult
from interp.methods._shared.investigation.steps import Steps
from interp.methods._shared.investigation.twin import Candidate
from interp.methods._shared.models import logits_of, require_causal
from interp.spec import Node, Pairs, Prompt, Texts, TokenName, resolve_metric

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel

_STEPS = 11  # of a whole investigation
_PLACED = 3  # heads that are patched at each position by itself
_MLPS = 100  # of whose places are patched exactly, the strongest by their estimates
_CIRCUIT = {"steps": 5}  # of a pair that saturates it would else be many
_EVIDENCE = {"random": 20, "top": 10}
_EDGES, _SHARE = 40, 200  # a circuit has one edge in so many, and that many at least
_CELLS = 3000  # runs of these at most


@technique(body=Pairs | Texts)
def investigate(
    model: LoadedModel,
    data: Pairs | Texts,
    *,
    target: TokenName | None = None,
    against: TokenName | None = None,
    twin: str | None = None,
    candidates: int = 128,
    heads: int = 5,
    verify: int = 300,
    edges: int | None = None,
    seed: int = 0,
) -> InvestigateResult:
    """An explanation of what a model says next, each sentence with the number that carries it and its control.

    Of one prompt it looks for a corrupted twin, the exchange of words that moves the answer most; then estimates what
    every head and MLP does, patches the strongest exactly, reads off the lens, direct effects and attention where that
    matters, finds the circuit and validates it. What does not exceed its control is said to be not established. Each
    step is a command of its own, named so that it can be typed.

    Parameters
    ----------
    data
        One prompt; or a pair of your own, or several, or a task's: of four or more, numbers have intervals.
    target
        The answer to explain, such as " Mary"; the model's own when not given.
    against
        What it is held against, such as " John"; the twin's own answer when not given.
    twin
        A corrupted prompt of as many tokens, in place of a search for one.
    candidates
        How many exchanges of words are tried; all when there are fewer.
    heads
        How many of the strongest heads the account tells of.
    verify
        How many heads, the strongest by their estimates, are patched exactly; all when there are fewer.
    edges
        How many edges the circuit keeps; one in 200, and 40 at least, when not given.
    seed
        Of a task's pairs, of random heads and of random circuits.

    Returns
    -------
    InvestigateResult
        The account, and the results of all steps.

    Raises
    ------
    InputError
        Several prompts, an answer that is not one token, a twin of another length, a prompt in which nothing can be
        exchanged, or a model that reads in both directions.
    Interrupted
        Stopped by Ctrl-C: the steps that are done, and what they establish, are in its ``result``.

    Notes
    -----
    A model solves a prompt where the answer's logit lies above the other one's: by 0.1 at least of a single prompt, by
    more than its 95 % interval of four pairs or more. A component is established where what patching it recovers lies
    3.5 robust deviations above the median of all others of its kind (Iglewicz and Hoaglin 1993) and at a hundredth of
    the difference or more, above a random head of its layer, and above rounding.

    Examples
    --------
    >>> found = interp.investigate("When Mary and John went to the store, John gave a drink to")
    >>> found.target[0], found.components[0]
    (' Mary', '3.0')
    """
    require_causal(model, "investigate")
    for name, value, least in (("candidates", candidates, 1), ("heads", heads, 1), ("verify", verify, 0)):
        if value < least:
            raise InputError(f"--{name} {value} is too few; use {least} or more")
    if edges is not None and edges < 1:
        raise InputError(f"--edges {edges} keeps nothing; use 1 or more")
    case = _Case(model, data, target, against, twin, candidates, seed)
    return case.run(heads, verify, edges)


@dataclass(frozen=True)
class _Given:
    """Pairs, how a call says them, and where they came from."""

    pairs: Pairs
    said: dict[str, Any]
    candidates: tuple[Candidate, ...] = ()


class _Case:
    """An investigation under way."""

    def __init__(
        self, model: LoadedModel, data: Pairs | Texts, target: Any, against: Any, twin: str | None, most: int, seed: int
    ) -> None:
        self.model, self.data, self.most, self.seed = model, data, most, seed
        self.target, self.against, self.twin = target, against, twin
        self.steps = Steps(model, lambda name: find(name).function, _STEPS)
        self.notes: list[str] = []
        if isinstance(data, Pairs):
            given = {"--target": target, "--against": against, "--twin": twin}
            idle = next((flag for flag, value in given.items() if value is not None), None)
            if idle is not None:
                raise InputError(f"{idle} is for one prompt; pairs have answers and corrupted prompts of their own")

    def run(self, heads: int, verify: int, edges: int | None) -> InvestigateResult:
        given = self._of_prompt(self.data) if isinstance(self.data, Texts) else self._of_pairs(self.data)
        if isinstance(given, _Given):
            if self.solved and account.moves(self.margins, self.changed):
                self._take_all(given, heads, verify, edges)
            else:
                self._predict(given)
        if not self.steps.results and self.steps.interrupt is not None:
            raise self.steps.interrupt
        return self._result(given if isinstance(given, _Given) else None, heads)

    # -- what is explained ---------------------------------------------------------------------------------------------

    def _of_prompt(self, texts: Texts) -> _Given | None:
        """Return the prompt with its twin; ``None`` where the model does not solve it."""
        model = self.model
        prompt = asked.one_prompt(texts)
        encoded = model.encode(prompt)
        found = asked.prediction(model, prompt, self.target, self.against, logits_of(model, encoded).float())
        self.found, self.margins = found, np.array([found.margin])
        self.solved = found.margin >= account.LEAST
        self.tokens = encoded.strings
        if not self.solved:
            where = {"prompt": prompt.plain if twin.is_plain(prompt) else list(encoded.ids)}
            where |= {} if prompt.bos is None else {"bos": prompt.bos}
            self.steps.take("predict", "predict", prompt, where, {} if not found.given else {"answer": self.target})
            return None
        model.alive("looking for a corrupted twin")
        if self.twin is not None:
            every = (asked.given_twin(model, prompt, self.twin, found, self.against),)
        else:
            held = found.against if self.against is not None else None
            searched = twin.search(model, prompt, found.target, held, self.most)
            every = searched.candidates
            if searched.left_out:
                self.notes.append(
                    f"{len(every)} exchanges of words were tried and {searched.left_out} more were not: --candidates"
                )
        pairs, said = asked.pair_of(model, prompt, every[0], found.target)
        self.margins, self.changed = np.array([every[0].clean]), np.array([every[0].changed])
        self.found = replace(found, against=every[0].against[1], margin=every[0].clean)
        return _Given(pairs, self._said(said), () if self.twin is not None else every)

    def _of_pairs(self, pairs: Pairs) -> _Given:
        """Return pairs as they are given; whether they are solved is measured."""
        model = self.model
        metric = resolve_metric("logit-diff")
        encoded = pairs_of.encode(model, replace(pairs, metric=""), metric)
        cases = pairs_of.cases(model, encoded, metric, "denoise")
        logits = [[logits_of(model, one).float() for one in (e.clean, e.corrupted)] for e in encoded]
        both = np.array(
            [
                [float(case.scorer.of_logits(one[None])[0]) for one in own]
                for case, own in zip(cases, logits, strict=True)
            ]
        )
        self.margins, self.changed = both[:, 0], both[:, 1]
        self.solved = account.exceeds(self.margins)
        first = encoded[0]
        top = int(logits[0][0].argmax()) in first.answer
        self.found = asked.Prediction(first.answer[0], first.wrong[0], float(self.margins.mean()), True, top)
        self.tokens = first.clean.strings
        given = {} if model.operation is None else model.operation.arguments
        return _Given(replace(pairs, metric=""), self._said(asked.said_of(given)))

    def _said(self, said: dict[str, Any]) -> dict[str, Any]:
        given = {} if self.model.operation is None else self.model.operation.arguments
        return {**said, **({"model": given["model"]} if given.get("model") is not None else {})}

    # -- the steps -----------------------------------------------------------------------------------------------------

    def _predict(self, given: _Given) -> None:
        body, where, own = asked.of_prompts(given.pairs, given.said)
        answer = {} if own.get("answer") is None else {"answer": own["answer"]}
        self.steps.take("predict", "predict", body, where, answer)

    def _take_all(self, given: _Given, heads: int, verify: int, edges: int | None) -> None:
        model, pairs, said, take = self.model, given.pairs, given.said, self.steps.take
        g = model.geometry
        self._predict(given)
        if "clean" in said:
            where = {"prompt": said["corrupted"], **{k: said[k] for k in ("bos", "template", "model") if k in said}}
            take("twin", "predict", pairs.pairs[0].corrupted, where, {})
        most = min(verify, g.n_layers * g.n_heads)
        how = {"method": "attribution", "verify": most}
        found: Any = take("heads", "patch", pairs, said, {"site": "z", "by": "head", **how})
        lengths = {len(model.encode(pair.clean).ids) for pair in pairs.pairs}
        if "mlp_out" in model.sites:
            by = "position" if len(lengths) == 1 else "layer"
            count = g.n_layers * (min(lengths) if by == "position" else 1)
            how = {"method": "attribution", "verify": min(verify, count, _MLPS)}
            take("MLPs", "patch", pairs, said, {"site": "mlp_out", "by": by, **how})
        named = [] if found is None else account.strongest_heads(found, heads)
        layers = tuple(sorted({Node.parse(name).layer for name in named}))
        if layers:
            take("removed", "patch", pairs, said, {"site": "z", "by": "head", "direction": "noise", "layer": layers})
        placed = tuple(sorted({Node.parse(name).layer for name in named[:_PLACED]}))
        if placed and len(lengths) == 1 and len(placed) * g.n_heads * min(lengths) <= _CELLS:
            take("places", "patch", pairs, said, {"site": "z", "by": "head-position", "layer": placed})
        body, where, own = asked.of_prompts(pairs, said)
        take("dla", "dla", body, where, own)
        first, there = asked.first_prompt(model, pairs, said)
        if layers:
            take("attention", "attention", first, there, {"layer": layers})
        take("lens", "lens", first, there, self._followed(first))
        kept = max(_EDGES, _edges(model) // _SHARE) if edges is None else edges
        circuit: Any = take("circuit", "circuit", pairs, said, {"edges": kept, **_CIRCUIT})
        if circuit is not None and self.steps.interrupt is None:
            self.steps.take("validate", "validate", circuit, {"circuit": circuit}, {"seed": self.seed + 1, **_EVIDENCE})

    def _followed(self, prompt: Prompt) -> dict[str, Any]:
        spelled = (asked.spelled(self.model, prompt, index) for index in (self.found.target, self.found.against))
        return dict(zip(("target", "wrong"), spelled, strict=True))

    # -- the result ----------------------------------------------------------------------------------------------------

    def _result(self, given: _Given | None, heads: int) -> InvestigateResult:
        model, found, steps = self.model, self.found, self.steps
        changed = getattr(self, "changed", np.array([]))
        facts = account.Facts(
            target=(model.tokens.string(found.target), found.target),
            against=(model.tokens.string(found.against), found.against),
            given=found.given,
            top=found.top,
            solved=self.solved,
            margins=self.margins,
            changed=changed,
            candidates=() if given is None else given.candidates,
            tokens=self.tokens,
            seed=self.seed,
            heads=heads,
            refused=steps.refused,
        )
        if len(self.margins) == 1 and self.solved:
            self.notes.append(
                "n = 1: one pair alone, so that no number has an interval; give a --task, or several pairs"
            )
        if steps.interrupt is not None:
            self.notes.insert(0, f"partial: stopped after {len(steps.results)} of {_STEPS} steps")
        self.notes += [f"{name} was not possible: {why}" for name, why in steps.refused.items()]
        result = InvestigateResult(
            tokens=self.tokens,
            twin=() if given is None else model.encode(given.pairs.pairs[0].corrupted).strings,
            target=facts.target,
            against=facts.against,
            pairs=len(self.margins),
            task=self.data.task if isinstance(self.data, Pairs) else "",
            solved=self.solved,
            margin=float(self.margins.mean()),
            twin_margin=float(changed.mean()) if len(changed) else float("nan"),
            candidates=facts.candidates,
            account=tuple(account.account(facts, steps.results)),
            steps=dict(steps.results),
            cells=dict(steps.cells),
            refused=dict(steps.refused),
            notes=tuple(self.notes),
        )
        return unless_interrupted(result, steps.interrupt)


def _edges(model: LoadedModel) -> int:
    """Return how many edges a model has: of what writes below and what reads above."""
    from interp.engine.circuits import edges

    writers, readers = edges.ends(model)
    order = [node.layer + 0.5 * (node.kind == "mlp") if node.kind != "embed" else -1 for node in writers]
    return sum(
        sum(at < (float("inf") if node.kind == "logits" else node.layer + 0.5 * (node.kind == "mlp")) for at in order)
        for node in readers
    )
