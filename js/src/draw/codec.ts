/** Bytes of a message → numbers. The other end is `interp/widgets/_encode.py`. */

export const STEPS = 254; // of a uint8's range

function half(bits: number): number {
  const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
  const size = exponent ? 2 ** (exponent - 25) * (1024 + fraction) : 2 ** -24 * fraction;
  return (bits >> 15 ? -1 : 1) * (exponent < 31 ? size : fraction ? Number.NaN : Number.POSITIVE_INFINITY);
}

/** Little-endian float16 (`f2`), float32 (`f4`) or uint8 of the range 0 to 1 (`u1`; 255 is no number) → numbers. */
export function decode(data: Uint8Array, type: string): Float32Array {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const [size, read]: [number, (at: number) => number] =
    type === "f2"
      ? [2, (at) => half(view.getUint16(at, true))]
      : type === "f4"
        ? [4, (at) => view.getFloat32(at, true)]
        : [1, (at) => (view.getUint8(at) < 255 ? view.getUint8(at) / STEPS : Number.NaN)];
  const out = new Float32Array(data.length / size);
  for (let i = 0; i < out.length; i++) out[i] = read(i * size);
  return out;
}

/** The lower triangle, row by row → the square matrix. */
export function square(values: Float32Array, side: number): Float32Array {
  const out = new Float32Array(side * side);
  for (let row = 0, at = 0; row < side; at += ++row) out.set(values.subarray(at, at + row + 1), row * side);
  return out;
}

/** Where bin `index` begins, when `tokens` are pooled into `side` bins; the first token has its own. */
export function binStart(index: number, tokens: number, side: number): number {
  if (tokens <= side || side < 2 || index <= 0) return index;
  return index >= side ? tokens : 1 + Math.floor(((index - 1) * (tokens - 1)) / (side - 1));
}

/** The bin that holds token `position`. */
export function binOf(position: number, tokens: number, side: number): number {
  if (tokens <= side || position <= 0) return position;
  let bin = Math.min(side - 1, 1 + Math.floor(((position - 1) * (side - 1)) / (tokens - 1)));
  while (bin + 1 < side && binStart(bin + 1, tokens, side) <= position) bin++;
  return bin;
}
