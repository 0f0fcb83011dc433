import { computed, signal } from "@preact/signals-core";
import { circuit as geometry } from "../../../src/interp/views/kit/palette.json";
import { curveAt, neighbour } from "../draw/graph";
import { fit, h, on } from "../ui/dom";
import { mark as markNodes } from "../ui/groups";
import { clamp, keys, step } from "../ui/keys";
import { column } from "../ui/room";
import { watch } from "../ui/watch";
import { pillAt, type Shown } from "./graph";
import type { Pill } from "./meta";
import { Brush, type Camera } from "./paint";
import { named, type Viewer } from "./view";

const { high: HIGH, largest: LARGEST } = geometry; // px that the drawing is high at most, the scale that it opens with
const [FARTHEST, NEAREST] = [0.2, 5];
const DRAGGED = 4; // px from which on a click is a drag

/** The graph: rows are layers, inputs at the bottom; `legend` stands below it. */
export function plot(viewer: Viewer, legend: HTMLElement): HTMLElement {
  const { graph, groups, drawing, curves, there, totals, pointer, chosen, lit, marked, theme, choose, ends } = viewer;
  const layer = () => h<HTMLCanvasElement>("canvas", { "aria-hidden": true });
  const layers = [layer(), layer(), layer(), layer()] as const;
  const [ground, below, pills, above] = layers;
  const area = h("div.plot", { tabindex: 0, role: "application" }, ...layers);
  const largest = () => Math.min(LARGEST, HIGH / graph.peek().size[1]);
  const panel = h("div.panel", {}, area, legend);
  const room = column(panel, ends, Math.ceil(graph.peek().size[0] * largest()));
  const size = computed(() => {
    const [wide, high] = graph.value.size;
    const scale = Math.min(largest(), room.value / wide);
    return { width: wide * scale, height: high * scale, home: { scale, x: 0, y: 0 } };
  });
  const moved = signal<Camera | undefined>(undefined);
  const camera = computed(() => moved.value ?? size.value.home);

  const zoom = (by: number, x = size.peek().width / 2, y = size.peek().height / 2) => {
    const now = camera.peek();
    const scale = clamp(now.scale * by, FARTHEST, NEAREST);
    const k = scale / now.scale;
    moved.value = { scale, x: x - (x - now.x) * k, y: y - (y - now.y) * k };
  };
  const at = ({ clientX, clientY }: MouseEvent) => {
    const { left, top } = area.getBoundingClientRect();
    const { x, y, scale } = camera.peek();
    return [(clientX - left - x) / scale, (clientY - top - y) / scale] as const;
  };
  const pillUnder = (event: MouseEvent) => pillAt(drawing.peek().pills, there.peek(), ...at(event));
  const mark = (pill: number) => {
    const { name } = drawing.peek().pills[pill] ?? {};
    const nodes = name ? (groups.peek()[name]?.nodes ?? [name]) : [];
    markNodes(viewer, nodes);
  };

  const each = (brush: Brush, nodes: Iterable<number>) => {
    const end = graph.value.ends[1];
    for (const i of nodes) {
      const pill = drawing.value.pills[i] as Pill;
      brush.pill(pill, totals.value.get(i) ?? 0, end, pill.name in groups.value);
    }
  };
  const brush = (canvas: HTMLCanvasElement) => {
    const context = canvas.getContext("2d");
    return context && new Brush(context, theme.value, camera.value);
  };
  watch(
    ends,
    () => {
      const { width, height } = size.value;
      for (const canvas of layers) fit(canvas, width, height);
      area.style.cssText = `width:${width}px;height:${height}px`;
    },
    () => {
      size.value;
      brush(ground)?.rows(graph.value.rows, graph.value.size[0]);
      brush(below)?.curves(curves.value, graph.value.ends[0]);
      const nodes = brush(pills);
      if (nodes) each(nodes, there.value);
    },
    () => {
      size.value;
      const top = brush(above);
      if (!top) return;
      const shown = lit.value;
      const held = chosen.value;
      const over = pointer.value.pill;
      const ring = (i: number | undefined, colour: string, dash?: number[]) => {
        const pill = i === undefined ? undefined : drawing.value.pills[i];
        if (pill) top.ring(pill, colour, dash);
      };
      if (shown) {
        const bright = [...shown].map((i) => curves.value[i] as Shown).filter(Boolean);
        top.curves(bright, graph.value.ends[0]);
        const ends = bright.flatMap(({ source, target }) => [source, target]);
        each(top, new Set([...ends, held, over ?? -1].filter((i) => there.value.has(i))));
      }
      for (const i of there.value) {
        if (marked.value.has(drawing.value.pills[i]?.name ?? "")) ring(i, theme.value.accent, [3, 2]);
      }
      ring(over, theme.value.ink);
      ring(held, theme.value.accent);
    },
    () => {
      below.classList.toggle("interp-dim", !!lit.value);
      pills.classList.toggle("interp-dim", !!lit.value);
    },
    () => {
      const pill = drawing.value.pills[chosen.value];
      const name = pill ? `${named(viewer, pill.name)} is chosen` : "no node is chosen";
      area.setAttribute(
        "aria-label",
        `Circuit: a row per layer; ${name}. Arrow keys choose a node, G marks it for a group, plus, minus and 0 zoom.`,
      );
    },
  );

  let latest: PointerEvent | undefined;
  let drag: { x: number; y: number; from: Camera; far: boolean } | undefined;
  const point = (event: PointerEvent) => {
    latest = undefined;
    if (drag && event.buttons & 1) {
      const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
      if (!drag.far && Math.hypot(dx, dy) < DRAGGED) return;
      if (!drag.far) area.setPointerCapture(event.pointerId);
      drag.far = true;
      moved.value = { ...drag.from, x: drag.from.x + dx, y: drag.from.y + dy };
      return;
    }
    drag = undefined;
    const pill = pillUnder(event);
    const curve = pill < 0 ? curveAt(curves.peek(), ...at(event), camera.peek().scale) : -1;
    const next = pill >= 0 ? { pill } : curve >= 0 ? { curve } : {};
    if (JSON.stringify(next) !== JSON.stringify(pointer.peek())) pointer.value = next;
  };
  on(area, {
    pointerdown(event) {
      if (event.button) return;
      drag = { x: event.clientX, y: event.clientY, from: camera.peek(), far: false };
      // The mark of the focus is for the keyboard.
      area.focus({ preventScroll: true, focusVisible: false } as FocusOptions);
    },
    pointermove(event) {
      // A page may hear of more than one movement in a frame.
      if (!latest) requestAnimationFrame(() => latest && point(latest));
      latest = event;
    },
    pointerleave() {
      latest = undefined;
      pointer.value = {};
    },
    click(event) {
      latest = undefined;
      const far = drag?.far;
      drag = undefined;
      if (far) return;
      const pill = pillUnder(event);
      if (event.shiftKey) mark(pill);
      else choose(pill);
      // What is chosen is spoken of, wherever the pointer rests.
      pointer.value = {};
    },
    dblclick(event) {
      const { name = "" } = drawing.peek().pills[pillUnder(event)] ?? {};
      if (groups.peek()[name]) viewer.fold(name, false);
    },
    wheel(event) {
      // Else the page could not be scrolled past it.
      if (!event.ctrlKey && document.activeElement !== area) return;
      event.preventDefault();
      const { left, top } = area.getBoundingClientRect();
      zoom(Math.exp(-event.deltaY / 300), event.clientX - left, event.clientY - top);
    },
  });
  keys(area, (key) => {
    const by = step(key);
    const held = chosen.peek();
    if (key === "+" || key === "=") zoom(1.25);
    else if (key === "-") zoom(0.8);
    else if (key === "0") moved.value = undefined;
    else if (key === "g" || key === "G") mark(held);
    else if (key === "Escape") choose(-1);
    else if (by && Math.abs(by[1]) < 2) {
      const nodes = [...there.peek()];
      const largest = (i: number) => Math.abs(totals.peek().get(i) ?? 0);
      const first = nodes.reduce((best, i) => (largest(i) > largest(best) ? i : best), nodes[0] ?? -1);
      choose(held < 0 ? first : neighbour(drawing.peek().pills, nodes, held, by[0], by[1]));
    } else return false;
    pointer.value = {};
    return true;
  });
  return panel;
}
