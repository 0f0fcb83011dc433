import { circuit, heat, signed, trace } from "../../../src/interp/views/kit/palette.json";
import { css, diverging, lifted, type Theme } from "../draw/colours";
import { step, width } from "../draw/graph";
import { escaped, tag } from "../draw/svg";
import { type Edge, EMBEDDING, ERROR, FEATURE, GROUP, type Graph, LOGIT, type Node, reach } from "./meta";

const SANS = "system-ui,-apple-system,Segoe UI,Roboto,DejaVu Sans,sans-serif";
const MONO = "ui-monospace,SFMono-Regular,Menlo,Consolas,DejaVu Sans Mono,monospace";
const [LEFT, BESIDE, TICK] = [44, 3, 3]; // see trace_labels.py
const digits = (value: number) => Math.round(100 * value) / 100;

const text = (content: string, x: number, y: number, more: Record<string, string | number>) =>
  tag("text", { x: digits(x), y: digits(y), "font-family": SANS, "font-size": 10, ...more }, escaped(content));

const path = (d: string, more: Record<string, string | number>) => tag("path", { fill: "none", ...more, d });

/** Rows as dashed lines with their names, and tokens below. */
export function ground(
  rows: [string, number][],
  axis: [string, number][],
  [wide, , foot]: Graph["size"],
  { line, muted, ink }: Theme,
): string {
  const lines = rows.map(([, y]) => `M${LEFT - 6} ${y}H${digits(wide - LEFT + 6)}`).join("");
  // At both ends: of a wide graph one of them is out of sight.
  const names = rows.flatMap(([name, y]) =>
    [0, wide].map((x) => text(name, x, y + 3.5, { fill: muted, "text-anchor": x ? "end" : "start" })),
  );
  const tokens = axis.map(([token, x]) =>
    text(token, 0, 0, {
      transform: `translate(${digits(x - 3)} ${foot}) rotate(${heat.turn})`,
      "font-family": MONO,
      fill: ink,
    }),
  );
  return path(lines, { stroke: line, "stroke-dasharray": "2 4" }) + names.join("") + tokens.join("");
}

/** Edges, the weakest first: one path for all of a colour. */
export function curves(edges: Iterable<Edge>, end: number, theme: Theme): string {
  const levels = new Map<number, string>();
  for (const { path: p, share, weight } of edges) {
    const level = step(share * (weight < 0 ? -1 : 1), end);
    const [x, y, ...rest] = p.map(digits);
    levels.set(level, `${levels.get(level) ?? ""}M${x} ${y}C${rest.join(" ")}`);
  }
  const colour = diverging(theme);
  return [...levels]
    .sort(([a], [b]) => Math.abs(a) - Math.abs(b))
    .map(([level, d]) => path(d, { stroke: colour(level / circuit.steps), "stroke-width": digits(width(level)) }))
    .join("");
}

/** A node's shape, `more` px larger on each side. */
export function outline(node: Node, more = 0): string {
  const { x, y, kind, wide } = node;
  const half = reach(node) + more;
  if (kind === EMBEDDING) {
    const far = half + 1;
    return `M${x} ${y - far}L${x + far} ${y}L${x} ${y + far}L${x - far} ${y}z`;
  }
  if (kind === ERROR) {
    const near = half - 0.5;
    return `M${x - near} ${y - near}h${2 * near}v${2 * near}h${-2 * near}z`;
  }
  const side = wide / 2 + more - half;
  const turn = `a${half} ${half} 0 0 1 0`;
  return `M${x - side} ${y - half}h${2 * side}${turn} ${2 * half}h${-2 * side}${turn} ${-2 * half}z`;
}

/** A node in the colour of what it adds to the logits; an error is hollow. */
export function mark(node: Node, end: number, theme: Theme): string {
  const { kind, effect, title, x, y } = node;
  const value = kind === LOGIT ? 0 : lifted((trace.node * effect) / end);
  const d = outline(node);
  const colour = diverging(theme);
  const background = css(theme.background);
  if (kind === ERROR) {
    const stroke = value ? colour(Math.sign(value)) : theme.muted;
    return path(d, { fill: background, stroke, "stroke-width": 1.6 });
  }
  const shape = path(d, { fill: colour(value), stroke: theme.muted, "stroke-width": 0.9 });
  if (kind !== LOGIT && kind !== GROUP) return shape;
  const fill = Math.abs(value) > signed.ink ? background : theme.ink;
  const weight = kind === LOGIT ? 600 : 400;
  return shape + text(title, x, y + 4, { "font-size": 11, "font-weight": weight, "text-anchor": "middle", fill });
}

/** A node's title beside it, where there is room for it. */
export function titled({ kind, side, title, x, y }: Node, theme: Theme): string {
  if (!side || kind !== FEATURE) return "";
  const around = { fill: theme.ink, stroke: css(theme.background), "stroke-width": 3, "paint-order": "stroke" };
  const [away, beyond] = [trace.mark + BESIDE, trace.mark + TICK + BESIDE];
  if (side < 3)
    return text(title, x + (side === 1 ? away : -away), y + 3.5, {
      ...around,
      "text-anchor": side === 1 ? "start" : "end",
    });
  const down = side === 4 ? 1 : -1;
  const tick = path(`M${x} ${y + down * trace.mark}v${down * (TICK + 1)}`, { stroke: theme.muted });
  return text(title, x, down > 0 ? y + beyond + 7 : y - beyond, { ...around, "text-anchor": "middle" }) + tick;
}

export const ring = (node: Node, stroke: string, more: number, dash = "") =>
  path(outline(node, more), { stroke, "stroke-width": 2, "stroke-dasharray": dash });
