import { signal } from "@preact/signals-core";
import { signed } from "../draw/signed";
import { button, h } from "../ui/dom";
import { watch } from "../ui/watch";
import type { Edge } from "./meta";
import type { Viewer } from "./view";

const ROWS = 500;
const KEYS = ["source", "target", "weight", "influence"] as const;

/** The shown edges as a table that can be sorted. Made while it is open. */
export function table(viewer: Viewer): HTMLElement {
  const { drawing, edges, ends } = viewer;
  const open = signal(false);
  const by = signal<{ key: (typeof KEYS)[number]; down: boolean }>({ key: "influence", down: true });
  const scroll = h("div.scroll", { tabindex: 0, role: "region", "aria-label": "Edges" });
  const element: HTMLDetailsElement = h("details.data", {}, h("summary", {}, "Edges as a table"), scroll);
  element.addEventListener("toggle", () => {
    open.value = element.open;
  });
  watch(ends, () => {
    if (!open.value) return;
    const { key, down } = by.value;
    // Nodes in the order of the graph, numbers by their size.
    const value = (one: Edge) => (key === "influence" ? one.share : key === "weight" ? Math.abs(one.weight) : one[key]);
    const rows = [...edges.value].sort((a, b) => (down ? 1 : -1) * (value(b) - value(a)));
    const headings = KEYS.map((name) => {
      const sorted = name === key ? (down ? "descending" : "ascending") : "none";
      const press = button(`${name}${name === key ? (down ? " ↓" : " ↑") : ""}`, () => {
        by.value = { key: name, down: name === by.peek().key ? !by.peek().down : KEYS.indexOf(name) > 1 };
        scroll.querySelector<HTMLElement>(`th[data-key=${name}] button`)?.focus();
      });
      return h("th", { scope: "col", "aria-sort": sorted, "data-key": name }, press);
    });
    const called = (i: number) => drawing.value.nodes[i]?.called ?? "";
    const body = rows.slice(0, ROWS).map(({ source, target, weight, share }) => {
      const cells = [called(source), called(target), signed(weight), `${(100 * share).toFixed(2)} %`];
      return h("tr", {}, ...cells.map((cell) => h("td", {}, cell)));
    });
    scroll.replaceChildren(h("table", {}, h("thead", {}, h("tr", {}, ...headings)), h("tbody", {}, ...body)));
    if (rows.length > ROWS) scroll.append(`The first ${ROWS}; .to_frame() holds them all.`);
  });
  return element;
}
