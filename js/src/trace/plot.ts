import { curveAt, neighbour } from "../draw/graph";
import { h, on } from "../ui/dom";
import { mark } from "../ui/groups";
import { clamp, keys, step } from "../ui/keys";
import { column } from "../ui/room";
import { place } from "../ui/svg";
import { watch } from "../ui/watch";
import { curves, ground, mark as marked_, ring, titled } from "./draw";
import { LOGIT, type Node, reach } from "./meta";
import type { Viewer } from "./view";

/** The graph: tokens across, layers up; `legend` stands below it, `card` is where Enter leads. */
export function plot(viewer: Viewer, legend: HTMLElement, card: HTMLElement): HTMLElement {
  const { graph, groups, drawing, edges, there, pointer, chosen, edge, lit, marked, pinned, theme, ends } = viewer;
  const [below, base, over] = [h("div"), h("div.over"), h("div.over")];
  const sheet = h("div.sheet", {}, below, base, over);
  const area = h("div.graph", { tabindex: 0, role: "application" }, sheet);
  const panel = h("div.panel", {}, area, legend);
  column(panel, ends, Math.ceil(graph.peek().size[0]));

  const node = (i: number) => drawing.value.nodes[i] as Node;
  const under = (event: MouseEvent) => {
    const { left, top } = sheet.getBoundingClientRect();
    const [x, y] = [event.clientX - left, event.clientY - top];
    const { nodes } = drawing.peek();
    const found = [...there.peek()].reverse().find((i) => {
      const one = nodes[i] as Node;
      return Math.abs(x - one.x) <= one.wide / 2 + 1 && Math.abs(y - one.y) <= reach(one) + 1;
    });
    return found === undefined ? { edge: curveAt(edges.peek(), x, y, 1) } : { node: found };
  };
  const put = (element: HTMLElement, body: string) => {
    const [width, height] = graph.value.size;
    place(element, width, height, body);
  };
  const draw = (nodes: Iterable<number>) => {
    const shown = [...nodes];
    const roomy = (i: number) => node(i).until >= edges.value.length;
    const marks = shown.map((i) => marked_(node(i), graph.value.ends[1], theme.value));
    return marks.join("") + shown.map((i) => (roomy(i) ? titled(node(i), theme.value) : "")).join("");
  };
  watch(
    ends,
    () => {
      const { rows, axis, size } = graph.value;
      sheet.style.cssText = `width:${size[0]}px;height:${size[1]}px`;
      put(below, ground(rows, axis, size, theme.value));
    },
    () => put(base, curves(edges.value, graph.value.ends[0], theme.value) + draw(there.value)),
    () => {
      const { accent, ink } = theme.value;
      const bright = [...(lit.value ?? [])].map((i) => drawing.value.edges[i]).filter((one) => one !== undefined);
      const [held, beneath] = [chosen.value, pointer.value.node];
      const shown = new Set(bright.flatMap(({ source, target }) => [source, target]));
      for (const i of [held, beneath ?? -1]) if (i >= 0) shown.add(i);
      const body = lit.value ? curves(bright, graph.value.ends[0], theme.value) + draw(shown) : "";
      const rings = there.value.map((i) => {
        const one = node(i);
        return (
          (marked.value.has(one.name) ? ring(one, accent, 4, "3 2") : "") +
          (pinned.value.has(one.name) ? ring(one, ink, 3.5) : "") +
          (i === held ? ring(one, accent, 2) : i === beneath ? ring(one, ink, 1.5) : "")
        );
      });
      put(over, body + rings.join(""));
      base.classList.toggle("interp-dim", !!lit.value);
    },
    () => {
      const held = drawing.value.nodes[chosen.value];
      const name = held ? `${held.called} is chosen` : "no node is chosen";
      area.setAttribute(
        "aria-label",
        `Attribution graph: tokens across, a row per layer; ${name}. Arrow keys choose a node, Enter leads to its card, ` +
          "P pins it, G marks it for a group, Escape lets go.",
      );
    },
  );

  let latest: PointerEvent | undefined;
  const point = (event: PointerEvent) => {
    latest = undefined;
    const found = under(event);
    const next = found.edge === -1 ? {} : found;
    if (JSON.stringify(next) !== JSON.stringify(pointer.peek())) pointer.value = next;
  };
  const toggle = (i: number) => {
    const { name = "", kind = LOGIT } = drawing.peek().nodes[i] ?? {};
    if (kind !== LOGIT) mark(viewer, groups.peek()[name]?.nodes ?? [name]);
  };
  on(area, {
    pointerdown(event) {
      // The mark of the focus is for the keyboard.
      if (!event.button) area.focus({ preventScroll: true, focusVisible: false } as FocusOptions);
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
      const { node: at = -1, edge: curve = -1 } = under(event);
      if (event.shiftKey) toggle(at);
      else if (at < 0 && curve >= 0) viewer.chooseEdge(curve);
      else viewer.choose(at);
      // What is chosen is spoken of, wherever the pointer rests.
      pointer.value = {};
    },
    dblclick(event) {
      const { name = "" } = drawing.peek().nodes[under(event).node ?? -1] ?? {};
      if (groups.peek()[name]) viewer.fold(name, false);
    },
  });
  /** Move what is chosen into the part of the graph that is seen. */
  const follow = () => {
    const one = drawing.peek().nodes[chosen.peek()];
    if (!one) return;
    const [seen, part] = [area.getBoundingClientRect(), sheet.getBoundingClientRect()];
    const by = (at: number, room: number) => at - clamp(at, Math.min(40, room / 2), Math.max(room - 40, room / 2));
    area.scrollBy(by(part.left - seen.left + one.x, seen.width), by(part.top - seen.top + one.y, seen.height));
  };
  keys(area, (key) => {
    const by = step(key);
    const held = chosen.peek();
    const nodes = there.peek();
    if (key === "g" || key === "G") toggle(held);
    else if (key === "p" || key === "P") viewer.pin(held);
    else if (key === "Enter" && (held >= 0 || edge.peek() >= 0)) card.focus();
    else if (key === "Escape") {
      // The last that was done goes first.
      if (edge.peek() >= 0) viewer.chooseEdge(-1);
      else if (held >= 0) viewer.choose(-1);
      else pinned.value = new Set();
    } else if (by && Math.abs(by[1]) < 2) {
      const influence = (i: number) => drawing.peek().nodes[i]?.influence ?? 0;
      const first = nodes.reduce((best, i) => (influence(i) > influence(best) ? i : best), nodes[0] ?? -1);
      viewer.choose(held < 0 ? first : neighbour(drawing.peek().nodes, nodes, held, by[0], by[1]));
      follow();
    } else return false;
    pointer.value = {};
    return true;
  });
  return panel;
}
