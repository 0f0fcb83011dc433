import { circuit, signed } from "../../../src/interp/views/kit/palette.json";
import { css, diverging, lifted, type Theme } from "../draw/colours";
import { HALF, step, width } from "../draw/graph";
import type { Shown } from "./graph";
import type { Pill } from "./meta";

const SANS = "system-ui,-apple-system,Segoe UI,Roboto,DejaVu Sans,sans-serif";
const READABLE = 0.55; // the scale below which pills have no names

/** Where a drawing lies on its canvas. */
export interface Camera {
  x: number;
  y: number;
  scale: number;
}

/** Draws on a canvas as large as `room`, in the drawing's own coordinates. */
export class Brush {
  constructor(
    readonly context: CanvasRenderingContext2D,
    readonly theme: Theme,
    readonly camera: Camera,
  ) {
    const ratio = devicePixelRatio || 1;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, context.canvas.width, context.canvas.height);
    const k = ratio * camera.scale;
    context.setTransform(k, 0, 0, k, ratio * camera.x, ratio * camera.y);
    context.font = `11px ${SANS}`;
    context.textAlign = "center";
  }

  /** Rows as dashed lines, their names at the left. */
  rows(rows: [string, number][], wide: number): void {
    const { context, theme } = this;
    context.beginPath();
    for (const [, y] of rows) {
      context.moveTo(44, y);
      context.lineTo(wide, y);
    }
    context.setLineDash([2, 4]);
    context.lineWidth = 1;
    context.strokeStyle = theme.line;
    context.stroke();
    context.setLineDash([]);
    context.fillStyle = theme.muted;
    context.textAlign = "start";
    for (const [name, y] of rows) context.fillText(name, 0, y + 3.5);
    context.textAlign = "center";
  }

  /** Curves, the weakest first: one path for all of a colour. */
  curves(curves: Iterable<Shown>, end: number): void {
    const { context, theme } = this;
    const levels = new Map<number, Path2D>();
    for (const { path, score } of curves) {
      const level = step(score, end);
      const shape = levels.get(level) ?? new Path2D();
      levels.set(level, shape);
      trace(path, shape);
    }
    const colour = diverging(theme);
    for (const [level, shape] of [...levels].sort(([a], [b]) => Math.abs(a) - Math.abs(b))) {
      const lost = Number.isNaN(level);
      context.setLineDash(lost ? [3, 3] : []);
      context.strokeStyle = lost ? css(theme.hatch) : colour(level / circuit.steps);
      context.lineWidth = lost ? 1 : width(level);
      context.stroke(shape);
    }
    context.setLineDash([]);
  }

  /** A node's pill, in the colour of what it writes. */
  pill({ title, x, y, wide }: Pill, total: number, end: number, group: boolean): void {
    const { context, theme, camera } = this;
    const value = lifted((circuit.node * total) / end);
    const shape = round(x, y, wide, 0);
    context.fillStyle = diverging(theme)(value);
    context.fill(shape);
    context.lineWidth = group ? 2 * circuit.outline : circuit.outline;
    context.strokeStyle = theme.muted;
    context.stroke(shape);
    if (camera.scale < READABLE) return;
    context.fillStyle = Math.abs(value) > signed.ink ? css(theme.background) : theme.ink;
    context.fillText(title, x, y + 4);
  }

  /** An outline around a pill. */
  ring({ x, y, wide }: Pill, colour: string, dash: number[] = []): void {
    const { context } = this;
    context.setLineDash(dash);
    context.lineWidth = 2 / Math.min(1, this.camera.scale);
    context.strokeStyle = colour;
    context.stroke(round(x, y, wide, 1.5));
    context.setLineDash([]);
  }
}

function trace(path: number[], shape: Path2D): void {
  shape.moveTo(path[0] as number, path[1] as number);
  for (let i = 2; i < path.length; i += 6)
    shape.bezierCurveTo(...(path.slice(i, i + 6) as [number, number, number, number, number, number]));
}

function round(x: number, y: number, wide: number, more: number): Path2D {
  const shape = new Path2D();
  shape.roundRect(x - wide / 2 - more, y - HALF - more, wide + 2 * more, 2 * (HALF + more), HALF + more);
  return shape;
}
