import { computed, type ReadonlySignal, signal } from "@preact/signals-core";
import { binOf, decode, square } from "../draw/codec";
import { times } from "../draw/numbers";
import { bytes, type Model } from "../host/model";
import type { Rpc } from "../host/rpc";
import { watch } from "../ui/watch";
import type { Direction, Form, Meta, Mode, Selected } from "./meta";

/** One head's weights, as far as they are here. */
export interface Matrix {
  id: string;
  params: { layer: number; head: number; mode: Mode };
  /** Cells a side: the tokens, or fewer bins of them. */
  side: number;
  /** `side` × `side`, in units of `scale`. */
  values: Float32Array;
  scale: number;
  /** Whether each value is a token pair's own, to float16. */
  exact: boolean;
  /** Tiles of the whole, by row and column of tiles. */
  tiles: Map<string, Float32Array>;
}

/** The weights of one query, or onto one key, in units of `scale`. */
export interface Line {
  values: Float32Array;
  scale: number;
  exact: boolean;
}

export interface Heads {
  mode: ReadonlySignal<Mode>;
  atlas: ReadonlySignal<Uint8Array>;
  /** The chosen head: in full if it is here, else as its thumbnail has it. */
  current: ReadonlySignal<Matrix>;
  /** Switch to value-weighted attention and back; the norms are computed when they are first asked for. */
  show(mode: Mode): Promise<void>;
  line(direction: Direction, index: number): Line;
  /** Ask for a line's exact weights, where what is here is rounded. */
  refine(direction: Direction, index: number): void;
  /** The weights of a window of tokens, from what is here. */
  window(top: number, left: number, span: number): Float32Array;
  /** Ask for the tiles that the window lacks, one after another. */
  fill(top: number, left: number, span: number): void;
}

const KEPT = 24e6; // bytes of heads that a view keeps
export const TILE = 448; // the kernel's TILE

/** The heads' data: thumbnails at hand, everything else on request. */
export function loadHeads(
  rpc: Rpc,
  model: Model,
  meta: Meta,
  selected: ReadonlySignal<Selected>,
  fail: (error: unknown) => void,
  ends: AbortSignal,
): Heads {
  const { layers, heads, causal, first } = meta;
  const n = meta.tokens.length;
  const mode = signal<Mode>("pattern");
  const plain = bytes(model.get("atlas"));
  const weighted = signal<Uint8Array | undefined>(undefined);
  const atlas = computed(() => (mode.value === "weighted" && weighted.value) || plain);
  const cache = signal(new Map<string, Matrix>());
  const tiles = signal(0);
  const refined = signal<(Line & { id: string }) | undefined>(undefined);
  const wanted = computed(() => ({ layer: selected.value.layer, head: selected.value.head, mode: mode.value }));
  const idOf = (params: object) => `${Object.values(params)}`;

  const keep = (params: Matrix["params"], { side, type, triangle, scale }: Form, buffer: unknown) => {
    const flat = decode(bytes(buffer), type);
    const values = triangle ? square(flat, side) : flat;
    const id = idOf(params);
    const held = new Map(cache.peek());
    let room = KEPT - values.byteLength;
    for (const [old, matrix] of [...held].reverse()) {
      room -= matrix.values.byteLength + matrix.tiles.size * TILE * TILE * 4;
      if (room < 0) held.delete(old);
    }
    cache.value = held.set(id, {
      id,
      params,
      side,
      values,
      scale,
      exact: side === n && type === "f2",
      tiles: new Map(),
    });
  };
  if (first) keep({ layer: first.layer, head: first.head, mode: "pattern" }, first, model.get("first"));

  const current = computed<Matrix>(() => {
    const params = wanted.value;
    const id = idOf(params);
    const held = cache.value.get(id);
    if (held) return held;
    const { side } = meta;
    const at = (layers.indexOf(params.layer) * heads.length + heads.indexOf(params.head)) * side * side;
    const values = decode(atlas.value.subarray(at, at + side * side), "u1");
    return { id, params, side, values, scale: 1, exact: false, tiles: new Map() };
  });
  watch(ends, () => {
    const params = wanted.value;
    if (cache.peek().has(idOf(params))) return;
    rpc.latest("head", params).then(({ data, buffers }) => keep(params, data as unknown as Form, buffers[0]), fail);
  });

  return {
    mode,
    atlas,
    current,
    async show(next) {
      if (next === "weighted" && !weighted.peek()) {
        weighted.value = bytes((await rpc.latest("atlas", { mode: next })).buffers[0]);
      }
      mode.value = next;
    },
    line(direction, index) {
      const { id, side, values, scale, exact } = current.value;
      const from = direction === "from";
      if (refined.value?.id === `${id} ${direction} ${index}`) return refined.value;
      const bin = binOf(index, n, side);
      const weights = Float32Array.from({ length: n }, (_, i) => {
        if (causal && (from ? i > index : i < index)) return 0;
        const other = binOf(i, n, side);
        return values[from ? bin * side + other : other * side + bin] as number;
      });
      return { values: weights, scale, exact };
    },
    refine(direction, index) {
      const { params, exact, id } = current.peek();
      const key = `${id} ${direction} ${index}`;
      if (exact || refined.peek()?.id === key) return;
      rpc
        .latest("line", { ...params, axis: direction === "from" ? "query" : "key", index })
        .then(({ data, buffers }) => {
          const scale = data.scale as number;
          const values = decode(bytes(buffers[0]), "f4").map((value) => value / scale);
          refined.value = { id: key, values, scale, exact: true };
        }, fail);
    },
    window(top, left, span) {
      tiles.value;
      const matrix = current.value;
      const { side, values } = matrix;
      const columns = times(span, (i) => binOf(left + i, n, side));
      return Float32Array.from({ length: span * span }, (_, i) => {
        const [query, key] = [top + Math.floor(i / span), left + (i % span)];
        const tile = side < n && matrix.tiles.get(`${Math.floor(query / TILE)},${Math.floor(key / TILE)}`);
        const wide = Math.min(TILE, n - key + (key % TILE));
        if (tile) return tile[(query % TILE) * wide + (key % TILE)] as number;
        return values[binOf(query, n, side) * side + (columns[i % span] as number)] as number;
      });
    },
    async fill(top, left, span) {
      const matrix = current.peek();
      if (matrix.side === n || span > 2 * TILE) return;
      for (let row = Math.floor(top / TILE); row * TILE < top + span; row++) {
        for (let column = Math.floor(left / TILE); column * TILE < left + span; column++) {
          const id = `${row},${column}`;
          if (matrix.tiles.has(id) || (causal && column > row)) continue;
          try {
            const { buffers } = await rpc.latest("tile", { ...matrix.params, row, column });
            matrix.tiles.set(id, decode(bytes(buffers[0]), "f2"));
            tiles.value++;
          } catch (error) {
            return fail(error);
          }
        }
      }
    },
  };
}
