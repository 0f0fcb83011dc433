import { h, on } from "./dom";

/** A menu that opens below its name, and closes when it is left. */
export function menu(name: string, ...content: (Node | string)[]): HTMLDetailsElement {
  const element: HTMLDetailsElement = h("details.menu", {}, h("summary", {}, `${name} ▾`), h("div", {}, ...content));
  return on(element, {
    focusout({ relatedTarget }) {
      if (relatedTarget && !element.contains(relatedTarget as Node)) element.open = false;
    },
    keydown({ key }) {
      if (key === "Escape") element.open = false;
    },
  });
}
