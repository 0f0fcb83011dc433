import { level, type WeightTheme } from "./colours";

export interface Cells {
  /** Row by row; weights of 0 to 1 once multiplied by `factor`. */
  values: ArrayLike<number>;
  rows: number;
  factor: number;
  /** Cells that do not exist (a causal head's future, a hidden sink), not cells of weight 0. */
  masked?: ((row: number, column: number) => boolean) | undefined;
}

/**
 * A square of cells → `size` × `size` RGBA pixels. Where a pixel stands for several cells it shows the largest, so that
 * a line one token wide survives; `gap` pixels of background end each cell. NaN is hatched.
 */
export function pixels(
  cells: Cells,
  size: number,
  theme: Pick<WeightTheme, "table" | "background" | "empty" | "hatch">,
  gap = 0,
): Uint8ClampedArray {
  const { values, rows, factor, masked } = cells;
  const { table, background, empty, hatch } = theme;
  const out = new Uint8ClampedArray(4 * size * size).fill(255);
  const start = (at: number) => Math.floor((at * rows) / size);
  const edges = Int32Array.from({ length: size + 1 }, (_, i) => start(i)) as unknown as number[];
  const between = (at: number) => gap > 0 && at + gap < size && edges[at + gap] !== edges[at];
  const largest = (top: number, bottom: number, left: number, right: number) => {
    let found = -1;
    for (let row = top; row < bottom; row++) {
      for (let column = left; column < right; column++) {
        if (masked?.(row, column)) continue;
        const value = values[row * rows + column] as number;
        // A broken cell must be seen, whatever lies beside it.
        if (!Number.isFinite(value)) return Number.NaN;
        if (value > found) found = value;
      }
    }
    return found;
  };
  for (let y = 0; y < size; y++) {
    const top = edges[y] as number;
    const bottom = Math.max(top + 1, edges[y + 1] as number);
    for (let x = 0; x < size; x++) {
      let from: ArrayLike<number> = background;
      let at = 0;
      if (!between(x) && !between(y)) {
        const left = edges[x] as number;
        const value = largest(top, bottom, left, Math.max(left + 1, edges[x + 1] as number));
        if (value >= 0) {
          from = table;
          at = 3 * level(value * factor);
        } else if (value < 0) from = empty;
        else if ((x + y) % 6 < 2) from = hatch;
      }
      for (let c = 0; c < 3; c++) out[4 * (y * size + x) + c] = from[at + c] as number;
    }
  }
  return out;
}

/** Put a square of pixels on a canvas, its corner at x, y in pixels of the screen. */
export function put(context: CanvasRenderingContext2D, data: Uint8ClampedArray, size: number, x = 0, y = 0): void {
  const image = context.createImageData(size, size);
  image.data.set(data);
  context.putImageData(image, x, y);
}

/** The cells that a head does not have: a causal head's future, and the first token's column where it is hidden. */
export function mask(causal: boolean, sink: boolean): Cells["masked"] {
  return causal || sink ? (row, column) => (causal && column > row) || (sink && !column) : undefined;
}
