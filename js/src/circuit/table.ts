import { signal } from "@preact/signals-core";
import { signed } from "../draw/signed";
import { button, h } from "../ui/dom";
import { watch } from "../ui/watch";
import type { Viewer } from "./view";

const ROWS = 500;
type Key = "writer" | "reader" | "score";

/** The shown edges as a table that can be sorted. Made while it is open. */
export function table(viewer: Viewer): HTMLElement {
  const { drawing, count, ends } = viewer;
  const open = signal(false);
  const by = signal<{ key: Key; down: boolean }>({ key: "score", down: true });
  const scroll = h("div.scroll", { tabindex: 0, role: "region", "aria-label": "Edges" });
  const element: HTMLDetailsElement = h("details.data", {}, h("summary", {}, "Edges as a table"), scroll);
  element.addEventListener("toggle", () => {
    open.value = element.open;
  });
  watch(ends, () => {
    if (!open.value) return;
    const { key, down } = by.value;
    const { pills, edges } = drawing.value;
    const rows = edges.slice(0, count.value).map(({ writer, reader, score }, order) => ({
      // Names in the order of the layers, scores by their size.
      writer,
      reader: Number.parseFloat(reader) || (reader === "logits" ? 1e9 : 0),
      score: Math.abs(score) || 0,
      order,
      cells: [pills[writer]?.name ?? "", reader, signed(score)],
    }));
    rows.sort((a, b) => (down ? b[key] - a[key] : a[key] - b[key]) || a.order - b.order);
    const headings = (["writer", "reader", "score"] as const).map((name) => {
      const sorted = name === key ? (down ? "descending" : "ascending") : "none";
      const press = button(`${name}${name === key ? (down ? " ↓" : " ↑") : ""}`, () => {
        by.value = { key: name, down: name === by.peek().key ? !by.peek().down : name === "score" };
        scroll.querySelector<HTMLElement>(`th[data-key=${name}] button`)?.focus();
      });
      return h("th", { scope: "col", "aria-sort": sorted, "data-key": name }, press);
    });
    const body = rows.slice(0, ROWS).map(({ cells }) => h("tr", {}, ...cells.map((cell) => h("td", {}, cell))));
    scroll.replaceChildren(h("table", {}, h("thead", {}, h("tr", {}, ...headings)), h("tbody", {}, ...body)));
    if (rows.length > ROWS) scroll.append(`The first ${ROWS}; .to_frame() holds them all.`);
  });
  return element;
}
