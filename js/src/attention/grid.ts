import { classes } from "../../../src/interp/views/kit/palette.json";
import { STEPS } from "../draw/codec";
import { css } from "../draw/colours";
import { mask, pixels, put } from "../draw/heatmap";
import { fit, fitted, h, on } from "../ui/dom";
import { clamp, keys, step } from "../ui/keys";
import { column } from "../ui/room";
import { watch } from "../ui/watch";
import { headName } from "./meta";
import type { Viewer } from "./view";

const NAMES = 28; // px that the layers' names take
const NUMBERS = 16; // px that the heads' numbers take
const MANY = 16; // layers from which on the grid scrolls

/** The thumbnails' pitch in px: as large as fits, small enough to see many layers at once. */
export function measure(layers: number, heads: number, width: number, height: number): number {
  const tall = layers > MANY;
  const fits = Math.floor((width - NAMES - (tall ? 14 : 2)) / heads);
  return clamp(Math.min(fits, tall ? 30 : Math.floor((height - NUMBERS - 2) / layers)), 18, 72);
}

/** Every head as a thumbnail; rows are layers. */
export function grid(viewer: Viewer): HTMLElement {
  const { meta, selected, choose, heads: data, theme, pointer } = viewer;
  const { layers, heads, side } = meta;
  const canvas: HTMLCanvasElement = h("canvas", { tabindex: 0, role: "application" });
  const ring = h("div.ring");
  const hover = h("div.ring.hover", { hidden: true });
  const scroll = h(
    "div.grid",
    {},
    h("div.numbers", { "aria-hidden": true }, ...heads.map((head) => h("span", {}, `${head}`))),
    h("div.names", { "aria-hidden": true }, ...layers.map((layer) => h("span", {}, `L${layer}`))),
    h("div.heads", {}, canvas, hover, ring),
  );
  const caption = h("span");
  const panel = h("div.panel", {}, h("div.caption", {}, caption), scroll);
  const kinds = [...new Set(Object.values(meta.labels))].sort();
  const [wide, ...box] = meta.boxes.grid;
  const width = column(panel, viewer.ends, wide);
  let pitch = 0;

  const place = (element: HTMLElement, layer: number, head: number) => {
    const [left, top] = [heads.indexOf(head) * pitch, layers.indexOf(layer) * pitch];
    element.style.cssText = `translate:${left}px ${top}px;width:${pitch}px;height:${pitch}px`;
    return top;
  };
  const under = ({ offsetX, offsetY }: MouseEvent): [number, number] | undefined => {
    const [layer, head] = [layers[Math.floor(offsetY / pitch)], heads[Math.floor(offsetX / pitch)]];
    return layer === undefined || head === undefined ? undefined : [layer, head];
  };

  watch(
    viewer.ends,
    () => {
      const [wide, high] = fitted(box, width.value);
      pitch = measure(layers.length, heads.length, wide, high);
      scroll.style.cssText = `--pitch:${pitch}px;height:${high}px`;
      paint();
    },
    () => {
      const dots = classes[theme.value.name];
      const key = kinds.map((kind, n) => {
        const dot = h("span.dot");
        dot.style.background = dots[n % dots.length] as string;
        return [dot, `${kind} ${Object.values(meta.labels).filter((label) => label === kind).length}`];
      });
      caption.replaceChildren("Heads: a row per layer", ...key.flat());
    },
    () => {
      const { layer, head } = selected.value;
      width.value;
      const top = place(ring, layer, head);
      // Only the grid scrolls; scrollIntoView would move the notebook.
      const room = scroll.clientHeight - NUMBERS - pitch;
      if (room > 0) scroll.scrollTop = clamp(scroll.scrollTop, top - room, top);
      canvas.setAttribute("aria-label", `Heads; ${headName(layer, head)} is chosen. Arrow keys choose another.`);
    },
    () => {
      const { head } = pointer.value;
      hover.hidden = !head;
      if (head) place(hover, ...head);
    },
  );

  on(canvas, {
    click(event) {
      const found = under(event);
      if (found) choose({ layer: found[0], head: found[1] });
    },
    pointermove(event) {
      const head = under(event);
      if (`${head}` !== `${pointer.peek().head}`) pointer.value = head ? { head } : {};
    },
    pointerleave() {
      pointer.value = {};
    },
  });
  keys(canvas, (key) => {
    const by = step(key);
    if (!by) return false;
    const { layer, head } = selected.peek();
    const next = (all: number[], now: number, by: number) =>
      all[clamp(all.indexOf(now) + by, 0, all.length - 1)] ?? now;
    choose({ layer: next(layers, layer, by[0]), head: next(heads, head, by[1]) });
    return true;
  });
  return panel;

  function paint(): void {
    const colours = theme.value;
    const atlas = data.atlas.value;
    const masked = mask(meta.causal, viewer.sink.value);
    const context = fit(canvas, heads.length * pitch, layers.length * pitch);
    if (!context) return;
    const ratio = canvas.width / (heads.length * pitch);
    const size = Math.round((pitch - 4) * ratio);
    const dots = classes[colours.name];
    const bad = new Set(meta.bad.map(String));
    layers.forEach((layer, row) => {
      heads.forEach((head, column) => {
        const start = (row * heads.length + column) * side * side;
        const values = bad.has(`${layer},${head}`) ? [Number.NaN] : atlas.subarray(start, start + side * side);
        const rows = values.length === 1 ? 1 : side;
        const [x, y] = [column * pitch + 2, row * pitch + 2];
        put(
          context,
          pixels({ values, rows, factor: 1 / STEPS, masked }, size, colours),
          size,
          Math.round(x * ratio),
          Math.round(y * ratio),
        );
        context.lineWidth = 1;
        context.strokeStyle = colours.line;
        context.strokeRect(x - 0.5, y - 0.5, pitch - 3, pitch - 3);
        const label = meta.labels[`${layer}.${head}`];
        if (!label) return;
        context.beginPath();
        context.arc(x + pitch - 8, y + 4, 3, 0, 7);
        context.lineWidth = 2;
        context.strokeStyle = css(colours.background);
        context.stroke();
        context.fillStyle = dots[kinds.indexOf(label) % dots.length] as string;
        context.fill();
      });
    });
  }
}
