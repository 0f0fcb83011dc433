import { kernelOf, vscode } from "../host/model";
import { enable, enabled, h } from "../ui/dom";
import { watch } from "../ui/watch";
import type { Viewer } from "./view";

const HINT = "to stop: the notebook’s Interrupt";

/**
 * What ends a sweep that runs. A busy kernel reads no message of a view before its cell has ended, but it always hears
 * an interrupt, which keeps what is finished. Where the front end lets no view interrupt, this says who can.
 */
export function stop({ model, sweep, ends }: Viewer): HTMLElement {
  const kernel = kernelOf(model);
  const hint = h("span", { hidden: true }, HINT);
  const button: HTMLButtonElement = h("button.button", {
    type: "button",
    click() {
      // Idle, it has ended meanwhile: an interrupt would be for whatever comes next.
      if (!enabled(button) || !sweep.peek().running || (kernel?.status ?? "busy") !== "busy") return;
      enable(button, false);
      button.textContent = "Stopping …";
      kernel?.interrupt?.().catch(unable);
    },
  });
  const unable = () => {
    button.hidden = true;
    hint.hidden = !sweep.peek().running;
  };
  // VS Code's asks a server for it, which a local kernel has not, and never hears back.
  const can = !vscode() && typeof kernel?.interrupt === "function";
  button.textContent = "Stop";
  watch(ends, () => {
    const { running } = sweep.value;
    button.hidden = !running || !can || !hint.hidden;
    if (!can || !running) hint.hidden = !running;
  });
  const element = h("span", {}, button, hint);
  watch(ends, () => {
    element.hidden = !sweep.value.running;
  });
  return element;
}
