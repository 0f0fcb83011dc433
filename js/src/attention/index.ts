import { signal } from "@preact/signals-core";
import "../ui/frame.css";
import "./attention.css";
import { h, segmented } from "../ui/dom";
import { frame as framed } from "../ui/frame";
import { type Mounted, mount } from "../ui/mount";
import { room } from "../ui/room";
import { saveMenu } from "../ui/save";
import { theme } from "../ui/theme";
import { watch } from "../ui/watch";
import { plural } from "../ui/words";
import { data } from "./data";
import { foot } from "./foot";
import { grid, measure } from "./grid";
import { loadHeads } from "./heads";
import { linked } from "./link";
import { matrix } from "./matrix";
import { headName, type Meta } from "./meta";
import { text } from "./text";
import { viewer } from "./view";

const TWO_COLUMNS = 700; // px from which on the grid, or the text, stands beside the matrix
const GAP = 24;
const TEXT = 300;
const MATRIX = 330; // px that a matrix with its labels has at least, before the text goes below it

export default mount((mounted: Mounted, el: HTMLElement) => {
  const { model, rpc, ends, problem, fail } = mounted;
  const meta = model.get("meta") as Meta;
  const frame = framed(mounted, el, "attention", "Attention");
  const link = linked(mounted, meta);
  const heads = loadHeads(rpc, model, meta, link.selected, fail, ends);
  const colours = theme(frame, ends);
  const view = viewer(link, meta, heads, colours.current, ends, room(frame, ends, colours.update));
  const { width, sink } = view;

  const gridWidth = (room: number) => measure(meta.layers.length, meta.heads.length, room).width;
  // The grid stands beside the matrix where there is room, and above it where it is only a long row or two.
  const twoColumns = () =>
    width.value >= TWO_COLUMNS && (meta.layers.length > 2 || gridWidth(width.value) < 0.4 * width.value);
  const gridRoom = () => (twoColumns() ? width.value * (width.value >= 1240 ? 0.37 : 0.47) : width.value);
  const matrixRoom = () => {
    const grid = twoColumns() ? gridWidth(gridRoom()) + GAP : 0;
    const rest = width.value - grid;
    return width.value >= TWO_COLUMNS && rest >= MATRIX + GAP + TEXT ? rest - GAP - TEXT : rest;
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
  const menu = saveMenu(() => `attention-${headName(chosen().layer, chosen().head)}`, picture, fail);
  const controls = h("div.controls", {}, modes.element, h("label.check", {}, box, "Hide first-token sink"), menu);
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
    // A notebook without a kernel never answers: what needs one stays disabled.
    () => {
      modes.show(heads.mode.value, live.value);
      menu.hidden = !live.value;
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
