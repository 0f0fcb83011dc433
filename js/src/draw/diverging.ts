import { css, type Rgb, split } from "./colours";
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

export interface Colours {
  /** From −1 to 1, as a CSS colour. */
  at(value: number): string;
  background: string;
  ink: string;
  faint: string;
  line: string;
  empty: string;
  hatch: string;
}

export const MONO = "ui-monospace,SFMono-Regular,Menlo,Consolas,DejaVu Sans Mono,monospace";
const SANS = "system-ui,-apple-system,Segoe UI,Roboto,DejaVu Sans,sans-serif";
const LEVELS = 64;
/** Less of a lift than for weights: many small effects of both signs are noise. */
const POWER = 0.8;
const [WIDE, NAMED, HIGH, LARGEST] = [340, 560, 400, 24];
const TURN = 55;
const ADVANCE = 6.02; // of a 10 px monospaced letter
const BAR = 192;
const LIGHT = [0x1d4f91, 0x7fa8d6, 0xe2939a, 0xa50f2a].map(split);
const DARK = [0x8cc4f5, 0x35689a, 0x9c3b3a, 0xff9b85].map(split);

/** Blue against, the background at zero, red towards; small values are lifted. */
export function diverging(background: Rgb, dark: boolean): (value: number) => string {
  const [a, b, c, d] = (dark ? DARK : LIGHT) as [Rgb, Rgb, Rgb, Rgb];
  const stops = [a, b, background, c, d];
  return (value) => {
    const at = 2 * Math.sign(value) * Math.min(1, Math.abs(value)) ** POWER + 2;
    const from = Math.min(3, Math.floor(at));
    return css([0, 1, 2].map((i) => mixed(stops[from]?.[i], stops[from + 1]?.[i], at - from)) as unknown as Rgb);
  };
}

const mixed = (low = 0, high = 0, part = 0) => Math.round(low + (high - low) * part);

/** How many columns of a monospaced font `text` takes. */
export function columnsOf(text: string): number {
  const wide = text.match(
    /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\uff00-\uff60]|\p{Extended_Pictographic}/gu,
  );
  return [...text].length + (wide?.length ?? 0);
}

const longest = (labels: string[]) => labels.reduce((most, label) => Math.max(most, columnsOf(label)), 0);

/** The room that a heatmap takes where `room` px of width can be had. */
export function measure({ rows, columns, tokens }: Signed, room: number): Place {
  const left = Math.ceil(longest(rows) * 6.2 + 6);
  const below = tokens ? longest(columns) * ADVANCE : 0;
  const turn = (TURN * Math.PI) / 180;
  const beyond = tokens ? Math.min(below * Math.cos(turn), room / 4) : 2;
  const space = Math.max(60, Math.min(tokens ? NAMED : WIDE, room - left - beyond - 3));
  let wide = Math.min(LARGEST, space / columns.length);
  let high = Math.min(LARGEST, HIGH / rows.length);
  wide = Math.min(wide, Math.max(12, 2 * high));
  high = Math.min(high, Math.max(12, 2 * wide));
  // Whole and half pixels are sharpest.
  [wide, high] = [wide, high].map((size) => Math.max(0.5, Math.floor(2 * size) / 2)) as [number, number];
  const [across, down] = [wide * columns.length, high * rows.length];
  const height = Math.ceil(down + (tokens ? below * Math.sin(turn) + 18 : 18));
  return { left, wide, high, across, down, width: Math.ceil(left + across + beyond + 2), height };
}

const digits = (value: number) => `${Math.round(100 * value) / 100}`;

export const text = (content: string, attributes: Record<string, string | number>) =>
  tag("text", { "font-family": SANS, "font-size": 10, ...attributes }, escaped(content));

const path = (d: string, attributes: Record<string, string | number>) => (d ? tag("path", { ...attributes, d }) : "");

/** Which of `count` labels to write so that they stand at least `least` px apart. */
function ticks(count: number, pitch: number, least: number): number[] {
  const every = [1, 2, 5, 10, 20, 50, 100, 200].find((n) => n * pitch >= least) ?? 1e6;
  return Array.from({ length: Math.ceil(count / every) }, (_, i) => i * every);
}

