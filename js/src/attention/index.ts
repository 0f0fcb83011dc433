import { signal } from "@preact/signals-core";
import "../ui/frame.css";
import "./attention.css";
import type { Model, View } from "../afm/model";
import { Cancelled, connect, send } from "../afm/rpc";
import { h, segmented } from "../ui/dom";
import { frame as framed } from "../ui/frame";
import { theme } from "../ui/theme";
import { watch } from "../ui/watch";
import { data } from "./data";
import { foot } from "./foot";
import { grid, measure } from "./grid";
import { loadHeads } from "./heads";
import { linked } from "./link";
import { matrix } from "./matrix";
import type { Meta } from "./meta";
import { save } from "./save";
import { text } from "./text";
import { viewer } from "./view";

const TWO_COLUMNS = 700;
const THREE_COLUMNS = 1240;
const GAP = 24;
const TEXT = 360;

/** One widget: any number of views of it on the page. */
export default () => {
  let views = 0;
  return {
    render({ model, el, signal: given }: View) {
      const controller = new AbortController();
      const end = () => {
        if (controller.signal.aborted) return;
        controller.abort();
        send(model, { id: `views${Math.random()}`, method: "views", params: { count: --views } });
      };
      given?.addEventListener("abort", end);
      show(model, el, ++views, controller.signal);
      return end;
    },
  };
};

function show(model: Model, el: HTMLElement, views: number, ends: AbortSignal): void {
  const meta = model.get("meta") as Meta;
  const frame = framed(model, el, "Attention");
  const problem = h("p.error", { role: "alert", hidden: true });
  const fail = (error: unknown) => {
    if (error instanceof Cancelled) return;
    problem.textContent = error instanceof Error ? error.message : `${error}`;
    problem.hidden = false;
  };
  const rpc = connect(model, ends);
  const link = linked(rpc, model, meta, fail, ends);
  const heads = loadHeads(rpc, model, meta, link.selected, fail, ends);
  const colours = theme(frame, ends);
  const view = viewer(link, meta, heads, colours.current, ends);
  const { width, sink } = view;

  const resize = () => {
    // A front end may put the frame on the page after this: only then has it a width and colours.
    colours.update();
    width.value = frame.clientWidth ? Math.max(240, frame.clientWidth - 28) : 800;
  };
  const resized = new ResizeObserver(resize);
  resized.observe(frame);
  resize();
  // The grid stands beside the matrix where there is room, and above it where it is only a row or two of thumbnails.
  const beside = () => width.value >= TWO_COLUMNS && meta.layers.length > 2;
  const gridRoom = () => (beside() ? width.value * (width.value >= THREE_COLUMNS ? 0.37 : 0.47) : width.value);
  const matrixRoom = () => {
    const grid = beside() ? measure(meta.layers.length, meta.heads.length, gridRoom()).width + GAP : 0;
    const text = width.value >= (beside() ? THREE_COLUMNS : TWO_COLUMNS) ? TEXT + GAP : 0;
    return width.value - grid - text;
  };

  const live = signal(false);
  const modes = segmented("Weights", { pattern: "Pattern", weighted: "Value-weighted" }, (mode) => {
    problem.hidden = true;
    heads.show(mode).catch(fail);
  });
  const box: HTMLInputElement = h("input", {
    type: "checkbox",
    change: () => {
      sink.value = box.checked;
    },
  });
  const plural = (count: number, name: string) => `${count} ${name}${count === 1 ? "" : "s"}`;
  const size = `${plural(meta.layers.length, "layer")} × ${plural(meta.heads.length, "head")}`;
  const facts = [meta.model, plural(meta.tokens.length, "token"), size].filter(Boolean).join(" · ");
  const controls = h(
    "div.controls",
    {},
    modes.element,
    h("label.check", {}, box, "Hide first-token sink"),
    save(view, facts, fail),
  );
  frame.append(
    h("header.head", {}, h("span.title", {}, "Attention"), h("span.muted", {}, facts), controls),
    problem,
    ...meta.notes.map((note) => h("p.error", {}, note)),
    h(
      "div.body",
      {},
      ...(meta.layers.length * meta.heads.length > 1 ? [grid(view, gridRoom)] : []),
      matrix(view, matrixRoom),
      text(view),
    ),
    foot(view),
    data(view),
  );

  watch(
    ends,
    () => {
      link.selected.value;
      problem.hidden = true;
    },
    () => modes.show(heads.mode.value, live.value),
  );
  // A notebook without a kernel never answers: what needs one stays disabled.
  rpc.request("views", { count: views }).then(() => {
    live.value = true;
  }, fail);
  ends.addEventListener("abort", () => {
    resized.disconnect();
    frame.remove();
  });
}
