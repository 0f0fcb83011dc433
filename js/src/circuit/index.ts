import "../../../src/interp/views/kit/layout/frame.css";
import "../../../src/interp/views/kit/layout/circuit.css";
import "../../../src/interp/views/kit/layout/stacked.css";
import "../ui/frame.css";
import "../ui/graph.css";
import "./circuit.css";
import { diverging, lifted } from "../draw/colours";
import { times } from "../draw/numbers";
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
import { counted } from "../ui/words";
import { foot } from "./foot";
import { inspector } from "./inspector";
import { plot } from "./plot";
import { table } from "./table";
import { viewer } from "./view";

const TITLE = "Circuit";

export default mount((mounted: Mounted, el: HTMLElement) => {
  const { rpc, ends, problem, fail, live } = mounted;
  const frame = framed(mounted, el, "circuit", TITLE);
  const colours = theme(frame, ends);
  room(frame, ends, colours.update);
  const view = viewer(mounted, colours.current);
  const { graph, groups, drawing, asked, count, chosen } = view;

  const shown = () => `${counted(count.value)} of ${counted(graph.value.total)}`;
  const slider = edgeSlider(ends, () => drawing.value.edges.length, asked, shown);
  const said = h("span.count");
  const facts = h("span.muted");
  const legend = h("div.legend.muted");
  const bar = h("i");
  const notes = h("div");

  // The kernel draws it: what is saved from here and what result.save() writes is one picture.
  const picture = async () => {
    const { data } = await rpc.latest("picture", {
      theme: colours.current.peek().name,
      edges: count.peek(),
      chosen: drawing.peek().pills[chosen.peek()]?.name ?? "",
    });
    return data.svg as string;
  };
  const json = () => {
    const { pills, edges } = drawing.peek();
    const shown = edges.slice(0, count.peek());
    const rows = shown.map(({ writer, reader, score }) => ({ writer: pills[writer]?.name, reader, score }));
    const held = Object.entries(groups.peek()).map(([name, { nodes }]) => [name, nodes]);
    const data = { ...graph.peek().about, edges: rows, groups: Object.fromEntries(held) };
    return textUrl("application/json", JSON.stringify(data, null, 1));
  };
  const save = saveMenu(() => "circuit", picture, fail, ["Data (JSON)", "json", json]);
  const grouping = groupMenu(view);
  const controls = buttons(h("label.edges", {}, "edges", slider, said), grouping, save);
  controls.as("circuit");
  frame.append(
    h("header.head", {}, h("span.title", {}, TITLE), facts, controls.element),
    problem,
    h("div.body.columns", {}, plot(view, legend), inspector(view)),
    foot(view),
    notes,
    table(view),
  );

  watch(
    ends,
    () => {
      facts.textContent = graph.value.facts;
      notes.replaceChildren(...graph.value.notes.map((note) => h("p.muted.note", {}, note)));
    },
    () => {
      said.textContent = shown();
    },
    () => {
      const stops = times(17, (i) => diverging(colours.current.value)(lifted(i / 8 - 1)));
      bar.style.background = `linear-gradient(90deg, ${stops})`;
      const [end] = graph.value.ends;
      legend.replaceChildren(
        h("span", {}, `−${end}`),
        bar,
        h("span", {}, `+${end}`),
        h("span", {}, graph.value.meaning.join(" · ")),
      );
    },
    () => {
      chosen.value;
      problem.hidden = true;
    },
  );
  // A notebook without a kernel never answers: what needs one is not offered.
  live.then(() => frame.classList.add("interp-live"), fail);
  ends.addEventListener("abort", () => frame.remove());
});
