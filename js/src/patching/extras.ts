import { h } from "../ui/dom";
import { drawn } from "../ui/svg";
import { watch } from "../ui/watch";
import type { Sweep } from "./meta";
import type { Viewer } from "./view";

/** Drawings of the kernel's that the picture has as well: their captions, and themselves. */
export function extras({ sweep, ends }: Viewer, where: keyof Sweep["extras"]): HTMLElement {
  const element = h("div.extras");
  let shown = "";
  watch(ends, () => {
    const now = JSON.stringify(sweep.value.extras[where]);
    if (now === shown) return;
    shown = now;
    element.replaceChildren(...sweep.value.extras[where].map((extra) => h("div.more", {}, ...drawn(extra))));
  });
  return element;
}
