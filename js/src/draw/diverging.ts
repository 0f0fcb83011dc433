import { font, heat as geometry, signed } from "../../../src/interp/views/kit/palette.json";
import { css, diverging, lifted, type Theme } from "./colours";
import { finite, times } from "./numbers";
import { escaped, tag } from "./svg";

/** Signed values in rows and columns. NaN is a cell that is not computed; an infinity has no finite value. */
export interface Signed {
  values: ArrayLike<number>;
  rows: string[];
  columns: string[];
  /** Whether the columns are tokens, whose labels are long, rather than numbers. */
  tokens: boolean;
  /** The columns whose labels are underlined. */
  marked: number[];
  /** How many columns of the result share one of these. */
  block: number;
}

/** Where the cells of a heatmap lie, in px. */
export interface Place {
  left: number;
  wide: number;
  high: number;
  across: number;
  down: number;
  width: number;
  height: number;
}

const MONO = "ui-monospace,SFMono-Regular,Menlo,Consolas,DejaVu Sans Mono,monospace";
const SANS = "system-ui,-apple-system,Segoe UI,Roboto,DejaVu Sans,sans-serif";
const ADVANCE = font.size * font.advance;
const ALL = 11; // px a column from which on every token has its label
const CRISP = { "shape-rendering": "crispEdges" };

/** How many columns of a monospaced font `text` takes. */
export function columnsOf(text: string): number {
  const wide = text.match(
    /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\uff00-\uff60]|\p{Extended_Pictographic}/gu,
  );
  return [...text].length + (wide?.length ?? 0);
}

const longest = (labels: string[]) => labels.reduce((most, label) => Math.max(most, columnsOf(label)), 0);

/** The room that a heatmap takes where `room` px of width can be had. */
export function measure(cells: Signed, room: number): Place {
  const { rows, columns, tokens, block } = cells;
  const left = Math.ceil(longest(rows) * 6.2 + 6);
  const turn = (geometry.turn * Math.PI) / 180;
  const space = (label: number) => {
    const beyond = tokens ? Math.min(label * ADVANCE * Math.cos(turn) + 4, room / 4) : 2;
    return Math.max(60, Math.min(tokens ? geometry.tokens : geometry.width, room - left - beyond - 3)) / columns.length;
  };
  const label = longest(columns);
  const numbered = block > 1 || space(label) < ALL;
  let wide = Math.min(geometry.cell, space(numbered ? label + `${columns.length * block} `.length : label));
  let high = Math.min(geometry.cell, geometry.height / rows.length);
  wide = Math.min(wide, Math.max(12, 2 * high));
  high = Math.min(high, Math.max(12, 2 * wide));
  // Whole and half pixels are sharpest.
  [wide, high] = [wide, high].map((size) => Math.max(0.5, Math.floor(2 * size) / 2)) as [number, number];
  const [across, down] = [wide * columns.length, high * rows.length];
  let [right, below] = [left + across + 2, 17];
  if (tokens) {
    for (const [n, text] of labelled(cells, wide)) {
      const length = columnsOf(text) * ADVANCE;
      right = Math.max(right, Math.min(room, left + (n + 0.5) * wide + length * Math.cos(turn) + 4));
      below = Math.max(below, length * Math.sin(turn) + 14);
    }
  }
  return { left, wide, high, across, down, width: Math.ceil(right), height: Math.ceil(down + below) };
}

const digits = (value: number) => `${Math.round(100 * value) / 100}`;

export const text = (content: string, attributes: Record<string, string | number>) =>
  tag("text", { "font-family": SANS, "font-size": font.size, ...attributes }, escaped(content));

const path = (d: string, attributes: Record<string, string | number>) => (d ? tag("path", { ...attributes, d }) : "");

const box = (at: number, columns: number, wide: number, high: number) =>
  `M${digits((at % columns) * wide)} ${digits(Math.floor(at / columns) * high)}h${wide}v${high}h-${wide}z`;

/** Values of −1 to 1 as cells: one path for all of a colour, zero unpainted. */
function painted(values: number[], columns: number, wide: number, high: number, theme: Theme): string {
  const paths = new Map<number, string>();
  values.forEach((value, at) => {
    const level = Math.round(lifted(value) * signed.levels);
    if (level) paths.set(level, (paths.get(level) ?? "") + box(at, columns, wide, high));
  });
  const colour = diverging(theme);
  return [...paths].map(([level, d]) => path(d, { ...CRISP, fill: colour(level / signed.levels) })).join("");
}

/** Which of `count` labels to write so that they stand at least `least` px apart. */
function ticks(count: number, pitch: number, least: number): number[] {
  const every = [1, 2, 5, 10, 20, 50, 100, 200].find((n) => n * pitch >= least) ?? 1e6;
  return times(Math.ceil(count / every), (i) => i * every);
}

