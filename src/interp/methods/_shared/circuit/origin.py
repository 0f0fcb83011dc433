"""Where a circuit came from: its task, its pairs and its metric, as it remembers them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from interp.errors import InputError
from interp.methods._shared.pairs import Encodings, encode
from interp.spec import Metric, Pair, Pairs, Prompt, resolve_metric

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.methods._shared.circuit.result import CircuitResult


@dataclass(frozen=True)
class Origin:
    """Where a circuit's pairs came from.

    Attributes
    ----------
    task, seed, corruption, bos, align
        As the command was given them; an empty task for pairs of one's own.
    """

    task: str
    seed: int
    corruption: str | None
    bos: bool | None
    align: str = "last"

    @classmethod
    def of(cls, circuit: CircuitResult) -> Origin:
        """Return where the pairs of `circuit` came from, as its provenance says."""
        said: Mapping[str, Any] = circuit.provenance.arguments
        task = said.get("task") or ""
        seed = circuit.provenance.seed
        drawn = int(said.get("seed", 0 if seed is None else seed))
        return cls(str(task), drawn, said.get("corruption"), said.get("bos"), said.get("align") or "last")

    def encoded(self, model: LoadedModel, circuit: CircuitResult, n: int | None, metric: Metric) -> list[Encodings]:
        """Return the first `n` of the pairs that chose `circuit` as tokens, with the spans that they are aligned by.

        Raises
        ------
        InputError
            It does not hold them, or fewer.
        """
        pairs = self.pairs(circuit, n)
        return encode(model, pairs, metric, lengths=True, known=circuit.checks.spans[: len(pairs.pairs)])

    @staticmethod
    def pairs(circuit: CircuitResult, n: int | None) -> Pairs:
        """Return the pairs that chose `circuit`, as token ids; the first `n` of them.

        Raises
        ------
        InputError
            It does not hold them, or fewer.
        """
        checks, ids = circuit.checks, circuit.provenance.prompts
        count = len(checks.clean)
        if len(ids) < 2 * count or not count:
            raise InputError("the circuit does not say which pairs chose it; find it again, or use --on fresh")
        if n is not None and n > count:
            raise InputError(f"the circuit was chosen by {count} pairs; --n {n} needs --on fresh, and a task")
        found = [
            Pair(
                Prompt(ids=ids[2 * number]),
                Prompt(ids=ids[2 * number + 1]),
                tuple(index for _, index in checks.answer[number]),
                tuple(index for _, index in checks.wrong[number]),
            )
            for number in range(count if n is None else n)
        ]
        return Pairs(tuple(found), task=circuit.task)


def metric_of(circuit: CircuitResult, given: Any) -> Metric:
    """Return the metric to measure with: the circuit's own when none is given.

    Raises
    ------
    InputError
        No such metric, or the circuit's own was a function that is gone.
    """
    if given is not None:
        return resolve_metric(given)
    own = circuit.provenance.arguments.get("metric")
    if callable(own) or isinstance(own, Metric):
        return resolve_metric(own)
    try:
        return resolve_metric(circuit.metric)
    except InputError:
        raise InputError(
            f"the circuit was chosen by {circuit.metric}, a function of yours; name it again with --metric"
        ) from None
