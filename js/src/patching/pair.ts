import { signal } from "@preact/signals-core";
import { button, h } from "../ui/dom";
import { watch } from "../ui/watch";
import type { At } from "./meta";
import { nameOf, strongest, type Viewer } from "./view";

/** What the model says next with a cell patched and without. */
interface Said {
  name: string;
  sides: [string, string];
  tokens: [token: string, before: number, after: number][];
}

/** The pair whose prompts are shown, and what the patched model says about it. */
export function pair(viewer: Viewer): { element: HTMLElement; say: () => void } {
  const { sweep, chosen, source, rpc, fail, problem, ends } = viewer;
  const said = signal<Said | undefined>(undefined);
  const waits = signal<string | undefined>(undefined);
  const prompts = h("div");
  const answer = h("div.said", { "aria-live": "polite" });

  const say = () => {
    const now = sweep.peek();
    const at: At | undefined = chosen.peek() ?? strongest(now, source.peek());
    if (!at) return;
    problem.hidden = true;
    const name = nameOf(now, at);
    waits.value = name;
    rpc.latest("says", { ...at }).then(
      ({ data }) => {
        waits.value = undefined;
        said.value = { ...(data as unknown as Said), name };
      },
      (error) => {
        if (waits.peek() === name) waits.value = undefined;
        fail(error);
      },
    );
  };

  watch(
    ends,
    () => {
      const { pair, metric } = sweep.value;
      if (!pair.prompts.length) return prompts.replaceChildren();
      const lines = pair.prompts.flatMap(([name, tokens]) => [
        h("span.muted", {}, name),
        h("span.mono.prompt", {}, ...tokens.map(([token, differs]) => h(differs ? "bdi.differs" : "bdi", {}, token))),
      ]);
      const numbers = pair.answers.flatMap(([lead, ...sides]) => [
        h("span.muted", {}, h("bdi", {}, lead)),
        ...sides.map((side) => h("b", {}, side)),
      ]);
      const heads = [metric, ...pair.sides].map((name) => h("span.muted", {}, name));
      prompts.replaceChildren(
        h("div.caption", {}, h("span", {}, pair.heading)),
        h("div.prompts", {}, ...lines),
        h("div.answers", {}, ...heads, ...numbers),
      );
    },
    () => {
      if (waits.value)
        return answer.replaceChildren(
          h("div.caption", {}, h("span", {}, `${waits.value} patched: asking the model …`)),
        );
      const found = said.value;
      if (!found) {
        const hint = "Double-click a cell: what it then says";
        const title = "Double-click a cell, or press Enter: what the patched model says";
        return answer.replaceChildren(h("div.caption.hint", { title }, h("span", {}, hint)));
      }
      const close = button(
        "×",
        () => {
          said.value = undefined;
        },
        { "aria-label": "close" },
      );
      const heads = ["next token", ...found.sides].map((name) => h("span.muted", {}, name));
      const rows = found.tokens.flatMap(([token, before, after]) => [
        h("span.mono", {}, h("bdi", {}, token)),
        h("span", {}, before.toFixed(3)),
        h("b", {}, after.toFixed(3)),
      ]);
      answer.replaceChildren(
        h("div.caption", {}, h("span", {}, h("b", {}, found.name), " patched: what the model says"), close),
        h("div.answers", {}, ...heads, ...rows),
      );
    },
  );
  return { element: h("div.panel.pair", {}, prompts, answer), say };
}
