/** What a front end gives a widget (the anywidget front-end module interface), as far as it is used here. */
export type Message = Record<string, unknown>;

export interface Model {
  get(name: string): unknown;
  on(name: string, callback: (...args: never[]) => void): void;
  off(name: string, callback: (...args: never[]) => void): void;
  send(content: Message, callbacks?: unknown, buffers?: ArrayBuffer[]): void;
  /** The front end's own; what it can do besides differs. */
  widget_manager?: unknown;
}

/** The page's own connection to the kernel. */
interface Kernel {
  status?: string;
  interrupt?(): Promise<unknown>;
}

/** The kernel behind a view, where its front end shows it. */
export const kernelOf = ({ widget_manager: manager }: Model) => (manager as { kernel?: Kernel } | undefined)?.kernel;

export interface View {
  model: Model;
  el: HTMLElement;
  signal?: AbortSignal;
}

/** Whether the page is VS Code's. */
export const vscode = () => [...document.body.classList].some((name) => name.startsWith("vscode-"));

/** A `Bytes` trait and a message's buffer arrive as a DataView, an ArrayBuffer or a typed array. */
export function bytes(value: unknown): Uint8Array {
  if (value instanceof ArrayBuffer) return new Uint8Array(value);
  if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  return new Uint8Array();
}
