// Pointing by hand: boxes, polygons, brush strokes, points and whole objects, each "this" or "not this".

import { computed, signal } from "@preact/signals";
import { applied } from "./gl";
import type { View } from "./layer";
import { drawing } from "./pointing";
import { trace, type Stage } from "./stage";
import { Corners } from "./corners";

export type Tool = "off" | "box" | "polygon" | "brush" | "point" | "object" | "corners";
export type Point = [number, number];

export interface Shape {
  is: boolean;
  kind: "box" | "polygon" | "point";
  points: Point[];
  /** Of an object that was taken from a mask: its outline there. */
  from?: Point[];
}

export const tool = signal<Tool>("off");
export const sign = signal(true);
export const brushPx = signal(14);
const steps = signal<Shape[][]>([[]]);
const step = signal(0);
export const shapes = computed(() => steps.value[step.value] ?? []);
export const canUndo = computed(() => step.value > 0);
export const canRedo = computed(() => step.value < steps.value.length - 1);

export function setShapes(next: Shape[]): void {
  steps.value = [...steps.value.slice(0, step.value + 1), next];
  step.value = steps.value.length - 1;
}

export function undo(): void {
  if (canUndo.value) step.value--;
}

export function redo(): void {
  if (canRedo.value) step.value++;
}

export function addShape(kind: Shape["kind"], points: Point[]): void {
  setShapes([...shapes.value, { is: sign.value, kind, points }]);
}

/** As `segment` takes it. */
export function exampleOf(shape: Shape): Record<string, unknown> {
  const points = shape.points.map(([x, y]) => [round(x), round(y)]);
  if (shape.kind === "point") return { is: shape.is, point: points[0] };
  if (shape.kind === "polygon") return { is: shape.is, polygon: points };
  return { is: shape.is, box: boxOf(shape) };
}

/** Objects whose outline was changed by hand, as they were: they go before they come back as they are drawn now. */
export function changedObjects(drawn: Shape[]): Shape[] {
  return drawn.flatMap(({ is, from, points }) => (is && from && from !== points ? [{ is: false, kind: "polygon" as const, points: from }] : []));
}

