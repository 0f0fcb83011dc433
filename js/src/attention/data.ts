import { signal } from "@preact/signals-core";
import { weight } from "../draw/signed";
import { h } from "../ui/dom";
import { watch } from "../ui/watch";
import { headName } from "./meta";
import { tokenName, type Viewer } from "./view";

const ROWS = 512;

/** The chosen head as a table: where each token looks most. Made while it is open. */
export function data(viewer: Viewer): HTMLElement {
  const { meta, heads, ends } = viewer;
  const open = signal(false);
  const scroll = h("div.scroll", { tabindex: 0, role: "region", "aria-label": "Data" });
  const element: HTMLDetailsElement = h("details.data", {}, h("summary", {}, "Data"), scroll);
  element.addEventListener("toggle", () => {
    open.value = element.open;
  });
  watch(ends, () => {
    if (!open.value) return;
    const { layer, head } = heads.current.value.params;
    const row = (query: number) => {
      const { values, scale } = heads.line("from", query);
      const best = [...values.keys()].sort((a, b) => (values[b] as number) - (values[a] as number)).slice(0, 3);
      const cells = best.map((key) =>
        h("td", {}, `${tokenName(viewer, key)} ${weight((values[key] as number) * scale)}`),
      );
      return h("tr", {}, h("th.mono", { scope: "row" }, tokenName(viewer, query)), ...cells);
    };
    const headings = [headName(layer, head), "looks most at", "then", "then"].map((text) =>
      h("th", { scope: "col" }, text),
    );
    const rows = meta.tokens.slice(0, ROWS).map((_, query) => row(query));
    scroll.replaceChildren(h("table", {}, h("thead", {}, h("tr", {}, ...headings)), h("tbody", {}, ...rows)));
    if (meta.tokens.length > ROWS) scroll.append(`The first ${ROWS} tokens; .pattern holds them all.`);
  });
  return element;
}
