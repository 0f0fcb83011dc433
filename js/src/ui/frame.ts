import { untouched } from "../../../src/interp/views/kit/palette.json";
import { h } from "./dom";
import { keepKeys } from "./keys";
import type { Mounted } from "./mount";

/**
 * The element of one view, of the class that its style sheet is confined to: `name` is the bundle's. While it is on the
 * page, the pictures that stand in for it elsewhere are hidden. What typesets formulas passes over it.
 */
export function frame({ model, ends }: Mounted, el: HTMLElement, name: string, label: string): HTMLElement {
  const element = h(
    `section.frame.${name}`,
    { "aria-label": label },
    h("style", {}, (model.get("_style") as string | undefined) ?? ""),
  );
  element.classList.add(...untouched);
  keepKeys(element, ends);
  el.append(element);
  return element;
}
