import { classes } from "../../../src/interp/views/kit/palette.json";
import { STEPS } from "../draw/codec";
import { css } from "../draw/colours";
import { mask, pixels, put } from "../draw/heatmap";
import { fit, h, on } from "../ui/dom";
import { clamp, keys, step } from "../ui/keys";
import { watch } from "../ui/watch";
import { headName } from "./meta";
import type { Viewer } from "./view";

const NAMES = 28; // px that the layers' names take
const NUMBERS = 16; // px that the heads' numbers take
const HIGH = 452; // px that the grid is high before it scrolls

/** The thumbnails' pitch in px, and the panel's width: as large as fits, small enough to see many layers at once. */
export function measure(layers: number, heads: number, room: number): { pitch: number; width: number } {
  const tall = layers > 16;
  const fits = Math.floor((room - NAMES - (tall ? 14 : 2)) / heads);
  const pitch = clamp(fits, 18, tall ? 30 : clamp(Math.floor(HIGH / layers), 24, layers * heads <= 24 ? 72 : 40));
  return { pitch, width: Math.min(room, Math.max(NAMES + heads * pitch + (tall ? 14 : 2), 252)) };
}

/** Every head as a thumbnail; rows are layers. */
export function grid(viewer: Viewer, room: () => number): HTMLElement {
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
  const panel = h("div.panel", {}, h("div.caption", {}, "Heads: click one, or use the arrow keys"), scroll);
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
      const size = measure(layers.length, heads.length, room());
      pitch = size.pitch;
      panel.style.width = `${size.width}px`;
      scroll.style.cssText = `--pitch:${pitch}px;max-height:${NUMBERS + 2 + (layers.length > 16 ? 15.5 * pitch : layers.length * pitch)}px`;
      paint();
    },
    () => {
      const { layer, head } = selected.value;
      viewer.width.value;
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
    const kinds = [...new Set(Object.values(meta.labels))].sort();
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
