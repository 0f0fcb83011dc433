import { diverging } from "../draw/colours";
import { finite } from "../draw/numbers";
import { signed } from "../draw/signed";
import { h } from "../ui/dom";
import type { Edge } from "./meta";
import type { Viewer } from "./view";

/** A row with its number and a bar below, as long as `part`; with `click` its name is a button. */
export function bar(viewer: Viewer, name: string, value: number | null, part: number, click?: () => void): HTMLElement {
  const label = click ? h("button.link.mono", { type: "button", click }, name) : h("span.mono", {}, name);
  const row = h("div", {}, label, h("span", {}, signed(value)));
  row.style.setProperty("--part", `${finite(part) ? Math.min(1, Math.abs(part)) : 0}`);
  row.style.setProperty("--colour", diverging(viewer.theme.value)(Math.sign(value ?? 0)));
  return row;
}

/** Values with bars by the largest of them. */
export function bars(viewer: Viewer, rows: [name: string, value: number | null, click?: () => void][]): HTMLElement {
  const end = Math.max(...rows.map(([, value]) => Math.abs(value ?? 0)), 1e-12);
  return h(
    "div.strongest",
    {},
    ...rows.map(([name, value, click]) => bar(viewer, name, value, (value ?? 0) / end, click)),
  );
}

/** Edges, each with its weight and a bar as long as its influence; a click chooses one. */
export function edgeRows(viewer: Viewer, found: number[], name: (edge: Edge) => string): HTMLElement {
  const { drawing, pointer } = viewer;
  const { edges } = drawing.value;
  const shares = found.map((i) => edges[i]?.share ?? 0);
  const end = Math.max(...shares) || 1;
  const rows = found.map((i) => {
    const edge = edges[i] as Edge;
    const row = bar(viewer, name(edge), edge.weight, edge.share / end, () => viewer.chooseEdge(i));
    row.addEventListener("pointerenter", () => {
      pointer.value = { edge: i };
    });
    row.addEventListener("pointerleave", () => {
      pointer.value = {};
    });
    return row;
  });
  return h("div.strongest", {}, ...rows);
}
