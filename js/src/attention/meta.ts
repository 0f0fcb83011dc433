export interface Meta {
  model: string;
  tokens: string[];
  /** The positions of tokens that are shown shortened. */
  long: number[];
  axis: Record<string, string>;
  glyphs: Record<string, string>;
  layers: number[];
  heads: number[];
  causal: boolean;
  labels: Record<string, string>;
  /** As they are written; nothing where they are no numbers. */
  stats: Record<string, string[][]>;
  bad: [number, number][];
  notes: string[];
  /** The rooms of the picture's drawings, which this view fills: their columns' width, their own width and height. */
  boxes: Record<"grid" | "matrix", Box>;
  side: number;
  first: (Form & { layer: number; head: number }) | null;
}

export type Box = [column: number, width: number, height: number];

/** How the bytes of a head are to be read. */
export interface Form {
  side: number;
  type: string;
  triangle: boolean;
  scale: number;
}

export type Mode = "pattern" | "weighted";
export type Direction = "from" | "to";

export interface Selected {
  layer: number;
  head: number;
  query: number | null;
  key: number | null;
  position: number | null;
}

export const headName = (layer: number, head: number) => `L${layer}H${head}`;

/** The token that colours the text: the one that looks (`from`) or that is looked at (`to`). */
export const heldToken = ({ query, key, position }: Selected, direction: Direction) =>
  (direction === "from" ? query : key) ?? position;

/** What holding a token selects. */
export const holding = (token: number | null, direction: Direction) => ({
  query: direction === "from" ? token : null,
  key: direction === "to" ? token : null,
  position: token,
});
