import { signal } from "@preact/signals-core";
import { h } from "../ui/dom";
import { watch } from "../ui/watch";
import type { Node } from "./meta";
import { bars } from "./rows";
import type { Viewer } from "./view";

type Moves = [logit: string, foretold: number | null, measured: number | null][];

/** A slider for a feature's strength: what the graph foretells of the logits then, and what the model does. */
export function strength(viewer: Viewer, node: Node): { element: HTMLElement; ends: AbortController } {
  const { rpc } = viewer;
  const ends = new AbortController();
  const change = signal(0);
  const answer = signal<{ moves?: Moves; problem?: string }>({});
  const slider: HTMLInputElement = h("input.slider", {
    type: "range",
    min: -100,
    max: 200,
    step: 10,
    value: 0,
    "aria-label": `strength of ${node.called}`,
    input: () => {
      change.value = Number(slider.value);
    },
    change: () => {
      const asked = change.peek();
      answer.value = {};
      if (!asked) return;
      rpc.latest("move", { node: node.name, change: asked }).then(
        ({ data }) => {
          if (change.peek() === asked) answer.value = { moves: data.moves as Moves };
        },
        (error) => {
          if (error.message) answer.value = { problem: error.message };
        },
      );
    },
  });
  const said = h("span.count");
  const below = h("div", { "aria-live": "polite" });
  watch(
    ends.signal,
    () => {
      const now = change.value;
      said.textContent = now === -100 ? "taken away" : now ? `${100 + now} %` : "as it is";
      slider.setAttribute("aria-valuetext", said.textContent);
    },
    () => {
      const { moves, problem } = answer.value;
      if (problem) below.replaceChildren(h("div.muted.said", {}, problem));
      else if (moves)
        below.replaceChildren(
          ...moves.map(([logit, foretold, measured]) =>
            h(
              "div",
              {},
              h("div.muted", {}, `Change of ${logit}`),
              bars(viewer, [
                ["foretold", foretold],
                ["measured", measured],
              ]),
            ),
          ),
        );
      else
        below.replaceChildren(
          h("div.muted.said", {}, change.value ? "asking the model …" : "change it, and see what the model does"),
        );
    },
  );
  const label = h("label.edges", {}, "strength", slider, said);
  return { element: h("div.strength", {}, label, below), ends };
}
