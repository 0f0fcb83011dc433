import { button } from "./dom";
import { download, rasterise, svgUrl } from "./download";
import { menu } from "./menu";

/** What can be saved: its name in the menu, the file's suffix, its data: URL. */
export type Kind = [what: string, suffix: string, url: () => string | Promise<string>];

/** The menu that saves a view's picture under `name()`: `draw` gives the SVG document. */
export function saveMenu(
  name: () => string,
  draw: () => Promise<string>,
  fail: (error: unknown) => void,
  ...more: Kind[]
): HTMLElement {
  const kinds: Kind[] = [
    ["Picture (PNG)", "png", async () => rasterise(await draw())],
    ["Drawing (SVG)", "svg", async () => svgUrl(await draw())],
    ...more,
  ];
  const entries = kinds.map(([what, suffix, url]) =>
    button(what, async () => {
      element.open = false;
      try {
        download(`${name()}.${suffix}`, await url());
      } catch (error) {
        fail(error);
      }
    }),
  );
  const element = menu("Save", ...entries);
  return element;
}
