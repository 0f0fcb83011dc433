import { kernelOf, type Message, type Model, vscode } from "./model";

const LOST = "the kernel that made this view has ended or was restarted: run its cell again";
const PATIENCE = 5000; // ms

export interface Answer {
  data: Message;
  buffers: unknown[];
}

export interface Options {
  signal?: AbortSignal;
  progress?: (done: number, total: number) => void;
}

interface Waiting extends Options {
  resolve(answer: Answer): void;
  reject(error: Error): void;
}

export interface Rpc {
  request(method: string, params?: Message, options?: Options): Promise<Answer>;
  /** A request of which only the newest matters: one is on its way, the newest waits, those between are cancelled. */
  latest(lane: string, params: Message, options?: Options): Promise<Answer>;
  /** Whether the lane still waits for the kernel. */
  busy(lane: string): boolean;
}

export class Cancelled extends Error {}

/** Requests to the kernel, until `ends`. Every request ends: with a reply, with an error, or with `Cancelled`. */
export function connect(model: Model, ends: AbortSignal): Rpc {
  const waiting = new Map<string, Waiting>();
  const lanes = new Map<string, { next?: { start(): void; reject(error: Error): void } }>();
  // Two pages may show one widget, and each sees the other's replies.
  const prefix = Math.random().toString(36).slice(2);
  let count = 0;

  const cancel = (id: string) => {
    const { reject } = waiting.get(id) ?? {};
    if (!waiting.delete(id)) return;
    send(model, { id, cancel: true });
    reject?.(new Cancelled());
  };
  const request = (method: string, params: Message = {}, options: Options = {}) =>
    new Promise<Answer>((resolve, reject) => {
      if (ends.aborted || options.signal?.aborted) return reject(new Cancelled());
      const id = `${prefix}-${++count}`;
      waiting.set(id, { ...options, resolve, reject });
      options.signal?.addEventListener("abort", () => cancel(id));
      const lost = () => waiting.delete(id) && reject(new Error(LOST));
      try {
        model.send({ id, method, params });
      } catch {
        return lost();
      }
      // JupyterLab sends into the void what a new kernel knows nothing of: an idle one would have answered.
      const look = () => {
        if (!waiting.has(id)) return;
        if (!vscode() && kernelOf(model)?.status === "idle") lost();
        else setTimeout(look, PATIENCE);
      };
      setTimeout(look, PATIENCE);
    });
  const receive = (message: unknown, buffers?: unknown) => {
    const { id, reply, error, progress } = (message ?? {}) as Message;
    const pending = waiting.get(id as string);
    if (!pending) return;
    if (Array.isArray(progress)) return pending.progress?.(progress[0], progress[1]);
    waiting.delete(id as string);
    if (reply && typeof reply === "object")
      pending.resolve({ data: reply as Message, buffers: (buffers as unknown[]) ?? [] });
    else pending.reject(new Error(typeof error === "string" ? error : "the kernel's answer cannot be read"));
  };
  const latest = (method: string, params: Message, options?: Options) =>
    new Promise<Answer>((resolve, reject) => {
      const start = () => {
        lanes.set(method, {});
        const settled = () => {
          const next = lanes.get(method)?.next;
          lanes.delete(method);
          next?.start();
        };
        request(method, params, options).finally(settled).then(resolve, reject);
      };
      const lane = lanes.get(method);
      if (!lane) return start();
      lane.next?.reject(new Cancelled());
      lane.next = { start, reject };
    });

  model.on("msg:custom", receive);
  ends.addEventListener("abort", () => {
    model.off("msg:custom", receive);
    for (const id of [...waiting.keys()]) cancel(id);
  });
  return { request, latest, busy: (lane) => lanes.has(lane) };
}

/** Send where nobody may be left to hear it: the comm may be gone with the view. */
export function send(model: Model, message: Message): void {
  try {
    model.send(message);
  } catch {
    // Nothing is lost that anyone would miss.
  }
}
