import type { Model, View } from "../host/model";
import { Cancelled, connect, type Rpc, send } from "../host/rpc";

/** What every view begins with. */
export interface Mounted {
  model: Model;
  rpc: Rpc;
  ends: AbortSignal;
  /** The line beside the picture that says what went wrong. */
  problem: HTMLElement;
  fail(error: unknown): void;
  /** Resolves once a kernel has answered; without one it never does. */
  live: Promise<unknown>;
}

/** One widget: any number of views of it on the page, whose number the kernel knows. */
export function mount(show: (mounted: Mounted, el: HTMLElement) => void): () => { render(view: View): () => void } {
  return () => {
    let views = 0;
    return {
      render({ model, el, signal }) {
        const controller = new AbortController();
        const ends = controller.signal;
        const end = () => {
          if (ends.aborted) return;
          controller.abort();
          send(model, { id: `views${Math.random()}`, method: "views", params: { count: --views } });
        };
        signal?.addEventListener("abort", end);
        const problem = document.createElement("p");
        problem.className = "interp-error";
        problem.setAttribute("role", "alert");
        problem.hidden = true;
        const fail = (error: unknown) => {
          if (error instanceof Cancelled) return;
          problem.textContent = error instanceof Error ? error.message : `${error}`;
          problem.hidden = false;
        };
        const rpc = connect(model, ends);
        const live = rpc.request("views", { count: ++views });
        live.catch(fail);
        show({ model, rpc, ends, problem, fail, live }, el);
        return end;
      },
    };
  };
}