/** Cells in colours that are strongest at `end` and beyond it, where they have a dot; labels beside and below them. */
export function heat(cells: Signed, end: number, place: Place, colours: Colours): string {
  const { values, rows, columns } = cells;
  const { left, wide, high, across, down } = place;
  const painted = new Map<number, string>();
  let empty = "";
  let lost = "";
  let dots = "";
  const radius = digits(Math.min(2.5, wide / 5, high / 5));
  for (let at = 0; at < values.length; at++) {
    const [x, y] = [digits((at % columns.length) * wide), digits(Math.floor(at / columns.length) * high)];
    const value = values[at] as number;
    const box = `M${x} ${y}h${wide}v${high}h-${wide}z`;
    if (Number.isNaN(value)) empty += box;
    else if (!Number.isFinite(value)) lost += hatched(+x, +y, wide, high);
    else {
      const level = Math.round(Math.max(-1, Math.min(1, value / end)) * LEVELS * 4);
      if (level) painted.set(level, (painted.get(level) ?? "") + box);
      if (Math.abs(value) > end * (1 + 1e-6))
        dots += tag("circle", { cx: +x + wide / 2, cy: +y + high / 2, r: radius, fill: colours.background });
    }
  }
  let lines = "";
  for (let i = 1; i < columns.length; i++) lines += `M${digits(i * wide)} 0V${digits(down)}`;
  for (let i = 1; i < rows.length; i++) lines += `M0 ${digits(i * high)}H${digits(across)}`;
  const crisp = { "shape-rendering": "crispEdges" };
  const inside = [
    path(empty, { ...crisp, fill: colours.empty }),
    ...[...painted].map(([level, d]) => path(d, { ...crisp, fill: colours.at(level / LEVELS / 4) })),
    path(lost, { stroke: colours.hatch, "stroke-width": 1.2, fill: "none" }),
    Math.min(wide, high) >= 5 ? path(lines, { ...crisp, stroke: colours.background }) : "",
    tag("rect", { width: across, height: down, fill: "none", stroke: colours.line }),
    dots,
  ];
  const names = ticks(rows.length, high, 11).map((row) =>
    text(rows[row] ?? "", {
      x: left - 6,
      y: digits(Math.max(8, (row + 0.5) * high + 3.5)),
      "text-anchor": "end",
      fill: colours.faint,
    }),
  );
  const below = (cells.tokens ? turned : numbered)(cells, place, colours);
  return names.join("") + below + tag("g", { transform: `translate(${left} 0)` }, inside.join(""));
}

function hatched(x: number, y: number, wide: number, high: number): string {
  const line = (a: number, b: number, c: number, d: number) =>
    `M${digits(x + a * wide)} ${digits(y + b * high)}L${digits(x + c * wide)} ${digits(y + d * high)}`;
  return line(0, 1, 1, 0) + line(0, 0.5, 0.5, 0) + line(0.5, 1, 1, 0.5);
}

function numbered({ columns }: Signed, { left, wide, down }: Place, { faint }: Colours): string {
  const room = 0.8 * (7 + 6 * longest(columns));
  return ticks(columns.length, wide, room)
    .map((n) =>
      text(columns[n] ?? "", {
        x: digits(left + (n + 0.5) * wide),
        y: down + 13,
        "text-anchor": "middle",
        fill: faint,
      }),
    )
    .join("");
}

function turned({ columns, marked }: Signed, { left, wide, down }: Place, { ink }: Colours): string {
  const gap = wide >= 11 ? 11 : 15;
  const few = marked.slice(0, Math.floor(columns.length / 4) + 1);
  const free = ticks(columns.length, wide, gap).filter((n) => few.every((m) => Math.abs(n - m) * wide >= gap));
  return [...new Set([...free, ...few])]
    .map((n) => {
      const transform = `translate(${digits(left + (n + 0.5) * wide - 3)} ${down + 10}) rotate(${TURN})`;
      const label = columns[n] ?? "";
      const under = few.includes(n)
        ? path(`M0 3h${digits(columnsOf(label) * ADVANCE)}`, { transform, stroke: ink })
        : "";
      return text(label, { transform, "font-family": MONO, fill: ink }) + under;
    })
    .join("");
}

/** The bar of colours from −`end` to `end`, as wide as `SCALE.width`; `turned` swaps the values. */
export function scale(end: number, turned: boolean, colours: Colours): string {
  const steps = Array.from({ length: BAR / 3 }, (_, i) =>
    tag("rect", {
      x: 3 * i,
      width: 3,
      height: 8,
      fill: colours.at((2 * i) / (BAR / 3 - 1) - 1),
      "shape-rendering": "crispEdges",
    }),
  );
  const ends = [`−${end}`, "0", `+${end}`];
  if (turned) ends.reverse();
  const anchors = ["start", "middle", "end"];
  const words = ends.map((word, i) =>
    text(word, { x: (i * BAR) / 2, y: 20, "text-anchor": anchors[i] ?? "", fill: colours.faint }),
  );
  const edge = tag("rect", { width: BAR, height: 8, fill: "none", stroke: colours.line });
  return steps.join("") + edge + words.join("");
}

export const SCALE = { width: BAR, height: 22 };
