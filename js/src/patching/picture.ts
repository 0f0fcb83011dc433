import { columnsOf, heat, measure, type Place, SCALE, scale, text } from "../draw/diverging";
import { tag } from "../draw/svg";
import { isTurned, shownAs, type Viewer } from "./view";

const ROOM = 1400; // px: as the picture it is drawn at its full size, and made smaller as a whole

/** The heatmap, its scale and what its marks mean, on the screen and in a file. */
export interface Picture {
  place: Place;
  body: string;
  width: number;
  height: number;
}

export function picture(viewer: Viewer): Picture {
  const sweep = viewer.sweep.value;
  const slice = viewer.slice.value;
  const [quantity, source] = [viewer.quantity.value, viewer.source.value];
  const theme = viewer.theme.value;
  const turned = isTurned(sweep, quantity);
  const { form } = slice;
  const cells = {
    ...form.labels,
    block: form.block,
    values: slice.plane(source === "exact" ? "effect" : "estimate").slice(),
  };
  const place = measure(cells, ROOM);
  const end = form.ends[source][quantity];
  const shown = cells.values;
  for (let i = 0; i < shown.length; i++) shown[i] = shownAs(sweep, quantity, shown[i] as number) * (turned ? -1 : 1);
  const words = [sweep.meaning[quantity], ...form.marks[source][quantity]];
  const below = place.height + 10;
  const said = words.map((line, i) =>
    text(line, { x: place.left, y: below + SCALE.height + 20 + 14 * i, fill: theme.muted }),
  );
  return {
    place,
    body:
      heat(cells, end, place, theme) +
      tag("g", { transform: `translate(${place.left} ${below})` }, scale(end, turned, theme)) +
      said.join(""),
    width: Math.ceil(
      Math.max(place.width, place.left + SCALE.width + 4, ...words.map((line) => place.left + 5.4 * columnsOf(line))),
    ),
    height: below + SCALE.height + 10 + 14 * words.length,
  };
}
