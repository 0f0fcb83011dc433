// What tests/views/test_palette.py runs: the sources' own drawing of its cases, as JSON.

import { bars, classes } from "../../src/interp/views/kit/palette.json";
import { shown, totals } from "../src/circuit/graph";
import { type Graph, unpack } from "../src/circuit/meta";
import { Brush } from "../src/circuit/paint";
import { colours, diverging, type Rgb, sequential, steps, type Theme } from "../src/draw/colours";
import { heat, measure, SCALE, type Signed, scale } from "../src/draw/diverging";
import { step, width } from "../src/draw/graph";
import { times } from "../src/draw/numbers";
import { curves, ground, outline, titled } from "../src/trace/draw";
import { type Graph as TraceGraph, unpack as unpackTrace } from "../src/trace/meta";

interface Cases {
  background: Rgb;
  ink: Rgb;
  heats: { cells: Omit<Signed, "values"> & { values: (number | string)[] }; end: number; room: number }[];
  scales: [end: number, turned: boolean][];
  graph: Graph;
  drawing: number[];
  trace: TraceGraph;
  traced: number[];
}

/** A path as the list of its numbers. */
class Path {
  readonly numbers: number[] = [];
  moveTo(...numbers: number[]) {
    this.numbers.push(Number.NaN, ...numbers);
  }
  lineTo() {}
  bezierCurveTo(...numbers: number[]) {
    this.numbers.push(...numbers);
  }
  roundRect(...numbers: number[]) {
    this.numbers.push(...numbers);
  }
}

/** A canvas' context that keeps what is drawn on it. */
class Recorder extends Path {
  readonly drawn: Record<string, unknown>[] = [];
  readonly canvas = { width: 0, height: 0 };
  fillStyle = "";
  strokeStyle = "";
  lineWidth = 1;
  dash: number[] = [];
  beginPath() {}
  setTransform() {}
  clearRect() {}
  setLineDash(dash: number[]) {
    this.dash = dash;
  }
  override roundRect() {}
  stroke({ numbers }: Path) {
    this.drawn.push({ kind: "stroke", numbers, colour: this.strokeStyle, width: this.lineWidth, dash: this.dash });
  }
  fill({ numbers }: Path) {
    this.drawn.push({ kind: "fill", numbers, colour: this.fillStyle });
  }
  fillText(text: string, x: number, y: number) {
    this.drawn.push({ kind: "text", text, numbers: [x, y], colour: this.fillStyle });
  }
}

/** An attribution graph's shapes: of its nodes, of its edges, and its titles. */
function drawnTrace(given: TraceGraph, bytes: number[], theme: Theme) {
  const { nodes, edges } = unpackTrace(given, Uint8Array.from(bytes));
  return {
    outlines: nodes.map((node) => outline(node)),
    edges: edges.map((edge) => curves([edge], given.ends[0], theme)),
    titles: nodes.map((node) => titled(node, theme)),
    ground: ground(given.rows, given.axis, given.size, theme),
  };
}

export function render({ background, ink, heats, scales, graph, drawing, trace, traced }: Cases): unknown {
  Object.assign(globalThis, { Path2D: Path, devicePixelRatio: 1 });
  const theme = { ...colours(background, ink), accent: "" };
  const read = (value: number | string | null) => (value === null ? Number.NaN : Number(value));
  const heatmaps = heats.map(({ cells, end, room }) => {
    const signed = { ...cells, values: Float64Array.from(cells.values, read) };
    const place = measure(signed, room);
    return { body: heat(signed, end, place, theme), width: place.width, height: place.height };
  });
  const whole = unpack(graph, Uint8Array.from(drawing));
  const curves = shown(whole, whole.edges[graph.opens - 1]?.upto ?? 0);
  const context = new Recorder();
  const brush = new Brush(context as unknown as CanvasRenderingContext2D, theme, { x: 0, y: 0, scale: 1 });
  const [edgeEnd, nodeEnd] = graph.ends;
  brush.curves(curves, edgeEnd);
  const written = totals(whole, curves);
  const there = new Set(curves.flatMap(({ source, target }) => [source, target]));
  whole.pills.forEach((pill, i) => {
    if (there.has(i)) brush.pill(pill, written.get(i) ?? 0, nodeEnd, false);
  });
  return {
    theme,
    heats: heatmaps,
    scales: scales.map(([end, turned]) => ({ body: scale(end, turned, theme), ...SCALE })),
    weights: [...sequential(theme)],
    levels: steps(sequential(theme)),
    signed: times(17, (i) => diverging(theme)(i / 8 - 1)),
    classes: classes[theme.name],
    steps: times(41, (i) => step(i / 20 - 1, 0.9)),
    widths: times(25, width),
    track: bars.track,
    circuit: context.drawn,
    trace: drawnTrace(trace, traced, { ...theme }),
  };
}
