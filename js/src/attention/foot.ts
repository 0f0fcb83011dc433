import { stats } from "../../../src/interp/views/kit/palette.json";
import { weight as written } from "../draw/signed";
import { h } from "../ui/dom";
import { watch } from "../ui/watch";
import { headName, heldToken } from "./meta";
import { tokenName, type Viewer } from "./view";

const NAMES: Record<string, { name: string; unit: string }> = stats;

/** The line that says in words and numbers what is under the pointer, or chosen. */
export function foot(viewer: Viewer): HTMLElement {
  const { meta, selected, heads, pointer, direction } = viewer;
  const left = h("span.line");
  const right = h("span.readout", { role: "status", "aria-live": "polite" });

  watch(
    viewer.ends,
    () => {
      const chosen = selected.value;
      const [layer, head] = pointer.value.head ?? [chosen.layer, chosen.head];
      const label = meta.labels[`${layer}.${head}`];
      left.replaceChildren(h("b", {}, headName(layer, head)), ...(label ? [h("b", {}, label)] : []));
      for (const [name, values] of Object.entries(meta.stats)) {
        const value = values[meta.layers.indexOf(layer)]?.[meta.heads.indexOf(head)];
        const called = NAMES[name] ?? { name: name.replaceAll("_", " "), unit: "" };
        left.append(h("span.muted", {}, `${called.name} ${value ? `${value}${called.unit}` : "not a number"}`));
      }
    },
    () => {
      right.replaceChildren(...readout(viewer));
    },
    // Only what is held is worth a request; the pointer passes over hundreds of cells a second.
    () => {
      heads.current.value;
      const held = heldToken(selected.value, direction.value);
      if (held !== null) heads.refine(direction.value, held);
    },
  );
  return h("div.foot", {}, left, right);
}

function readout(viewer: Viewer): (Node | string)[] {
  const { meta, heads, selected, pointer } = viewer;
  const way = viewer.direction.value;
  const held = viewer.held.value;
  if (held === null) return [h("span.muted", {}, "point at a cell or a token for its numbers")];
  const { cell, token } = pointer.value;
  const { query, key } = selected.value;
  const [from, onto] = cell ?? (token === undefined ? [query, key] : []);
  const { values, scale, exact } = heads.line(way, held);
  const mono = (at: number) => h("span.mono", {}, tokenName(viewer, at));
  const weight = (at: number) => h("b", {}, `${exact ? "" : "≈ "}${written((values[at] as number) * scale)}`);
  if (from != null && onto != null) {
    if (meta.causal && onto > from) return [mono(onto), " comes after ", mono(from)];
    return [mono(from), " → ", mono(onto), weight(way === "from" ? onto : from)];
  }
  const skip = viewer.sink.value && way === "from" ? 1 : 0;
  const best = values.reduce((most, value, at) => (at >= skip && value > (values[most] as number) ? at : most), skip);
  if (values[best] === undefined) return [mono(held)];
  return [mono(held), way === "from" ? " most at " : " most from ", mono(best), weight(best)];
}
