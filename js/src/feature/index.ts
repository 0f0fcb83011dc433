import "../../../src/interp/views/kit/layout/frame.css";
import "../../../src/interp/views/kit/layout/feature.css";
import "../../../src/interp/views/kit/layout/stacked.css";
import "../ui/frame.css";
import "../ui/graph.css";
import "../ui/drawn.css";
import "./feature.css";
import { computed } from "@preact/signals-core";
import { sequential, steps } from "../draw/colours";
import { h } from "../ui/dom";
import { textUrl } from "../ui/download";
import { buttons, frame as framed } from "../ui/frame";
import { type Mounted, mount } from "../ui/mount";
import { room } from "../ui/room";
import { saveMenu } from "../ui/save";
import { drawn } from "../ui/svg";
import { theme } from "../ui/theme";
import { watch } from "../ui/watch";
import { histogram } from "./histogram";
import { places } from "./places";
import { steer } from "./steer";
import { table } from "./table";
import { viewer } from "./view";
import { foot } from "./words";

export default mount((mounted: Mounted, el: HTMLElement) => {
  const { model, rpc, ends, problem, fail, live } = mounted;
  const frame = framed(mounted, el, "feature", (model.get("feature") as { title: string }).title);
  const colours = theme(frame, ends);
  room(frame, ends, colours.update);
  const weighted = computed(() => ({ ...colours.current.value, table: sequential(colours.current.value) }));
  const view = viewer(mounted, weighted);
  const { feature } = view;

  // The kernel draws it: what is saved from here and what result.save() writes is one picture.
  const picture = async () => {
    const { data } = await rpc.latest("picture", { theme: colours.current.peek().name });
    return data.svg as string;
  };
  const json = () => {
    const shown = view.shown.peek().flatMap(([, i]) => view.places[i] ?? []);
    const exemplars = shown.map(({ around, ...place }) => ({
      ...place,
      activations: [...around].map((value) => (Number.isNaN(value) ? null : value)),
    }));
    const bars = view.bars.map(({ from, to, count }) => ({ from, to, count }));
    const data = { ...feature.about, exemplars, histogram: bars, steered: view.said.peek() ?? null };
    return textUrl("application/json", JSON.stringify(data, null, 1));
  };
  const menu = saveMenu(() => "feature", picture, fail, ["Data (JSON)", "json", json]);
  const controls = buttons(menu);
  controls.as("feature");
  const own = feature.own.map((stack, at) =>
    h(
      "div",
      {},
      // The histogram is the second of the first, where there is one.
      ...stack.flatMap((one, n) => (!at && n === 1 && view.bars.length ? histogram(view, one) : drawn(one))),
    ),
  );
  const lists = feature.lists.map((stack) => h("div", {}, ...stack.flatMap(drawn)));
  frame.append(
    h("header.head", {}, h("span.title", {}, feature.title), h("span.muted", {}, feature.facts), controls.element),
    problem,
    h(
      "div.body.columns",
      {},
      h("div.dashboard", {}, h("div.own", {}, ...own), ...(view.places.length ? [places(view)] : [])),
      ...(lists.length ? [h("div.lists", {}, ...lists)] : []),
      ...(feature.steer ? [steer(view, feature.steer)] : []),
    ),
    foot(view),
    ...feature.notes.map((note) => h("p.muted.note", {}, note)),
    table(view),
  );

  watch(ends, () => {
    for (const [n, step] of steps(weighted.value.table).entries()) frame.style.setProperty(`--interp-s${n}`, step);
  });
  // A notebook without a kernel never answers: what needs one is not offered.
  live.then(() => frame.classList.add("interp-live"), fail);
  ends.addEventListener("abort", () => frame.remove());
});
