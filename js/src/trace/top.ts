import { button, h } from "../ui/dom";
import { place } from "../ui/svg";
import { watch } from "../ui/watch";
import type { Viewer } from "./view";

const HEADINGS = ["feature", "label", "token", "activation", "effect", "influence"];

/** What the graph is worth, number by number. */
export function scores({ graph, ends }: Viewer): HTMLElement {
  const element = h("div.scores");
  watch(ends, () => {
    const said = graph.value.scores.map(([name, value, words]) =>
      h("p.muted", {}, h("b", {}, value), `${name}: ${words}`),
    );
    element.replaceChildren(...said);
  });
  return element;
}

/** The most influential features, what was measured of them in the model, and of other prompts. */
export function below(viewer: Viewer): HTMLElement {
  const { graph, drawing, there, ends } = viewer;
  const element = h("div.columns.below");
  const caption = (words: string) => h("div.caption", {}, h("span", {}, words));
  const choose = (name: string) => {
    const { nodes } = drawing.peek();
    const at = nodes.findIndex((node) => node.name === name);
    const node = nodes[at];
    if (!node) return;
    // A feature that is not drawn yet is drawn then.
    if (!there.peek().includes(at) && node.first <= drawing.peek().edges.length) viewer.asked.value = node.first;
    viewer.choose(at);
  };
  watch(ends, () => {
    const { features, caption: listed, measured } = graph.value;
    const parts: HTMLElement[] = [];
    if (features.length) {
      const head = HEADINGS.map((name) => h("span.muted", { role: "columnheader" }, name));
      const rows = features.map((row) =>
        h(
          "div",
          { role: "row" },
          ...row.map((cell, i) => {
            const inside = i ? cell : button(cell, () => choose(cell), { class: "interp-link" });
            return h(i === 0 || i === 2 ? "span.code" : "span", { role: "cell" }, inside);
          }),
        ),
      );
      const table = { role: "table", "aria-label": "Most influential features" };
      parts.push(
        h("div.listed", {}, caption(listed), h("div.features", table, h("div", { role: "row" }, ...head), ...rows)),
      );
    }
    for (const [words, ...drawing] of measured) {
      const drawn = h("div");
      place(drawn, ...drawing);
      parts.push(h("div.measured", {}, caption(words), drawn));
    }
    element.hidden = !parts.length;
    element.replaceChildren(...parts);
  });
  return element;
}
