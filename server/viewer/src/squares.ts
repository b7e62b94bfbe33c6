// Masks as squares that are drawn once and moved with the view. Without a graphics card drawing the vectors takes a tenth of a
// second, moving what was drawn a few milliseconds.

import type { Painter } from "./gl";
import type { View } from "./layer";
import type { Box } from "./types";

interface Square {
  /** null: nothing is in it. */
  canvas: HTMLCanvasElement | null;
  box: Box;
  stale: boolean;
  used: number;
  drawnAt: number;
}

const SIDE = 512;
const MOST = 96;
/** Of one frame, for squares that are not there yet; one is always drawn. */
const FRAME_MS = 8;
/** Tiles come one by one: a square that is there waits for more of them. */
const SETTLE_MS = 150;
const FINEST = -4;

/** Of the view: squares of level z are SIDE * 2**z image pixels a side. */
export function squareLevel(scale: number, levels: number): number {
  return Math.min(levels - 1, Math.max(FINEST, Math.floor(Math.log2(1 / scale) + 0.4)));
}

export class Squares {
  private readonly kept = new Map<string, Square>();
  private clock = 0;
  private scale = 0;

  constructor(
    private readonly painter: Painter,
    private readonly paint: (view: View) => void,
  ) {}

  /** What was drawn is no longer right, everywhere or in a box. */
  outdate(box?: Box): void {
    for (const square of this.kept.values()) {
      if (box && (square.box[0] > box[2] || square.box[2] < box[0] || square.box[1] > box[3] || square.box[3] < box[1])) continue;
      square.stale = true;
      if (!box) square.drawnAt = 0;
    }
  }

  clear(): void {
    this.kept.clear();
  }

  /** within: outside of it nothing is ever drawn. Answers whether something is left to do in the next frames. */
  draw(context: CanvasRenderingContext2D, view: View, within: Box): boolean {
    const start = performance.now();
    const z = Math.round(-Math.log2(view.detail));
    const zooming = Math.abs(Math.log(view.scale / (this.scale || view.scale))) > 1e-4;
    this.scale = view.scale;
    this.clock++;
    let [waiting, drawnNow] = [false, 0];
    for (const at of placesOf(view.seen, within, z)) {
      let square = this.kept.get(keyOf(z, ...at));
      const settled = !square || start - square.drawnAt > SETTLE_MS;
      if (!square || square.stale) {
        const inTime = !drawnNow || performance.now() - start < FRAME_MS;
        if (settled && inTime && !(zooming && (square || this.standIn(z, ...at)))) {
          square = this.drawn(z, ...at, square);
          drawnNow++;
        } else waiting = true;
      }
      if (square) this.put(context, view, square);
      else this.putInstead(context, view, z, ...at);
    }
    this.makeRoom();
    return waiting;
  }

  private drawn(z: number, x: number, y: number, before?: Square): Square {
    const side = SIDE * 2 ** z;
    const box: Box = [x * side, y * side, (x + 1) * side, (y + 1) * side];
    const scale = 2 ** -z;
    this.painter.begin(SIDE, SIDE);
    this.paint({
      toScreen: [scale, 0, 0, scale, -box[0] * scale, -box[1] * scale],
      scale,
      detail: scale,
      seen: box,
      centre: [box[0] + side / 2, box[1] + side / 2],
    });
    let canvas: HTMLCanvasElement | null = null;
    if (this.painter.painted) {
      canvas = before?.canvas ?? document.createElement("canvas");
      canvas.width = canvas.height = SIDE;
      canvas.getContext("2d")!.drawImage(this.painter.canvas, 0, 0);
    }
    const square = { canvas, box, stale: false, used: this.clock, drawnAt: performance.now() };
    this.kept.set(keyOf(z, x, y), square);
    return square;
  }

  private put(context: CanvasRenderingContext2D, view: View, { canvas, box }: Square): void {
    if (canvas) {
      place(context, view, box, SIDE);
      context.drawImage(canvas, 0, 0);
    }
  }

  /** A part of a coarser square, or finer ones, as long as it is not there itself. */
  private putInstead(context: CanvasRenderingContext2D, view: View, z: number, x: number, y: number): void {
    const coarser = this.standIn(z, x, y);
    const side = SIDE * 2 ** z;
    if (coarser) {
      if (!coarser.canvas) return;
      const whole = coarser.box[2] - coarser.box[0];
      const part = (SIDE * side) / whole;
      place(context, view, [x * side, y * side, (x + 1) * side, (y + 1) * side], part);
      const [left, top] = [(x * side - coarser.box[0]) / whole, (y * side - coarser.box[1]) / whole];
      context.drawImage(coarser.canvas, left * SIDE, top * SIDE, part, part, 0, 0, part, part);
      return;
    }
    for (const dx of [0, 1]) {
      for (const dy of [0, 1]) {
        const finer = this.kept.get(keyOf(z - 1, 2 * x + dx, 2 * y + dy));
        if (finer) this.put(context, view, finer);
      }
    }
  }

  private standIn(z: number, x: number, y: number): Square | null {
    for (let up = 1; up <= 4; up++) {
      const found = this.kept.get(keyOf(z + up, Math.floor(x / 2 ** up), Math.floor(y / 2 ** up)));
      if (found) {
        found.used = this.clock;
        return found;
      }
    }
    return null;
  }

  private makeRoom(): void {
    if (this.kept.size <= MOST) return;
    const oldest = [...this.kept].sort((one, other) => one[1].used - other[1].used);
    for (const [key] of oldest.slice(0, this.kept.size - MOST)) this.kept.delete(key);
  }
}

function placesOf(seen: Box, within: Box, z: number): [number, number][] {
  const side = SIDE * 2 ** z;
  const [x0, y0] = [Math.max(seen[0], within[0]), Math.max(seen[1], within[1])];
  const [x1, y1] = [Math.min(seen[2], within[2]) - 1e-6, Math.min(seen[3], within[3]) - 1e-6];
  const found: [number, number][] = [];
  for (let y = Math.floor(y0 / side); y <= Math.floor(y1 / side); y++) {
    for (let x = Math.floor(x0 / side); x <= Math.floor(x1 / side); x++) found.push([x, y]);
  }
  return found;
}

/** So that a drawing of px by px lies on a box of the image; corners on whole pixels, or neighbours would show a seam. */
function place(context: CanvasRenderingContext2D, view: View, [x0, y0, x1, y1]: Box, px: number): void {
  const [a, b, c, d, e, f] = view.toScreen;
  const at = (x: number, y: number) => [Math.round(a * x + c * y + e), Math.round(b * x + d * y + f)] as const;
  const [left, top] = at(x0, y0);
  const [ax, ay] = at(x1, y0);
  const [bx, by] = at(x0, y1);
  context.setTransform((ax - left) / px, (ay - top) / px, (bx - left) / px, (by - top) / px, left, top);
}

function keyOf(z: number, x: number, y: number): string {
  return `${z}/${x}/${y}`;
}
