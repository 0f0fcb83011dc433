import { signal } from "@preact/signals-core";
import "../../../src/interp/views/kit/layout/frame.css";
import "../ui/frame.css";
import "./attention.css";
import { times } from "../draw/numbers";
import { h, segmented } from "../ui/dom";
import { textUrl } from "../ui/download";
import { buttons, frame as framed } from "../ui/frame";
import { type Mounted, mount } from "../ui/mount";
import { room } from "../ui/room";
import { saveMenu } from "../ui/save";
import { theme } from "../ui/theme";
import { watch } from "../ui/watch";
import { plural } from "../ui/words";
import { data } from "./data";
import { foot } from "./foot";
import { grid } from "./grid";
import { loadHeads } from "./heads";
import { linked } from "./link";
import { matrix } from "./matrix";
import { headName, type Meta } from "./meta";
import { text } from "./text";
import { viewer } from "./view";

export default mount((mounted: Mounted, el: HTMLElement) => {
  const { model, rpc, ends, problem, fail } = mounted;
  const meta = model.get("meta") as Meta;
  const frame = framed(mounted, el, "attention", "Attention");
  const link = linked(mounted, meta);
  const heads = loadHeads(rpc, model, meta, link.selected, fail, ends);
  const colours = theme(frame, ends);
  room(frame, ends, colours.update);
  const view = viewer(link, meta, heads, colours.current, ends);
  const { sink } = view;

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
  const size = `${plural(meta.layers.length, "layer")} × ${plural(meta.heads.length, "head")}`;
  const facts = [meta.model, plural(meta.tokens.length, "token"), size].filter(Boolean).join(" · ");
  const chosen = () => heads.current.peek().params;
  // The kernel draws it: what is saved from here and what result.save() writes is one picture.
  const picture = async () => {
    const token = view.held.peek() ?? meta.tokens.length - 1;
    const { data } = await rpc.latest("picture", {
      ...chosen(),
      token,
      theme: colours.current.peek().name,
    });
    return data.svg as string;
  };
  const json = () => {
    const { values, side, scale, exact, params } = heads.current.peek();
    const weights = times(side, (row) => Array.from(values.subarray(row * side, (row + 1) * side), (v) => v * scale));
    const { model, tokens, layers, heads: numbers, labels, stats } = meta;
    const data = { model, tokens, layers, heads: numbers, labels, stats, head: { ...params, exact, weights } };
    return textUrl("application/json", JSON.stringify(data));
  };
  const menu = saveMenu(() => `attention-${headName(chosen().layer, chosen().head)}`, picture, fail, [
    "Data (JSON)",
    "json",
    json,
  ]);
  const controls = buttons(modes.element, h("label.check", {}, box, "Hide first-token sink"), menu);
  controls.as("attention");
  frame.append(
    h("header.head", {}, h("span.title", {}, "Attention"), h("span.muted", {}, facts), controls.element),
    problem,
    h(
      "div.body.columns",
      {},
      ...(meta.layers.length * meta.heads.length > 1 ? [grid(view)] : []),
      matrix(view),
      text(view),
    ),
    foot(view),
    ...meta.notes.map((note) => h("p.note.muted", {}, note)),
    data(view),
  );

  watch(
    ends,
    () => {
      link.selected.value;
      problem.hidden = true;
    },
    // A notebook without a kernel never answers: what needs one stays disabled.
    () => {
      modes.show(heads.mode.value, live.value);
      menu.style.visibility = live.value ? "" : "hidden";
    },
  );
  mounted.live.then(
    () => {
      live.value = true;
    },
    () => undefined,
  );
  ends.addEventListener("abort", () => frame.remove());
});
