import { h } from "../ui/dom";
import { watch } from "../ui/watch";
import { spans } from "../ui/words";
import type { Viewer } from "./view";
import { words } from "./words";

/** What is under the pointer or chosen; below it the evidence for the circuit. */
export function foot(viewer: Viewer): HTMLElement {
  const line = h("div.line", { role: "status", "aria-live": "polite" });
  const evidence = h("div.line.evidence");
  watch(
    viewer.ends,
    () => line.replaceChildren(...spans(words(viewer))),
    () =>
      evidence.replaceChildren(
        ...spans(viewer.graph.value.evidence.map(([lead, bold, muted]) => [lead, bold, !muted])),
      ),
  );
  return h("div.foot", {}, h("div.stacked", {}, line, evidence));
}
