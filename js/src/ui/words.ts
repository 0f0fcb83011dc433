import { h } from "./dom";

/** A piece of a line: muted words and a bold number; `loud` words are not muted. */
export type Piece = readonly [lead: string, bold?: string, loud?: boolean];

export const spans = (pieces: readonly Piece[]) =>
  pieces.map(([lead, bold = "", loud = false]) =>
    h(loud ? "span" : "span.muted", {}, lead, ...(bold ? [h("b", {}, bold)] : [])),
  );

/** A count as it is written: with a comma between thousands. */
export const counted = (count: number) => count.toLocaleString("en-US");

export const plural = (count: number, name: string) => `${counted(count)} ${name}${count === 1 ? "" : "s"}`;
