import { h, on } from "./dom";

/** A menu that opens below its name, and closes when it is left: by the focus, the pointer, or the page by either. */
export function menu(name: string, ...content: (Node | string)[]): HTMLDetailsElement {
  let open = new AbortController();
  const close = () => {
    element.open = false;
  };
  const element: HTMLDetailsElement = h("details.menu", {}, h("summary", {}, `${name} ▾`), h("div", {}, ...content));
  return on(element, {
    focusout({ relatedTarget }) {
      if (relatedTarget && !element.contains(relatedTarget as Node)) close();
    },
    keydown({ key }) {
      if (key === "Escape") close();
    },
    toggle() {
      open.abort();
      if (!element.open) return;
      open = new AbortController();
      const { signal } = open;
      addEventListener("blur", close, { signal });
      const outside = ({ target }: Event) => !element.contains(target as Node) && close();
      addEventListener("pointerdown", outside, { capture: true, signal });
    },
  });
}