export function boxOf(shape: Shape): number[] {
  const xs = shape.points.map(([x]) => round(x));
  const ys = shape.points.map(([, y]) => round(y));
  return [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

const THIS = "#00a040";
const NOT_THIS = "#d01030";
const LEAST_SCREEN_PX = 4;

/** Listens to the pointer while a tool is chosen, and draws what was drawn. */
export function onDrawing(stage: Stage): () => void {
  let current: Point[] = [];
  let down = false;
  const corners = new Corners();

  const point = (event: PointerEvent): Point => {
    const [x, y] = stage.imagePoint(event.clientX, event.clientY)!;
    const size = stage.osd.world.getItemAt(0).getContentSize();
    return [Math.min(Math.max(x, 0), size.x), Math.min(Math.max(y, 0), size.y)];
  };
  const finishPolygon = () => {
    if (current.length >= 3) addShape("polygon", current);
    current = [];
    stage.redraw();
  };
  const pressed = (event: PointerEvent) => {
    if (tool.value === "off" || event.button !== 0 || !stage.view) return;
    event.preventDefault();
    if (tool.value === "corners") {
      if (corners.take(stage.view, point(event), event.shiftKey)) stage.element.setPointerCapture(event.pointerId);
    } else if (tool.value === "point") addShape("point", [point(event)]);
    else if (tool.value === "object") void takeObject(stage, point(event));
    else if (tool.value === "polygon") {
      const [first] = current;
      const here = point(event);
      if (first && current.length >= 3 && near(stage.view, first, here)) finishPolygon();
      else current = [...current, here];
    } else {
      down = true;
      stage.element.setPointerCapture(event.pointerId);
      current = [point(event)];
    }
    stage.redraw();
  };
  const movedTo = (event: PointerEvent) => {
    if (corners.held) {
      corners.move(point(event));
      stage.redraw();
      return;
    }
    if (!down || tool.value === "off") return;
    const here = point(event);
    current = tool.value === "box" ? [current[0]!, here] : [...current, here];
    stage.redraw();
  };
  const released = () => {
    corners.release();
    if (!down) return;
    down = false;
    const view = stage.view;
    if (view && current.length) {
      const radius = (brushPx.value * devicePixelRatio) / view.scale;
      if (tool.value === "brush") {
        const outline = strokeOutline(current, radius);
        if (outline.length >= 3) addShape("polygon", outline);
      } else if (current[1] && !near(view, current[0]!, current[1])) addShape("box", current);
    }
    current = [];
    stage.redraw();
  };
  const keys = (event: KeyboardEvent) => {
    if (/^(INPUT|TEXTAREA|SELECT)$/.test((event.target as HTMLElement).tagName)) return;
    if (event.key === "Enter" && tool.value === "polygon") finishPolygon();
    else if (event.key === "Escape" && (current.length || tool.value !== "off")) {
      if (!current.length) tool.value = "off";
      current = [];
    } else if (event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey)) {
      if (event.shiftKey) redo();
      else undo();
      event.preventDefault();
    } else return;
    stage.redraw();
  };
  const twice = () => tool.value === "polygon" && finishPolygon();
  const draw = (context: CanvasRenderingContext2D, view: View) => {
    shapes.value.forEach((shape, number) => outline(context, view, corners.held?.number === number ? corners.held.shape : shape));
    if (tool.value === "corners") corners.draw(context, view);
    if (current.length) {
      const kind = tool.value === "box" ? "box" : "polygon";
      const radius = tool.value === "brush" ? brushPx.value * devicePixelRatio : 0;
      outline(context, view, { is: sign.value, kind, points: current }, radius);
    }
  };
  stage.extras.push(draw);
  stage.element.addEventListener("pointerdown", pressed);
  stage.element.addEventListener("pointermove", movedTo);
  stage.element.addEventListener("pointerup", released);
  stage.element.addEventListener("pointercancel", released);
  stage.element.addEventListener("dblclick", twice);
  window.addEventListener("keydown", keys);
  const stops = [
    tool.subscribe((value) => {
      const on = value !== "off";
      drawing.on = on;
      current = [];
      stage.element.classList.toggle("drawing", on);
      for (const settings of ["gestureSettingsMouse", "gestureSettingsTouch", "gestureSettingsPen"] as const) {
        const gestures = (stage.osd as unknown as Record<string, { dragToPan: boolean; dblClickToZoom: boolean }>)[settings]!;
        gestures.dragToPan = !on;
        gestures.dblClickToZoom = !on;
      }
      stage.redraw();
    }),
    shapes.subscribe(() => stage.redraw()),
  ];
  return () => {
    stage.extras.splice(stage.extras.indexOf(draw), 1);
    stage.element.removeEventListener("pointerdown", pressed);
    stage.element.removeEventListener("pointermove", movedTo);
    stage.element.removeEventListener("pointerup", released);
    stage.element.removeEventListener("pointercancel", released);
    stage.element.removeEventListener("dblclick", twice);
    window.removeEventListener("keydown", keys);
    stops.forEach((stop) => stop());
  };
}

async function takeObject(stage: Stage, [x, y]: Point): Promise<void> {
  const hit = await stage.hit(x, y);
  // of an object in several parts the largest: less than half of it would not take it away
  const [ring] = [...(hit?.rings ?? [])].sort((one, other) => areaOf(other) - areaOf(one));
  if (!ring) return;
  const points = ring.slice(0, -1);
  setShapes([...shapes.value, { is: sign.value, kind: "polygon", points, from: points }]);
}

function areaOf(ring: Point[]): number {
  let twice = 0;
  ring.forEach(([x, y], at) => {
    const [nextX, nextY] = ring[(at + 1) % ring.length]!;
    twice += x * nextY - nextX * y;
  });
  return Math.abs(twice) / 2;
}

function near(view: View, one: Point, other: Point): boolean {
  const [a, b] = [applied(view.toScreen, ...one), applied(view.toScreen, ...other)];
  return Math.hypot(a[0] - b[0], a[1] - b[1]) < LEAST_SCREEN_PX * 2 * devicePixelRatio;
}

function outline(context: CanvasRenderingContext2D, view: View, shape: Shape, brush = 0): void {
  const colour = shape.is ? THIS : NOT_THIS;
  const at = shape.points.map(([x, y]) => applied(view.toScreen, x, y));
  context.beginPath();
  if (shape.kind === "point") {
    context.arc(...at[0]!, 7 * devicePixelRatio, 0, 2 * Math.PI);
  } else if (shape.kind === "box" && shape.points[1]) {
    const [[x0, y0], [x1, y1]] = shape.points as [Point, Point];
    trace(context, view, [
      [x0, y0],
      [x1, y0],
      [x1, y1],
      [x0, y1],
    ]);
  } else {
    at.forEach(([x, y], number) => (number ? context.lineTo(x, y) : context.moveTo(x, y)));
    if (!brush) context.closePath();
  }
  if (brush) {
    context.lineWidth = 2 * brush;
    context.lineCap = context.lineJoin = "round";
    context.strokeStyle = colour + "66";
    context.stroke();
    return;
  }
  context.fillStyle = colour + "30";
  context.fill();
  // white under the colour: seen on dark and on pale tissue
  for (const [width, style] of [
    [4.5, "#ffffff"],
    [2.5, colour],
  ] as const) {
    context.lineWidth = width * devicePixelRatio;
    context.strokeStyle = style;
    context.setLineDash(shape.is ? [] : [8 * devicePixelRatio, 5 * devicePixelRatio]);
    context.stroke();
  }
  context.setLineDash([]);
}

/** The outer border of a brush stroke, in image pixels: painted small, then walked around. */
export function strokeOutline(points: Point[], radius: number): Point[] {
  const xs = points.map(([x]) => x);
  const ys = points.map(([, y]) => y);
  const [left, top] = [Math.min(...xs) - radius, Math.min(...ys) - radius];
  const side = Math.max(Math.max(...xs) + radius - left, Math.max(...ys) + radius - top);
  const scale = 240 / side;
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 244;
  const context = canvas.getContext("2d", { willReadFrequently: true })!;
  context.lineCap = context.lineJoin = "round";
  context.lineWidth = Math.max(2, 2 * radius * scale);
  context.beginPath();
  const put = ([x, y]: Point) => [2 + (x - left) * scale, 2 + (y - top) * scale] as const;
  context.moveTo(...put(points[0]!));
  for (const each of points.length > 1 ? points.slice(1) : [[points[0]![0] + 0.01, points[0]![1]] as Point]) {
    context.lineTo(...put(each));
  }
  context.stroke();
  const alpha = context.getImageData(0, 0, 244, 244).data;
  const ring = around((x, y) => x >= 0 && y >= 0 && x < 244 && y < 244 && alpha[4 * (y * 244 + x) + 3]! > 127);
  return ring.map(([x, y]) => [left + (x - 2) / scale, top + (y - 2) / scale]);
}

/** Corners of the border of the first region found in a picture of 244 by 244, inside on the right hand. */
function around(inside: (x: number, y: number) => boolean): Point[] {
  let start: Point | null = null;
  for (let y = 0; y < 244 && !start; y++) for (let x = 0; x < 244 && !start; x++) if (inside(x, y)) start = [x, y];
  if (!start) return [];
  const ahead: Point[] = [
    [1, 0],
    [0, 1],
    [-1, 0],
    [0, -1],
  ];
  // the pixels to the right and to the left of an edge that leaves a corner in each direction
  const right: Point[] = [
    [0, 0],
    [-1, 0],
    [-1, -1],
    [0, -1],
  ];
  const left: Point[] = [
    [0, -1],
    [0, 0],
    [-1, 0],
    [-1, -1],
  ];
  const ring: Point[] = [];
  let [x, y] = start;
  let way = 0;
  do {
    ring.push([x, y]);
    x += ahead[way]![0];
    y += ahead[way]![1];
    for (const turn of [1, 0, 3, 2]) {
      const next = (way + turn) % 4;
      if (inside(x + right[next]![0], y + right[next]![1]) && !inside(x + left[next]![0], y + left[next]![1])) {
        way = next;
        break;
      }
    }
  } while ((x !== start[0] || y !== start[1]) && ring.length < 20_000);
  return simplified(ring, 0.7);
}

/** Douglas and Peucker, of a closed ring. */
function simplified(ring: Point[], tolerance: number): Point[] {
  const keep = new Set<number>([0, Math.floor(ring.length / 2)]);
  const cut = (first: number, last: number) => {
    let [most, at] = [tolerance, -1];
    const [ax, ay] = ring[first]!;
    const [bx, by] = ring[last % ring.length]!;
    const length = Math.hypot(bx - ax, by - ay) || 1e-9;
    for (let i = first + 1; i < last; i++) {
      const [x, y] = ring[i]!;
      const away = Math.abs((bx - ax) * (ay - y) - (ax - x) * (by - ay)) / length;
      if (away > most) [most, at] = [away, i];
    }
    if (at < 0) return;
    keep.add(at);
    cut(first, at);
    cut(at, last);
  };
  const half = Math.floor(ring.length / 2);
  cut(0, half);
  cut(half, ring.length);
  return [...keep].sort((one, other) => one - other).map((index) => ring[index]!);
}
