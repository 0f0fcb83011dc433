import type { Model } from "../host/model";
import { h } from "./dom";

/**
 * The element of one view, of the class that its style sheet is confined to: `name` is the bundle's. While it is on the
 * page, the pictures that stand in for it elsewhere are hidden.
 */
export function frame(model: Model, el: HTMLElement, name: string, label: string): HTMLElement {
  const element = h(
    `section.frame.${name}`,
    { "aria-label": label },
    h("style", {}, (model.get("_style") as string | undefined) ?? ""),
  );
  el.append(element);
  return element;
}
