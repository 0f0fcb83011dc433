import "../../../src/interp/views/kit/layout/frame.css";
import "../../../src/interp/views/kit/layout/circuit.css";
import "../../../src/interp/views/kit/layout/stacked.css";
import "../../../src/interp/views/kit/layout/trace.css";
import "../ui/frame.css";
import "../ui/graph.css";
import "./trace.css";
import { h } from "../ui/dom";
import { textUrl } from "../ui/download";
import { buttons, frame as framed } from "../ui/frame";
import { groupMenu } from "../ui/groups";
import { type Mounted, mount } from "../ui/mount";
import { room } from "../ui/room";
import { saveMenu } from "../ui/save";
import { edgeSlider } from "../ui/slider";
import { theme } from "../ui/theme";
import { watch } from "../ui/watch";
import { counted, spans } from "../ui/words";
import { inspector } from "./inspector";
import { plot } from "./plot";
import { table } from "./table";
import { below, scores } from "./top";
import { viewer } from "./view";
import { percent, words } from "./words";

const TITLE = "Attribution graph";

export default mount((mounted: Mounted, el: HTMLElement) => {
  const { rpc, ends, problem, fail, live } = mounted;
  const frame = framed(mounted, el, "trace", TITLE);
  const colours = theme(frame, ends);
  room(frame, ends, colours.update);
  const view = viewer(mounted, colours.current);
  const { graph, groups, drawing, edges, there, asked, chosen, edge, pinned } = view;

  const shown = () => `${counted(edges.value.length)} of ${counted(drawing.value.edges.length)}`;
  const share = () => percent(edges.value.reduce((sum, one) => sum + one.share, 0));
  const slider = edgeSlider(
    ends,
    () => drawing.value.edges.length,
    asked,
    () => `${shown()}, ${share()} of the influence;`,
  );
  const said = h("span.count");
  const facts = h("span.muted");
  const legend = h("div.legend.muted");
  const notes = h("div");
  const line = h("div.line", { role: "status", "aria-live": "polite" });

  const name = (i: number) => drawing.peek().nodes[i]?.name ?? "";
  // The kernel draws it: what is saved from here and what result.save() writes is one picture.
  const picture = async () => {
    const drawn = new Set(drawing.peek().nodes.map((node) => node.name));
    const { data } = await rpc.latest("picture", {
      theme: colours.current.peek().name,
      edges: edges.peek().length,
      chosen: name(chosen.peek()),
      pinned: [...pinned.peek()].filter((one) => drawn.has(one)),
    });
    return data.svg as string;
  };
  const json = () => {
    const nodes = there.peek().map((i) => {
      const { name, called, layer, position, activation, effect, influence } = drawing.peek().nodes[i] ?? {};
      return { name, called, layer, position, activation, effect, influence };
    });
    const rows = edges.peek().map(({ source, target, weight, share }) => ({
      source: name(source),
      target: name(target),
      weight,
      influence: share,
    }));
    const held = Object.entries(groups.peek()).map(([group, { nodes }]) => [group, nodes]);
    const data = { ...graph.peek().about, nodes, edges: rows, groups: Object.fromEntries(held) };
    return textUrl("application/json", JSON.stringify(data, null, 1));
  };
  const save = saveMenu(() => "trace", picture, fail, ["Data (JSON)", "json", json]);
  const controls = buttons(h("label.edges", {}, "edges", slider, said), groupMenu(view), save);
  controls.as("trace");
  const card = inspector(view);
  frame.append(
    h("header.head", {}, h("span.title", {}, TITLE), facts, controls.element),
    problem,
    h("div.body.columns", {}, plot(view, legend, card), card),
    scores(view),
    below(view),
    h("div.foot", {}, h("div.stacked", {}, line)),
    notes,
    table(view),
  );

  watch(
    ends,
    () => {
      facts.textContent = graph.value.facts;
      notes.replaceChildren(...graph.value.notes.map((note) => h("p.muted.note", {}, note)));
      const key = graph.value.key.flatMap(([kind, meant]) => [h(`i.${kind}`), h("span", {}, meant)]);
      legend.replaceChildren(...key, ...graph.value.meaning.map((meant) => h("span", {}, meant)));
    },
    () => {
      said.textContent = `${shown()} · ${share()}`;
    },
    () => line.replaceChildren(...spans(words(view))),
    () => {
      chosen.value;
      edge.value;
      problem.hidden = true;
    },
  );
  // A notebook without a kernel never answers: what needs one is not offered.
  live.then(() => frame.classList.add("interp-live"), fail);
  ends.addEventListener("abort", () => frame.remove());
});
