import type { Message, Model, View } from "./model";

/** What a page holds of a view: what the kernel would say, as far as it was asked when the page was written. */
export interface Saved {
  traits: Record<string, unknown>;
  /** By method and parameters (`key`). */
  answers: Record<string, Answer>;
  /** Requests that nobody misses an answer to. */
  silent: string[];
}

interface Answer {
  data?: Message;
  buffers?: unknown[];
  error?: string;
}

const NO_KERNEL = "this needs the model: it is not in this page, but in the notebook that wrote it";

/** What a request is found by, as `interp/widgets/alone.py` writes it. */
export const key = (method: string, params: Message) =>
  `${method} ${JSON.stringify(Object.fromEntries(Object.entries(params).sort(([a], [b]) => (a < b ? -1 : 1))))}`;

/** What a page holds, with its bytes, which JSON has in base64. */
export const parsed = (text: string) =>
  JSON.parse(text, (_, value) =>
    typeof value?.$bytes === "string" ? Uint8Array.from(atob(value.$bytes), (letter) => letter.charCodeAt(0)) : value,
  ) as Saved;

/** A model without a kernel: it answers from what was saved, and keeps the selection itself. */
export function alone({ traits, answers, silent }: Saved): Model {
  const values: Record<string, unknown> = { ...traits };
  const hears = new Set<(message: Message, buffers: unknown[]) => void>();

  const answer = (method: string, params: Message): Answer | undefined => {
    if (method === "select") {
      values.selection = { ...(values.selection as Message), ...params };
      return { data: values.selection as Message };
    }
    return answers[key(method, params)] ?? (silent.includes(method) ? undefined : { error: NO_KERNEL });
  };
  return {
    get: (name) => values[name],
    on(name, callback) {
      if (name === "msg:custom") hears.add(callback as never);
    },
    off(name, callback) {
      if (name === "msg:custom") hears.delete(callback as never);
    },
    send({ id, method, params = {} }) {
      if (typeof method !== "string") return;
      const found = answer(method, params as Message);
      if (!found) return;
      const { data, error, buffers = [] } = found;
      const message = error === undefined ? { id, reply: data ?? {} } : { id, error };
      queueMicrotask(() => {
        for (const hear of hears) hear(message, buffers);
      });
    },
  };
}

/** Show a view in a page of its own, in place of its picture. */
export function start(make: () => { render(view: View): unknown }): void {
  const data = document.getElementById("interp-data") as HTMLElement;
  const el = document.getElementById("interp-view") as HTMLElement;
  make().render({ model: alone(parsed(data.textContent)), el });
  el.nextElementSibling?.remove();
  const said = document.createElement("p");
  said.className = "interp-note interp-muted";
  said.textContent = "A saved page, without its model: what would run it is switched off, or says so.";
  el.querySelector(".interp-frame")?.append(said);
}
