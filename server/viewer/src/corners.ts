// Moving the corners of what was drawn: pull one, pull a side to make a new one, Shift and a click takes one away.

import { shapes, setShapes, type Point, type Shape } from "./draw";
import { applied } from "./gl";
import type { View } from "./layer";

const CORNER_PX = 9;
const SIDE_PX = 6;

interface Held {
  number: number;
  shape: Shape;
  corner: number;
}

export class Corners {
  held: Held | null = null;

  /** The corner under the pointer, or a new one on the side that is; whether there is one to move. */
  take(view: View, at: Point, away: boolean): boolean {
    const screen = (point: Point) => applied(view.toScreen, ...point);
    const [x, y] = screen(at);
    let [nearest, found] = [CORNER_PX * devicePixelRatio, null as Held | null];
    shapes.value.forEach((shape, number) => {
      cornersOf(shape).forEach((point, corner) => {
        const [u, v] = screen(point);
        const distance = Math.hypot(u - x, v - y);
        if (distance < nearest) [nearest, found] = [distance, { number, shape, corner }];
      });
    });
    if (found && away) {
      this.drop(found);
      return false;
    }
    this.held = found ?? onSide(screen, [x, y], at);
    return this.held !== null;
  }

  move(to: Point): void {
    if (!this.held) return;
    const { shape, corner } = this.held;
    this.held = { ...this.held, shape: { ...shape, points: moved(shape, corner, to) }, corner: shape.kind === "box" ? 2 : corner };
  }

  release(): void {
    if (!this.held) return;
    const { number, shape } = this.held;
    this.held = null;
    if (shapes.value[number] !== shape) setShapes(shapes.value.map((each, at) => (at === number ? shape : each)));
  }

  draw(context: CanvasRenderingContext2D, view: View): void {
    const half = 3.5 * devicePixelRatio;
    context.lineWidth = devicePixelRatio;
    context.fillStyle = "#ffffff";
    context.strokeStyle = "#000000";
    shapes.value.forEach((each, number) => {
      for (const point of cornersOf(this.held?.number === number ? this.held.shape : each)) {
        const [x, y] = applied(view.toScreen, ...point);
        context.fillRect(x - half, y - half, 2 * half, 2 * half);
        context.strokeRect(x - half, y - half, 2 * half, 2 * half);
      }
    });
  }

  private drop({ number, shape, corner }: Held): void {
    if (shape.kind !== "polygon" || shape.points.length <= 3) return;
    const points = shape.points.filter((_, at) => at !== corner);
    setShapes(shapes.value.map((each, at) => (at === number ? { ...shape, points } : each)));
  }
}

function cornersOf({ kind, points }: Shape): Point[] {
  if (kind !== "box") return points;
  const [[x0, y0], [x1, y1]] = points as [Point, Point];
  return [
    [x0, y0],
    [x1, y0],
    [x1, y1],
    [x0, y1],
  ];
}

/** Of a box the corner that lies across stays. */
function moved(shape: Shape, corner: number, to: Point): Point[] {
  if (shape.kind === "box") return [cornersOf(shape)[(corner + 2) % 4]!, to];
  return shape.points.map((each, at) => (at === corner ? to : each));
}

function onSide(screen: (point: Point) => readonly [number, number], [x, y]: readonly [number, number], at: Point): Held | null {
  for (const [number, shape] of shapes.value.entries()) {
    if (shape.kind !== "polygon") continue;
    for (let side = 0; side < shape.points.length; side++) {
      const [ax, ay] = screen(shape.points[side]!);
      const [bx, by] = screen(shape.points[(side + 1) % shape.points.length]!);
      const length = Math.hypot(bx - ax, by - ay) || 1e-9;
      const along = ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length;
      const away = Math.abs((bx - ax) * (ay - y) - (ax - x) * (by - ay)) / length;
      if (along < 0 || along > length || away > SIDE_PX * devicePixelRatio) continue;
      const points = [...shape.points.slice(0, side + 1), at, ...shape.points.slice(side + 1)];
      return { number, shape: { ...shape, points }, corner: side + 1 };
    }
  }
  return null;
}
