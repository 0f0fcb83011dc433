import { computed } from "@preact/signals-core";
import type { Place } from "../draw/diverging";
import { times } from "../draw/numbers";
import { h, on } from "../ui/dom";
import { clamp, keys, step } from "../ui/keys";
import { column } from "../ui/room";
import { place } from "../ui/svg";
import { watch } from "../ui/watch";
import { extras } from "./extras";
import type { Axis, Form, Sweep } from "./meta";
import { picture } from "./picture";
import { stop } from "./stop";
import { cellAt, nameOf, placeOf, strongest, type Viewer } from "./view";

const HOLDS: Record<Form["hold"], string> = {
  strongest: "each head's strongest position",
  layer: "heads × positions of layer",
  head: "layers × positions of head",
  position: "layers × heads at position",
  neuron: "",
  span: "",
};

/** How far a sweep is, for how long already, and how long it may still take; before its first cell the kernel knows. */
export function soFar(
  { done, total, share, running, preparing, estimated }: Sweep,
  seconds: number,
  said?: string,
): string {
  const cells = estimated ? `${done} cells verified` : `${done} of ${total} cells`;
  if (!running) return `${cells} · stopped`;
  const so = `${seconds.toFixed(1)} s`;
  if (!done && said) return said;
  if (!done) return `${preparing ? "first the prompts are run unpatched" : "comparing the first cells"} · ${so}`;
  const left = share > 0 ? (seconds * (100 - share)) / share : 0;
  return `${cells} · ${so}${left >= 2 ? ` · about ${Math.round(left)} s left` : ""}`;
}

const sizes = ({ left, wide, high }: Place) => [left, wide, high];

/** The sweep as a heatmap. */
export function plot(viewer: Viewer, say: () => void): HTMLElement {
  const { sweep, slice, pointer, chosen, choose, hold, ends } = viewer;
  const drawing = h("div.drawing");
  const ring = h("div.ring", { hidden: true });
  const hover = h("div.ring.hover", { hidden: true });
  const area = h("div.plot", { tabindex: 0, role: "application" }, drawing, hover, ring);
  const caption = h("span");
  const count = h("span.count");
  const current = computed(() => picture(viewer));
  const panel = h("div.panel");
  const width = column(panel, ends, current.peek().width);
  /** How much smaller than its full size the picture is. */
  const part = computed(() => Math.min(1, width.value / current.value.width));
  const three = sweep.peek().axes.length > 2;

  const which: HTMLSelectElement = h("select.select", {
    "aria-label": "Show",
    change: () => {
      hold.value = which.value as Form["hold"];
    },
  });
  const number: HTMLSelectElement = h("select.select", {
    "aria-label": "Which",
    change: () => {
      const at = chosen.peek() ?? strongest(sweep.peek(), viewer.source.peek());
      choose({ ...at, [hold.peek()]: Number(number.value) });
    },
  });
  if (three) {
    const kinds: Form["hold"][] = ["strongest", "layer", "head", "position"];
    which.append(...kinds.map((kind) => h("option", { value: kind }, HOLDS[kind])));
  }

  const under = (event: MouseEvent) => {
    const { left, wide, high } = current.peek().place;
    const { x, y } = drawing.getBoundingClientRect();
    const [right, down] = [(event.clientX - x) / part.peek(), (event.clientY - y) / part.peek()];
    return cellAt(slice.peek(), Math.floor(down / high), Math.floor((right - left) / wide));
  };
  const put = (element: HTMLElement, at: ReturnType<typeof under>) => {
    const [left = 0, wide = 0, high = 0] = sizes(current.value.place).map((size) => size * part.value);
    const found = placeOf(slice.value, at);
    element.hidden = !found;
    if (!found) return;
    const [w, tall] = [Math.max(wide, 6), Math.max(high, 6)];
    const [x, y] = [left + (found[1] + 0.5) * wide - w / 2, (found[0] + 0.5) * high - tall / 2];
    element.style.cssText = `translate:${x - 1}px ${y - 1}px;width:${w + 2}px;height:${tall + 2}px`;
  };

  watch(
    ends,
    () => {
      const { body, width, height } = current.value;
      const above = sweep.value.extras.above.map(([, wide]) => wide);
      panel.style.setProperty("--wide", `${Math.max(width, ...above)}px`);
      place(drawing, width, height, body);
    },
    () => put(ring, chosen.value),
    // What the footer speaks of: under the pointer, or the strongest while nothing is chosen.
    () => put(hover, pointer.value ?? (chosen.value ? undefined : strongest(sweep.value, viewer.source.value))),
    () => {
      caption.textContent = slice.value.form.caption;
    },
    () => {
      const { done, total, running, estimated } = sweep.value;
      count.hidden = !running && (estimated || done === total);
      count.textContent = soFar(sweep.value, viewer.seconds.value, viewer.said.value);
    },
    () => {
      const at = chosen.value;
      const name = at ? `${nameOf(sweep.value, at)} is chosen` : "no cell is chosen";
      area.setAttribute(
        "aria-label",
        `${slice.value.form.caption}; ${name}. Arrow keys choose, Enter asks what the model then says.`,
      );
    },
    () => {
      const kind = hold.value;
      number.hidden = kind === "strongest";
      const { layers, shape, axes, tokens, named } = sweep.peek();
      const label = (i: number) =>
        kind === "layer" ? `L${layers[i]}` : kind === "position" && named ? `${i} ${tokens[i]}` : `${i}`;
      const size = shape[axes.indexOf(kind as Axis)] ?? 0;
      number.replaceChildren(...times(size, (i) => h("option", { value: i }, label(i))));
    },
    () => {
      hold.value;
      number.value = `${slice.value.form.index}`;
    },
  );

  on(area, {
    click(event) {
      const at = under(event);
      if (at) choose(at);
    },
    dblclick(event) {
      if (under(event)) say();
    },
    pointermove(event) {
      const at = under(event);
      if (JSON.stringify(at) !== JSON.stringify(pointer.peek())) pointer.value = at;
    },
    pointerleave() {
      pointer.value = undefined;
    },
  });
  keys(area, (key) => {
    const by = step(key);
    if (key === "Enter") say();
    else if (key === "Escape") choose({});
    else if (by) {
      const [rows, columns] = slice.peek().form.shape;
      const from = placeOf(slice.peek(), chosen.peek());
      const start = placeOf(slice.peek(), strongest(sweep.peek(), viewer.source.peek())) ?? [0, 0];
      const next = from
        ? cellAt(slice.peek(), clamp(from[0] + by[0], 0, rows - 1), clamp(from[1] + by[1], 0, columns - 1))
        : cellAt(slice.peek(), ...start);
      if (next) choose(next);
    } else return false;
    return true;
  });
  const above = h("div.caption", {}, caption, h("span.line", {}, count, stop(viewer)));
  const picker = three ? [h("div.slices.line", {}, "Show", which, number)] : [];
  panel.append(extras(viewer, "above"), above, ...picker, area, extras(viewer, "below"));
  return panel;
}
