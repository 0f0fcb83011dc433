import "../../../src/interp/views/kit/layout/frame.css";
import "../../../src/interp/views/kit/layout/patching.css";
import "../ui/frame.css";
import "../ui/drawn.css";
import "./patching.css";
import { times } from "../draw/numbers";
import { h, segmented } from "../ui/dom";
import { textUrl } from "../ui/download";
import { buttons, frame as framed } from "../ui/frame";
import { type Mounted, mount } from "../ui/mount";
import { room } from "../ui/room";
import { saveMenu } from "../ui/save";
import { theme } from "../ui/theme";
import { watch } from "../ui/watch";
import { foot } from "./foot";
import { least, list } from "./list";
import { pair } from "./pair";
import { plot } from "./plot";
import { viewer } from "./view";

const TITLE = "Activation patching";

export default mount((mounted: Mounted, el: HTMLElement) => {
  const { rpc, ends, problem, fail, live } = mounted;
  const frame = framed(mounted, el, "patching", TITLE);
  const colours = theme(frame, ends);
  const view = viewer(mounted, colours.current, room(frame, ends, colours.update));
  const { sweep, quantity, source, wanted } = view;

  const quantities = segmented("Quantity", { recovery: "Recovery", effect: "Effect" }, (value) => {
    wanted.quantity.value = value;
  });
  const sources = segmented("Source", { exact: "Exact", estimate: "Estimate" }, (value) => {
    wanted.source.value = value;
  });
  const facts = h("span.muted");
  const bar = h("div");
  const progress = h("div.progress", { role: "progressbar", "aria-label": "cells computed", "aria-valuemin": 0 }, bar);
  const notes = h("div");
  const { element: asked, say } = pair(view);
  // The kernel draws it: what is saved from here and what result.save() writes is one picture.
  const picture = async () => {
    const { data } = await rpc.latest("picture", { theme: colours.current.peek().name });
    return data.svg as string;
  };
  const json = () => {
    const { facts, metric, layers, tokens, span, pairs } = view.sweep.peek();
    const { form, plane } = view.slice.peek();
    const [, columns = 1] = form.shape;
    const rows = (name: string) => {
      const values = plane(name);
      return times(form.shape[0], (row) => Array.from(values.subarray(row * columns, (row + 1) * columns)));
    };
    const held = { hold: form.hold, index: form.index, axes: form.axes };
    const data = {
      facts,
      metric,
      layers,
      tokens,
      span,
      pairs,
      ...held,
      ...Object.fromEntries(form.planes.map((name) => [name, rows(name)])),
    };
    return textUrl("application/json", JSON.stringify(data));
  };
  const menu = saveMenu(() => "patching", picture, fail, ["Data (JSON)", "json", json]);
  const strongest = list(view, say);
  const beside = h("div.columns.beside", {}, strongest, asked);
  const controls = buttons(quantities.element, sources.element, menu);
  frame.append(
    h("header.head", {}, h("span.title", {}, TITLE), facts, controls.element),
    progress,
    problem,
    h("div.body.columns", {}, ...(sweep.peek().axes.length > 1 ? [plot(view, say), beside] : [strongest, asked])),
    foot(view),
    notes,
  );

  watch(
    ends,
    () => {
      facts.textContent = sweep.value.facts;
      notes.replaceChildren(...sweep.value.notes.map((note) => h("p.muted.note", {}, note)));
    },
    () => {
      const { done, total, share, running, estimated } = sweep.value;
      progress.hidden = !running && (estimated || done === total);
      progress.setAttribute("aria-valuenow", `${Math.round(share)}`);
      bar.style.width = `${share}%`;
    },
    () => {
      quantities.element.hidden = !sweep.value.span;
      quantities.show(quantity.value);
    },
    () => {
      sources.element.hidden = !sweep.value.estimated;
      controls.as(sweep.value.estimated ? "estimate" : "patching");
      sources.show(source.value);
    },
    () => {
      beside.style.setProperty("--least", `${least(view)}px`);
    },
    () => {
      view.selected.value;
      problem.hidden = true;
    },
  );
  // A notebook without a kernel never answers: what needs one stays disabled.
  live.then(() => frame.classList.add("interp-live"), fail);
  ends.addEventListener("abort", () => frame.remove());
});
