import { controls, untouched } from "../../../src/interp/views/kit/palette.json";
import { h } from "./dom";
import { keepKeys } from "./keys";
import type { Mounted } from "./mount";

const GAP = 8; // px between two of them: see layout/frame.css

/** What a view has at its head's end, as wide as the room that its picture leaves for it. */
export function buttons(...children: HTMLElement[]): { element: HTMLElement; as(kind: keyof typeof controls): void } {
  const element = h("div.controls", {}, ...children);
  const as = (kind: keyof typeof controls) => {
    const room = controls[kind];
    element.style.width = `${room.reduce((sum, wide) => sum + wide, GAP * (room.length - 1))}px`;
  };
  return { element, as };
}

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
