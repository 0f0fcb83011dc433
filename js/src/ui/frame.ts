import type { Model } from "../afm/model";
import { h } from "./dom";

/** The element of one view. While it is on the page, the pictures that stand in for it elsewhere are hidden. */
export function frame(model: Model, el: HTMLElement, label: string): HTMLElement {
  const element = h("section.frame", { "aria-label": label }, h("style", {}, model.get("_style") as string));
  el.append(element);
  return element;
}
