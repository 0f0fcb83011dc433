"""Circuit discovery from a terminal: which edges between heads and MLPs carry an answer, and is that the whole story?

    python circuit_discovery.py            # on the model that comes with interp
    python circuit_discovery.py gpt2       # on any other that interp.load takes

It prints what was measured, and writes `induction_circuit.png` and `factual_circuit.png`.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import interp

EDGES, TOP, TOKENS = 40, 5, 3
RULE = "=" * 70


def discover(title: str, clean: str, corrupted: str, answer: str, wrong: str, picture: str) -> Path:
    """Find the strongest edges, say what their components do, test the circuit, and draw it."""
    print(f"{title}\n{RULE}\n\nPrompt: {clean}\nInstead: {corrupted}\nExpected completion: {answer!r}\n")
    circuit = interp.circuit(clean, corrupted, answer=answer, wrong=wrong, edges=EDGES)

    print(f"1. Edges: {circuit.kept.sum()} of {circuit.exists.sum()} kept, {len(circuit.nodes)} components")
    for edge in circuit.edges[:TOP]:
        print(f"   {edge.writer} -> {edge.reader}: {edge.score:+.3f}")

    print("\n2. Components, by what their edges carry together, and the tokens that they promote")
    carried: dict[str, float] = defaultdict(float)
    for edge in circuit.edges:
        if edge.writer != "embed":
            carried[edge.writer] += abs(edge.score)
    for name in sorted(carried, key=lambda name: -carried[name])[:TOP]:
        promoted = ", ".join(f"{token!r} {value:+.3f}" for token, value in circuit.function_of(name).promotes[:TOKENS])
        print(f"   {name}: {carried[name]:.3f}; {promoted}")

    report = interp.validate(circuit)
    print("\n3. Evidence, of the way from everything ablated to the whole model")
    print(f"   the circuit alone: {report.faithfulness:+.3f}")
    print(f"   the model without it: {report.left:+.3f}")
    print(f"   {len(report.random)} random circuits of its size: {report.random.mean():+.3f}")

    written = circuit.save(picture)
    print(f"\nThe graph: {written.name}\n")
    return written


def main(model: str | None = None) -> None:
    """Find both circuits."""
    interp.load(model)
    discover(
        "INDUCTION: [A][B] … [A] -> [B]",
        "The cat sat on the mat. The dog sat on the rug. The cat sat on the",
        "The cat sat on the rug. The dog sat on the mat. The cat sat on the",
        " mat",
        " rug",
        "induction_circuit.png",
    )
    discover(
        "FACTS: THE CAPITAL OF WHICH COUNTRY?",
        "The capital of France is",
        "The capital of Italy is",
        " Paris",
        " Rome",
        "factual_circuit.png",
    )


if __name__ == "__main__":
    main(*sys.argv[1:2])
