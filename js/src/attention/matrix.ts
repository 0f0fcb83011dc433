import { computed } from "@preact/signals-core";
import { pixels, put } from "../draw/heatmap";
import { weight } from "../draw/signed";
import { button, fit, fitted, h, on, picker } from "../ui/dom";
import { clamp, keys, step } from "../ui/keys";
import { column } from "../ui/room";
import { watch } from "../ui/watch";
import { headName } from "./meta";
import { ABOVE, MONO, picture, TILT } from "./picture";
import type { Viewer } from "./view";

const CLOSEST = 12; // tokens a side

/** The chosen head's matrix. */
export function matrix(viewer: Viewer): HTMLElement {
  const { meta, selected, choose, heads, theme, pointer, shown, direction, ends } = viewer;
  const [wide, ...box] = meta.boxes.matrix;
  const panel = h("div.panel");
  const width = column(panel, ends, wide);
  const n = meta.tokens.length;
  const canvas: HTMLCanvasElement = h("canvas", { tabindex: 0, role: "application" });
  const plot: HTMLCanvasElement = h("canvas");
  const layer = picker("Layer", meta.layers, (layer) => choose({ layer }));
  const head = picker("Head", meta.heads, (head) => choose({ head }));
  const about = h("span.about");
  const zoom = h(
    "div.zoom",
    { role: "group", "aria-label": "Zoom", hidden: n <= 2 * CLOSEST },
    button("+", () => scale(0.5), { "aria-label": "closer" }),
    button("−", () => scale(2), { "aria-label": "wider" }),
    button("Fit", () => scale(n)),
  );
  const current = computed(() => picture(viewer, fitted(box, width.value)));

  const look = (top: number, left: number, span: number) => {
    const inside = (start: number) => clamp(Math.round(start), 0, n - span);
    shown.value = { top: inside(top), left: inside(left), span };
  };
  /** Show `by` times as many tokens; the cell at `at` stays where it is. */
  const scale = (by: number, at?: [number, number]) => {
    const { top, left, span } = shown.peek();
    const next = clamp(Math.round(span * by), Math.min(CLOSEST, n), n);
    const { query, key } = selected.peek();
    const [row, column] = at ?? [query ?? top + span / 2, key ?? query ?? left + span / 2];
    look(row - ((row - top) * next) / span, column - ((column - left) * next) / span, next);
  };
  const under = ({ offsetX, offsetY }: MouseEvent): [number, number] | undefined => {
    const { cell, gutter, rows, columns } = current.peek();
    // Of a row that stands for several tokens the last: in a causal head it is the one that sees most.
    const query = (rows[Math.floor((offsetY - ABOVE) / cell) + 1] ?? 0) - 1;
    const column = Math.floor((offsetX - gutter) / cell);
    const key = columns[column];
    const exists = query >= 0 && key !== undefined && column < columns.length - 1 && !(meta.causal && key > query);
    return exists ? [query, key] : undefined;
  };
  const hold = (query: number, key: number) =>
    choose({ query, key, position: direction.peek() === "from" ? query : key });

  watch(
    ends,
    () => {
      const { cells, side, cell } = current.value;
      const ratio = devicePixelRatio || 1;
      // A whole number of pixels a cell, once a cell is a few pixels wide.
      const whole = Math.floor(cell * ratio);
      const size = whole >= 4 ? whole * cells.rows : Math.round(side * ratio);
      plot.width = plot.height = size;
      const context = plot.getContext("2d");
      if (context) put(context, pixels(cells, size, theme.value, whole >= 8 ? Math.round(ratio) : 0), size);
    },
    draw,
    () => {
      const { params, scale, side } = heads.current.value;
      const { span } = shown.value;
      const weighted = params.mode === "weighted";
      const parts = [weighted ? "attention × value norm" : span < n ? "attention" : "rows attend to columns"];
      if (viewer.sink.value) parts.push("first token hidden");
      if (viewer.sink.value || weighted) parts.push(`scale to ${weight(viewer.top.value * scale)}`);
      const bin = Math.round(n / side);
      if (span < n) parts.push(`${span} of ${n} tokens`);
      else if (bin > 1) parts.push(`largest of each ${bin} × ${bin}`);
      about.textContent = parts.join(" · ");
    },
    () => {
      const chosen = selected.value;
      layer.value = `${chosen.layer}`;
      head.value = `${chosen.head}`;
      const name = headName(chosen.layer, chosen.head);
      canvas.setAttribute(
        "aria-label",
        `Attention of ${name}, ${n} × ${n} tokens. Arrow keys choose a cell, + and − zoom.`,
      );
    },
    () => {
      const { top, left, span } = shown.value;
      heads.current.value;
      if (span < n) heads.fill(top, left, span);
    },
    () => {
      const { query, key } = selected.value;
      const { top, left, span } = shown.peek();
      const into = (at: number | null, start: number) => (at === null ? start : clamp(start, at - span + 1, at));
      if (span < n) look(into(query, top), into(key, left), span);
    },
  );

  let drag: { x: number; y: number; top: number; left: number; moved: boolean } | undefined;
  on(canvas, {
    pointerdown({ clientX: x, clientY: y }) {
      drag = { x, y, ...shown.peek(), moved: false };
    },
    pointermove(event) {
      const { span } = shown.peek();
      if (drag && event.buttons & 1 && span < n) {
        const { cell } = current.peek();
        const [x, y] = [event.clientX - drag.x, event.clientY - drag.y];
        drag.moved ||= Math.hypot(x, y) > 4;
        if (drag.moved) look(drag.top - y / cell, drag.left - x / cell, span);
        return;
      }
      const cell = under(event);
      if (`${cell}` !== `${pointer.peek().cell}`) pointer.value = cell ? { cell } : {};
    },
    pointerleave() {
      pointer.value = {};
    },
    click(event) {
      const cell = drag?.moved ? undefined : under(event);
      drag = undefined;
      if (cell) hold(...cell);
    },
    wheel(event) {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      scale(event.deltaY > 0 ? 1.25 : 0.8, under(event));
    },
  });
  keys(canvas, (key) => {
    const by = step(key);
    const { query, key: onto } = selected.peek();
    if (key === "+" || key === "=") scale(0.5);
    else if (key === "-") scale(2);
    else if (key === "0") scale(n);
    else if (key === "Escape") choose({ query: null, key: null, position: null });
    else if (!by) return false;
    else if (query === null || onto === null) hold(query ?? n - 1, onto ?? query ?? n - 1);
    else {
      const row = clamp(query + by[0], 0, n - 1);
      hold(row, clamp(onto + by[1], 0, meta.causal ? row : n - 1));
    }
    return true;
  });
  const place = h("div.box", {}, canvas);
  panel.append(h("div.caption.brief", {}, layer, head, about, zoom), place);
  watch(ends, () => {
    place.style.height = `${fitted(box, width.value)[1]}px`;
  });
  return panel;

  function draw(): void {
    const { side, gutter, below, cell, rows, columns, every, name } = current.value;
    const colours = theme.value;
    const context = fit(canvas, gutter + side, ABOVE + side + below);
    const { query, key } = selected.value;
    const [row, column] = pointer.value.cell ?? [query, key];
    if (!context) return;
    context.translate(0, ABOVE);
    context.imageSmoothingEnabled = false;
    context.drawImage(plot, gutter, 0, side, side);
    const index = (starts: number[], at: number | null) =>
      at === null ? -1 : starts.findIndex((start, i) => start <= at && at < (starts[i + 1] ?? 0));
    const [y, x] = [index(rows, row), index(columns, column)];
    context.strokeStyle = colours.accent;
    const box = (left: number, top: number, width: number, height: number) =>
      context.strokeRect(gutter + left + 0.5, top + 0.5, Math.max(2, width - 1), Math.max(2, height - 1));
    if (y >= 0) box(0, y * cell, side, cell);
    if (x >= 0) box(x * cell, 0, cell, side);
    context.lineWidth = 2;
    if (y >= 0 && x >= 0) box(x * cell, y * cell, cell, cell);
    context.font = `11px ${MONO}`;
    context.textAlign = "right";
    const axis = (
      starts: number[],
      marked: number,
      at: number | null,
      write: (text: string, middle: number) => void,
    ) => {
      for (let i = 0; i < starts.length - 1; i++) {
        if (i !== marked && (i % every || (marked >= 0 && Math.abs(i - marked) < every))) continue;
        context.fillStyle = i === marked ? colours.accent : colours.ink;
        write(name(i === marked ? (at ?? 0) : (starts[i] ?? 0)), (i + 0.5) * cell);
      }
    };
    axis(rows, y, row, (text, middle) => context.fillText(text, gutter - 6, middle + 4, gutter - 6));
    axis(columns, x, column, (text, middle) => {
      context.save();
      context.translate(gutter + middle + 4, side + 10);
      context.rotate((TILT * Math.PI) / 180);
      context.fillText(text, 0, 0, gutter - 6);
      context.restore();
    });
  }
}