/** Cells in colours that are strongest at `end` and beyond it, where they have a dot; labels beside and below them. */
export function heat(cells: Signed, end: number, place: Place, theme: Theme): string {
  const { rows, columns } = cells;
  const { left, wide, high, across, down } = place;
  const values = [...(cells.values as number[])];
  let empty = "";
  let lost = "";
  let dots = "";
  const radius = digits(Math.min(2.5, wide / 5, high / 5));
  values.forEach((value, at) => {
    const [x, y] = [(at % columns.length) * wide, Math.floor(at / columns.length) * high];
    if (Number.isNaN(value)) empty += box(at, columns.length, wide, high);
    else if (!finite(value)) lost += hatched(x, y, wide, high);
    else if (Math.abs(value) > end * (1 + 1e-6))
      dots += tag("circle", { cx: x + wide / 2, cy: y + high / 2, r: radius, fill: css(theme.background) });
  });
  let lines = "";
  for (let i = 1; i < columns.length; i++) lines += `M${digits(i * wide)} 0V${digits(down)}`;
  for (let i = 1; i < rows.length; i++) lines += `M0 ${digits(i * high)}H${digits(across)}`;
  const known = values.map((value) => (finite(value) ? value / end : 0));
  const inside = [
    path(empty, { ...CRISP, fill: css(theme.empty) }),
    painted(known, columns.length, wide, high, theme),
    path(lost, { stroke: css(theme.hatch), "stroke-width": 1.2, fill: "none" }),
    Math.min(wide, high) >= 5 ? path(lines, { ...CRISP, stroke: css(theme.background) }) : "",
    tag("rect", { width: across, height: down, fill: "none", stroke: theme.line }),
    dots,
  ];
  const names = ticks(rows.length, high, 11).map((row) =>
    text(rows[row] ?? "", {
      x: left - 6,
      y: digits(Math.max(8, (row + 0.5) * high + 3.5)),
      "text-anchor": "end",
      fill: theme.muted,
    }),
  );
  const below = (cells.tokens ? turned : numbered)(cells, place, theme);
  return names.join("") + below + tag("g", { transform: `translate(${left} 0)` }, inside.join(""));
}

function hatched(x: number, y: number, wide: number, high: number): string {
  const line = (a: number, b: number, c: number, d: number) =>
    `M${digits(x + a * wide)} ${digits(y + b * high)}L${digits(x + c * wide)} ${digits(y + d * high)}`;
  return line(0, 1, 1, 0) + line(0, 0.5, 0.5, 0) + line(0.5, 1, 1, 0.5);
}

function numbered({ columns }: Signed, { left, wide, down }: Place, { muted }: Theme): string {
  const room = 0.8 * (7 + 6 * longest(columns));
  return ticks(columns.length, wide, room)
    .map((n) =>
      text(columns[n] ?? "", {
        x: digits(left + (n + 0.5) * wide),
        y: down + 13,
        "text-anchor": "middle",
        fill: muted,
      }),
    )
    .join("");
}

/** The token columns that have labels: those that are marked, and every so-manieth; where some lack one, with numbers. */
function labelled({ columns, marked, block }: Signed, wide: number): [column: number, text: string, mark: boolean][] {
  const gap = wide >= ALL ? ALL : 15;
  const few = marked.slice(0, Math.floor(columns.length / 4) + 1);
  const free = ticks(columns.length, wide, gap).filter((n) => few.every((m) => Math.abs(n - m) * wide >= gap));
  const shown = [...new Set([...free, ...few])];
  const numbers = block > 1 || shown.length < columns.length;
  return shown.map((n) => [n, (numbers ? `${n * block} ` : "") + columns[n], few.includes(n)]);
}

function turned(cells: Signed, { left, wide, down }: Place, { ink }: Theme): string {
  return labelled(cells, wide)
    .map(([n, label, mark]) => {
      const transform = `translate(${digits(left + (n + 0.5) * wide - 3)} ${down + 10}) rotate(${geometry.turn})`;
      const under = mark ? path(`M0 3h${digits(columnsOf(label) * ADVANCE)}`, { transform, stroke: ink }) : "";
      return text(label, { transform, "font-family": MONO, fill: ink }) + under;
    })
    .join("");
}

/** The bar of colours from −`end` to `end`, as wide as `SCALE.width`; `turned` swaps the values. */
export function scale(end: number, turned: boolean, theme: Theme): string {
  const count = geometry.bar / 3;
  const values = times(count, (i) => (2 * i) / (count - 1) - 1);
  const ends = [`−${end}`, "0", `+${end}`];
  if (turned) ends.reverse();
  const words = ends.map((word, i) =>
    text(word, {
      x: (i * geometry.bar) / 2,
      y: 20,
      "text-anchor": ["start", "middle", "end"][i] ?? "",
      fill: theme.muted,
    }),
  );
  const edge = tag("rect", { width: geometry.bar, height: 8, fill: "none", stroke: theme.line });
  return painted(values, count, 3, 8, theme) + edge + words.join("");
}

export const SCALE = { width: geometry.bar, height: 22 };
