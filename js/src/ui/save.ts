import { button, h, on } from "./dom";
import { download, rasterise, svgUrl } from "./download";

/** The menu that saves a view's picture under `name()`: `draw` gives the SVG document. */
export function saveMenu(name: () => string, draw: () => Promise<string>, fail: (error: unknown) => void): HTMLElement {
  const menu: HTMLDetailsElement = h("details.menu", {}, h("summary", {}, "Save ▾"));
  const entry = (what: string, suffix: string, url: (svg: string) => string | Promise<string>) =>
    button(what, async () => {
      menu.open = false;
      try {
        download(`${name()}.${suffix}`, await url(await draw()));
      } catch (error) {
        fail(error);
      }
    });
  menu.append(h("div", {}, entry("Picture (PNG)", "png", rasterise), entry("Drawing (SVG)", "svg", svgUrl)));
  return on(menu, {
    focusout({ relatedTarget }) {
      if (!menu.contains(relatedTarget as Node | null)) menu.open = false;
    },
    keydown({ key }) {
      if (key === "Escape") menu.open = false;
    },
  });
}
