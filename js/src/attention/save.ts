import { colour, css } from "../draw/colours";
import { pixels, put } from "../draw/heatmap";
import { escaped, tag } from "../draw/svg";
import { button, h, on } from "../ui/dom";
import { download, rasterise, svgUrl } from "../ui/download";
import { headName } from "./meta";
import { label, MONO, picture, TILT } from "./picture";
import type { Viewer } from "./view";

const PAD = 16;
const HEAD = 46;

/** The chosen head's picture as it is on screen, without controls: a title, and lines above and below it. */
export function svg(viewer: Viewer, title: string, above: string, below: string[]): string {
  const { meta } = viewer;
  const { cells, side, gutter, below: room, rows, columns, cell, every } = picture(viewer, 500);
  const { ink, faint, muted, hatch, table, background } = viewer.theme.peek();
  const [left, top] = [PAD + gutter, PAD + HEAD];
  const [width, height] = [Math.max(640, left + side + PAD), top + side + room + 22 + 16 * below.length];
  const text = (content: string, attributes: Record<string, string | number>) =>
    tag("text", attributes, escaped(content));
  const parts = [tag("rect", { width, height, rx: 8, fill: css(background) })];
  if (cells.rows <= 64) {
    for (let at = 0; at < cells.rows ** 2; at++) {
      const [row, column] = [Math.floor(at / cells.rows), at % cells.rows];
      const weight = (cells.values[at] as number) * cells.factor;
      const fill = cells.masked?.(row, column) ? muted : weight >= 0 ? colour(table, weight) : hatch;
      const box = { x: left + column * cell, y: top + row * cell, width: cell - 1, height: cell - 1 };
      parts.push(tag("rect", { ...box, fill: css(fill) }));
    }
  } else {
    const size = Math.round(2 * side);
    const canvas: HTMLCanvasElement = h("canvas", { width: size, height: size });
    const context = canvas.getContext("2d");
    if (context) put(context, pixels(cells, size, viewer.theme.peek()), size);
    parts.push(tag("image", { x: left, y: top, width: side, height: side, href: canvas.toDataURL() }));
  }
  const labels: string[] = [];
  for (let i = 0; i < cells.rows; i += every) {
    const middle = (i + 0.5) * cell;
    labels.push(text(label(meta, rows[i] ?? 0), { x: left - 6, y: top + middle + 4 }));
    const turned = `translate(${left + middle + 4} ${top + side + 10}) rotate(${TILT})`;
    labels.push(text(label(meta, columns[i] ?? 0), { transform: turned }));
  }
  const mono = { "text-anchor": "end", "font-family": MONO };
  parts.push(tag("g", { ...mono, "font-size": 11, fill: ink }, labels.join("")));
  const written = [
    text(title, { x: PAD, y: PAD + 12, "font-size": 13, "font-weight": 650, fill: ink }),
    text(above, { x: PAD, y: PAD + 31, fill: faint }),
    ...below.map((line, i) => text(line, { x: PAD, y: height - PAD - 16 * (below.length - 1 - i), fill: faint })),
  ];
  parts.push(tag("g", { "font-family": "system-ui, sans-serif", "font-size": 11.5 }, written.join("")));
  const size = { xmlns: "http://www.w3.org/2000/svg", width, height, viewBox: `0 0 ${width} ${height}` };
  return tag("svg", size, parts.join(""));
}

/** The save menu. */
export function save(viewer: Viewer, facts: string, fail: (error: unknown) => void): HTMLElement {
  const menu: HTMLDetailsElement = h("details.menu", {}, h("summary", {}, "Save ▾"));
  const entry = (what: string, suffix: string, url: (svg: string) => string | Promise<string>) =>
    button(what, async () => {
      menu.open = false;
      const { layer, head } = viewer.selected.peek();
      const name = headName(layer, head);
      const words = (of: Node) => [...of.childNodes].map((part) => part.textContent).join(" ");
      const frame = menu.closest(".interp-frame");
      const about = frame?.querySelector(".interp-about")?.textContent;
      const said = [...(frame?.querySelectorAll(".interp-line, .interp-readout") ?? [])].map(words);
      const drawn = svg(viewer, `Attention ${name}`, facts, [about ?? "", ...said]);
      try {
        download(`attention-${name}.${suffix}`, await url(drawn));
      } catch (error) {
        fail(error);
      }
    });
  menu.append(h("div", {}, entry("Picture (PNG)", "png", rasterise), entry("Drawing (SVG)", "svg", svgUrl)));
  on(menu, {
    focusout({ relatedTarget }) {
      if (!menu.contains(relatedTarget as Node | null)) menu.open = false;
    },
    keydown({ key }) {
      if (key === "Escape") menu.open = false;
    },
  });
  return menu;
}
