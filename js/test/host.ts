import { vi } from "vitest";
import mount from "../src/attention/index";
import type { Meta } from "../src/attention/meta";
import { STEPS } from "../src/draw/codec";
import type { Message, Model } from "../src/host/model";

type Listener = (...args: unknown[]) => void;

/** A front end without a page: traits, messages both ways, and what was sent. */
export class Host implements Model {
  readonly sent: Message[] = [];
  readonly listeners = new Map<string, Set<Listener>>();
  /** Answers requests when set; else they wait. */
  answer: ((message: Message) => [Message, ArrayBuffer[]?] | undefined) | undefined;

  constructor(readonly traits: Record<string, unknown> = {}) {}

  get(name: string): unknown {
    return this.traits[name];
  }

  on(name: string, callback: (...args: never[]) => void): void {
    this.listeners.set(name, (this.listeners.get(name) ?? new Set()).add(callback as Listener));
  }

  off(name: string, callback: (...args: never[]) => void): void {
    this.listeners.get(name)?.delete(callback as Listener);
  }

  send(message: Message): void {
    this.sent.push(structuredClone(message));
    const answered = this.answer?.(message);
    if (answered) queueMicrotask(() => this.deliver(...answered));
  }

  deliver(message: unknown, buffers: ArrayBuffer[] = []): void {
    const views = buffers.map((buffer) => new DataView(buffer));
    for (const listener of [...(this.listeners.get("msg:custom") ?? [])]) listener(message, views);
  }

  /** The kernel changes a trait. */
  change(name: string, value: unknown): void {
    this.traits[name] = value;
    for (const listener of [...(this.listeners.get(`change:${name}`) ?? [])]) listener();
  }

  requests(method: string): Message[] {
    return this.sent.filter((message) => message.method === method);
  }

  count(): number {
    return [...this.listeners.values()].reduce((sum, set) => sum + set.size, 0);
  }
}

export const settled = () => new Promise((resolve) => setTimeout(resolve, 5));

/** happy-dom has no canvas: this one keeps the pixels that are put and the texts that are written. */
export function fakeCanvas(): { images: ImageData[]; texts: string[] } {
  const kept = { images: [] as ImageData[], texts: [] as string[] };
  const context = {
    createImageData: (width: number, height: number) => ({
      width,
      height,
      data: new Uint8ClampedArray(4 * width * height),
    }),
    putImageData: (image: ImageData) => kept.images.push(image),
    getImageData: () => ({ data: [255, 255, 255, 255] }),
    measureText: (text: string) => ({ width: 6 * text.length }),
    fillText: (text: string) => kept.texts.push(text),
  };
  const proxy = new Proxy(context, {
    get: (target, name) => target[name as keyof typeof target] ?? (() => undefined),
    set: () => true,
  });
  vi.spyOn(HTMLCanvasElement.prototype, "getContext").mockImplementation((() => proxy) as never);
  vi.spyOn(HTMLCanvasElement.prototype, "toDataURL").mockReturnValue("data:image/png;base64,");
  return kept;
}

/** Weights of a small model: head h of layer l looks at token 0 with .5 and at itself with the rest. */
export function attention(tokens: string[], layers = [0, 1], heads = [0, 1, 2], causal = true): Host {
  const n = tokens.length;
  const weight = (l: number, h: number, q: number, k: number) =>
    k === q ? (q ? 0.5 : 1) : k === 0 ? 0.5 - (l + h) * 0 : 0;
  const atlas = new Uint8Array(layers.length * heads.length * n * n);
  layers.forEach((_, l) => {
    heads.forEach((_, h) => {
      for (let q = 0; q < n; q++) {
        for (let k = 0; k < n; k++)
          atlas[((l * heads.length + h) * n + q) * n + k] = Math.round(STEPS * weight(l, h, q, k));
      }
    });
  });
  const meta: Meta = {
    model: "test",
    tokens,
    long: [],
    axis: {},
    glyphs: {},
    layers,
    heads,
    causal,
    labels: { [`${layers[0]}.${heads[0]}`]: "induction" },
    stats: { entropy: layers.map(() => heads.map(() => "0.69")) },
    bad: [],
    notes: [],
    boxes: { grid: [250, 250, 180], matrix: [312, 300, 300] },
    side: n,
    first: null,
  };
  const selection = { layer: layers[0], head: heads[0], query: null, key: null, position: null };
  const host = new Host({
    meta,
    atlas: new DataView(atlas.buffer),
    first: new DataView(new ArrayBuffer(0)),
    selection,
  });
  host.answer = ({ id, method, cancel, params }) => {
    if (cancel) return undefined;
    const { index, axis } = (params ?? {}) as { index: number; axis: string };
    if (method === "head") {
      const flat: number[] = [];
      for (let q = 0; q < n; q++)
        for (let k = 0; k < (causal ? q + 1 : n); k++) flat.push(Math.round(STEPS * weight(0, 0, q, k)));
      return [{ id, reply: { side: n, type: "u1", triangle: causal, scale: 1 } }, [Uint8Array.from(flat).buffer]];
    }
    if (method === "line") {
      const line = Float32Array.from(tokens, (_, i) =>
        axis === "query" ? weight(0, 0, index, i) : weight(0, 0, i, index),
      );
      return [{ id, reply: { scale: 1 } }, [line.buffer]];
    }
    if (method === "select") return [{ id, reply: { ...(host.get("selection") as Message), ...(params as Message) } }];
    if (method === "atlas") return [{ id, reply: {} }, [atlas.slice().buffer]];
    return [{ id, reply: {} }];
  };
  return host;
}

/** A view of `host` on the page. */
export function open(host: Host): { el: HTMLElement; close: () => void; find: (selector: string) => HTMLElement } {
  const el = document.createElement("div");
  document.body.append(el);
  const ends = new AbortController();
  mount().render({ model: host, el, signal: ends.signal });
  const find = (selector: string) => {
    const found = el.querySelector<HTMLElement>(selector);
    if (!found) throw new Error(`no ${selector}`);
    return found;
  };
  return { el, find, close: () => ends.abort() };
}

export const press = (element: HTMLElement, key: string) => {
  const event = new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true });
  element.dispatchEvent(event);
  return event;
};
