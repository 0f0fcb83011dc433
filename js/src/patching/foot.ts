import { finite } from "../draw/numbers";
import { signed } from "../draw/signed";
import { h } from "../ui/dom";
import { watch } from "../ui/watch";
import { counted, type Piece, spans } from "../ui/words";
import type { At } from "./meta";
import { entryOf, nameOf, strongest, type Viewer } from "./view";

/** The line that says in words and exact numbers what is under the pointer, chosen, or else the strongest. */
export function foot(viewer: Viewer): HTMLElement {
  const line = h("span.line", { role: "status", "aria-live": "polite" });
  watch(viewer.ends, () => {
    line.replaceChildren(...spans(words(viewer)));
  });
  return h("div.foot", {}, line);
}

/** The footer's pieces. */
export function words(viewer: Viewer, given: At | undefined = viewer.current.value): Piece[] {
  const sweep = viewer.sweep.value;
  const { span, start, base, metric, pairs, done, estimated, pair } = sweep;
  const at = given ?? strongest(sweep, viewer.source.value);
  if (!at) return [[done ? "no cell changes the metric" : "no cell is computed yet"]];
  const entry = entryOf(viewer, at);
  const found: Piece[] = [["", nameOf(sweep, at), true]];
  if (!given && sweep.total > 1)
    found.push([`strongest of ${counted(viewer.source.value === "exact" ? done : sweep.total)}`]);
  if (!entry) return [...found, ["not in this picture"]];
  const { effect, low, high, estimate } = entry;
  if (effect === null || Number.isNaN(effect)) found.push(["not computed"]);
  else {
    if (span) found.push(["recovery ", signed(start + effect / span), true]);
    else found.push([`recovery undefined: ${pair.sides.join(" = ")}`]);
    found.push(["effect ", signed(effect), true]);
    if (low !== null && high !== null && finite(low) && finite(high))
      found.push([`95 % interval [${signed(low)}, ${signed(high)}] over ${pairs} pairs`]);
    if (base !== null) found.push([`patched ${metric} ${signed(base + effect)}`]);
  }
  if (estimated && estimate !== null) found.push(["estimated effect ", signed(estimate), true]);
  return found;
}
