import { binStart } from "../draw/codec";
import { type Cells, mask } from "../draw/heatmap";
import { times } from "../draw/numbers";
import type { Viewer } from "./view";

export const MONO = "ui-monospace, DejaVu Sans Mono, Menlo, Consolas, monospace";
export const TILT = -55; // degrees of the column labels
export const ABOVE = 5; // px, so that the first label of a fine matrix is whole
const LEAST = 13; // px between two labels
const LABEL = 104; // px that a label is wide at most

/** What the matrix' picture is made of, on the screen and in a file. */
export interface Picture {
  cells: Cells;
  /** The first token that each row (column) stands for, and the end. */
  rows: number[];
  columns: number[];
  /** Of the square, of the row labels' and of the column labels' room, in px. */
  side: number;
  gutter: number;
  below: number;
  cell: number;
  /** Every how-manieth label is drawn, so that none touch. */
  every: number;
  /** A token as an axis has it; where not all are named, with its position. */
  name(at: number): string;
}

export function picture({ meta, heads, sink, top, shown }: Viewer, [wide, high]: [number, number]): Picture {
  const { tokens, causal } = meta;
  const { top: first, left, span } = shown.value;
  const matrix = heads.current.value;
  const whole = span === tokens.length;
  const count = whole ? matrix.side : span;
  const starts = (from: number) => times(count + 1, (i) => (whole ? binStart(i, span, count) : from + i));
  const [rows, columns] = [starts(first), starts(left)];
  const values = whole ? matrix.values : heads.window(first, left, span);
  const hidden = mask(causal, sink.value);
  const masked: Cells["masked"] = hidden && ((row, column) => hidden(rows[row] ?? 0, columns[column] ?? 0));
  const name = (at: number) => label(meta, at) + (wide < LEAST * count ? ` ${at}` : "");
  const longest = Math.min(LABEL, Math.max(...[...rows, ...columns].map((at) => widthOf(name(at)))));
  const gutter = Math.ceil(longest) + 10;
  const below = Math.ceil(longest * 0.82) + 14;
  const side = Math.max(40, Math.min(wide - gutter - 2, high - ABOVE - below));
  const cell = side / count;
  return {
    cells: { values, rows: count, factor: 1 / top.value, masked },
    rows,
    columns,
    side,
    gutter,
    below,
    cell,
    every: [1, 2, 5, 10, 20, 50, 100, 200].find((n) => n * cell >= LEAST) ?? 500,
    name,
  };
}

function label(meta: Viewer["meta"], at: number): string {
  return meta.axis[at] ?? meta.tokens[at] ?? "";
}

let ruler: CanvasRenderingContext2D | null | undefined;

function widthOf(text: string): number {
  ruler ??= document.createElement("canvas").getContext("2d");
  if (!ruler) return text.length * 7;
  ruler.font = `11px ${MONO}`;
  return ruler.measureText(text).width;
}
