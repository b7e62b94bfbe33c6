// The picture and what lies over it. OpenSeadragon pans, zooms and turns; masks are drawn over it in step.

import OpenSeadragon from "openseadragon";
import type { Backend } from "./backend";
import { between, Painter, rgb, type Matrix } from "./gl";
import { MaskLayerView, type View } from "./layer";
import { sourceOf } from "./source";
import { Squares, squareLevel } from "./squares";
import { chosen, colourOf, lookOf, picked } from "./state";
import type { AboutImage, AboutResult, Box } from "./types";

export interface Scene {
  zoom: number;
  x: number;
  y: number;
  turn: number;
}

export interface Hit {
  layer: MaskLayerView;
  id: number | null;
  rings: [number, number][][];
}

/** squares: of this result and of the other one; null where a graphics card draws everything anew in time. */
interface Masks {
  painter: Painter;
  over: HTMLCanvasElement;
  squares: readonly [Squares, Squares] | null;
}

type Listener = () => void;

export class Stage {
  readonly osd: OpenSeadragon.Viewer;
  layers: MaskLayerView[] = [];
  /** Drawn on top, in device pixels: what is being drawn by hand, a swipe's line. */
  readonly extras: ((context: CanvasRenderingContext2D, view: View) => void)[] = [];
  onProblem: (error: unknown) => void = () => {};
  onMoved: Listener = () => {};
  firstPicture = 0;
  /** Where the other result begins, 0..1 of the width; null without one. */
  swipe: number | null = null;
  private others: MaskLayerView[] = [];
  /** What masks are drawn with, from when the first picture is there: starting it takes a while. */
  private masks: Masks | null = null;
  private readonly marks: HTMLCanvasElement;
  private abouts: [AboutResult | null, AboutResult | null] = [null, null];
  private image: AboutImage | null = null;
  private due = false;
  private drawn = "";
  private drawnBy: Matrix | null = null;
  private later = 0;
  /** How often masks were drawn. */
  frames = 0;

  constructor(
    readonly element: HTMLElement,
    private readonly backend: Backend,
    minimap: HTMLElement,
  ) {
    this.osd = new OpenSeadragon.Viewer({
      element,
      prefixUrl: "",
      showNavigationControl: false,
      showNavigator: true,
      navigatorElement: minimap,
      drawer: ["canvas"],
      animationTime: 0.6,
      springStiffness: 10,
      visibilityRatio: 0.2,
      minZoomImageRatio: 0.6,
      maxZoomPixelRatio: 12,
      imageSmoothingEnabled: true,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
      gestureSettingsTouch: { pinchRotate: true, clickToZoom: false, dblClickToZoom: true },
      imageLoaderLimit: backend.kind === "app" ? 3 : 6,
      timeout: 60000,
      tabIndex: 0,
    } as OpenSeadragon.Options);
    this.marks = document.createElement("canvas");
    this.marks.className = "over";
    this.osd.canvas.appendChild(this.marks);
    // in step with the picture: drawn right after it, in the same frame
    this.osd.addHandler("update-viewport", () => this.draw(false));
    for (const name of ["open", "animation-finish", "resize", "rotate"] as const) {
      this.osd.addHandler(name as "open", () => this.redraw());
    }
    this.osd.addHandler("viewport-change" as "open", () => this.onMoved());
    this.osd.addHandler("tile-load-failed" as "open", (event) => {
      this.onProblem(new Error(String((event as unknown as { message?: string }).message ?? "a tile is missing")));
      this.begin();
    });
    this.osd.addHandler("tile-drawn" as "open", () => {
      if (this.firstPicture) return;
      this.firstPicture = performance.now();
      setTimeout(() => this.begin());
    });
  }

  private begin(): void {
    if (this.masks) return;
    const painter = new Painter(document.createElement("canvas"));
    painter.canvas.addEventListener("webglcontextlost", (event) => {
      event.preventDefault();
      this.onProblem(new Error("the graphics card was reset; reload the page"));
    });
    const over = painter.soft ? document.createElement("canvas") : painter.canvas;
    over.className = "over";
    this.osd.canvas.insertBefore(over, this.marks);
    const squaresOf = (layers: () => MaskLayerView[]) => new Squares(painter, (view) => paint(layers(), view));
    const squares = painter.soft ? ([squaresOf(() => this.layers), squaresOf(() => this.others)] as const) : null;
    this.masks = { painter, over, squares };
    this.show(this.abouts[0]);
    this.showOther(this.abouts[1]);
  }

  get view(): View | null {
    const item = this.osd.world.getItemAt(0);
    if (!item || !this.image) return null;
    const ratio = window.devicePixelRatio;
    const corner = (x: number, y: number) => {
      const point = this.osd.viewport.viewportToViewerElementCoordinates(item.imageToViewportCoordinates(x, y, true));
      return [point.x * ratio, point.y * ratio] as const;
    };
    // a thousand pixels away, so that nothing is lost in the difference
    const [e, f] = corner(0, 0);
    const [ax, ay] = corner(1000, 0);
    const [bx, by] = corner(0, 1000);
    const toScreen: Matrix = [(ax - e) / 1000, (ay - f) / 1000, (bx - e) / 1000, (by - f) / 1000, e, f];
    const [a, b, c, d] = toScreen;
    const determinant = a * d - b * c;
    const back = (x: number, y: number): [number, number] => [
      (d * (x - e) - c * (y - f)) / determinant,
      (a * (y - f) - b * (x - e)) / determinant,
    ];
    const [w, h] = [this.element.clientWidth * ratio, this.element.clientHeight * ratio];
    const corners = [back(0, 0), back(w, 0), back(0, h), back(w, h)];
    const xs = corners.map(([x]) => x);
    const ys = corners.map(([, y]) => y);
    const seen: Box = [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
    const scale = Math.sqrt(Math.abs(determinant));
    const detail = this.masks?.squares ? 2 ** -squareLevel(scale, this.image.levels) : scale;
    return { toScreen, scale, detail, seen, centre: back(w / 2, h / 2) };
  }

  open(image: AboutImage): void {
    this.image = image;
    this.firstPicture = 0;
    this.osd.open(sourceOf(image, this.backend) as OpenSeadragon.TileSourceSpecifier);
  }

  show(about: AboutResult | null): void {
    this.abouts[0] = about;
    for (const layer of this.layers) layer.close();
    this.layers = this.layersOf(about);
    this.masks?.squares?.[0].clear();
    this.redraw();
  }

  /** On the right of the line to swipe. */
  showOther(about: AboutResult | null): void {
    this.abouts[1] = about;
    for (const layer of this.others) layer.close();
    this.others = this.layersOf(about);
    this.masks?.squares?.[1].clear();
    this.redraw();
  }

  private layersOf(about: AboutResult | null): MaskLayerView[] {
    const changed = (box: Box | null) => {
      if (box) this.masks?.squares?.forEach((each) => each.outdate(box));
      this.redraw();
    };
    const failed = (error: unknown) => this.onProblem(error);
    const { masks } = this;
    if (!about || !masks) return [];
    return about.result.masks
      .filter((mask) => mask.found)
      .map((mask) => new MaskLayerView(mask, about, this.backend, masks.painter, changed, failed));
  }

  /** Where colours or what is shown have changed. */
  repaint(): void {
    this.masks?.squares?.forEach((each) => each.outdate());
    this.redraw();
  }

  /** At the next frame. */
  redraw(): void {
    if (this.due) return;
    this.due = true;
    requestAnimationFrame(() => {
      this.due = false;
      this.draw();
    });
  }

  fit(box: Box, immediately = false): void {
    const item = this.osd.world.getItemAt(0);
    if (!item) return;
    const [x0, y0, x1, y1] = box;
    const [w, h] = [Math.max(x1 - x0, 80), Math.max(y1 - y0, 80)];
    const [x, y] = [(x0 + x1 - w) / 2, (y0 + y1 - h) / 2];
    const rect = item.imageToViewportRectangle(x - w * 0.15, y - h * 0.15, w * 1.3, h * 1.3);
    this.osd.viewport.fitBounds(rect, immediately);
  }

  home(): void {
    this.osd.viewport.goHome();
  }

  zoomBy(factor: number): void {
    this.osd.viewport.zoomBy(factor);
    this.osd.viewport.applyConstraints();
  }

  turnBy(degrees: number): void {
    this.osd.viewport.setRotation(this.osd.viewport.getRotation() + degrees);
  }

  get scene(): Scene | null {
    const view = this.view;
    if (!view) return null;
    return { zoom: view.scale / devicePixelRatio, x: view.centre[0], y: view.centre[1], turn: this.osd.viewport.getRotation() };
  }

  setScene(scene: Scene, immediately = true): void {
    const item = this.osd.world.getItemAt(0);
    if (!item) return;
    const { viewport } = this.osd;
    viewport.setRotation(scene.turn, immediately);
    viewport.zoomTo(item.imageToViewportZoom(scene.zoom), undefined, immediately);
    viewport.panTo(item.imageToViewportCoordinates(scene.x, scene.y), immediately);
  }

  /** Image pixels under a place in the page. */
  imagePoint(clientX: number, clientY: number): [number, number] | null {
    const view = this.view;
    if (!view) return null;
    const rect = this.element.getBoundingClientRect();
    const [a, b, c, d, e, f] = view.toScreen;
    const x = (clientX - rect.left) * devicePixelRatio - e;
    const y = (clientY - rect.top) * devicePixelRatio - f;
    const determinant = a * d - b * c;
    return [(d * x - c * y) / determinant, (a * y - b * x) / determinant];
  }

  /** The topmost object or mask at a point. */
  async hit(x: number, y: number): Promise<Hit | null> {
    const view = this.view;
    if (!view) return null;
    for (const layer of [...this.layers].reverse()) {
      if (!lookOf(layer.mask.mask_id).shown) continue;
      const object = layer.objectAt(x, y, view);
      if (object) return { layer, ...object };
    }
    for (const layer of [...this.layers].reverse()) {
      if (lookOf(layer.mask.mask_id).shown && (await layer.covers(x, y, view))) return { layer, id: null, rings: [] };
    }
    return null;
  }

  get loading(): number {
    return this.layers.reduce((sum, layer) => sum + layer.loading, 0);
  }

  get segments(): number {
    return this.layers.reduce((sum, layer) => sum + layer.drawnSegments, 0);
  }

  /** Picture and masks as they are on the screen, without anything else. */
  snapshot(): HTMLCanvasElement {
    const width = this.element.clientWidth * devicePixelRatio;
    const height = this.element.clientHeight * devicePixelRatio;
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [width, height];
    const context = canvas.getContext("2d")!;
    context.fillStyle = "#ffffff";
    context.fillRect(0, 0, width, height);
    const drawn = (this.osd.drawer as unknown as { canvas: HTMLCanvasElement }).canvas;
    context.drawImage(drawn, 0, 0, width, height);
    const { view, masks } = this;
    if (view && masks) {
      this.paintAll(masks, view, width, height);
      context.drawImage(masks.painter.canvas, 0, 0, width, height);
      this.drawMarks(view, width, height);
    }
    context.drawImage(this.marks, 0, 0, width, height);
    return canvas;
  }

  /** anew: also where the view is the one that was drawn last, as it is while tiles of the picture fade in. */
  private draw(anew = true): void {
    const { view, masks } = this;
    if (!view) return;
    const width = Math.round(this.element.clientWidth * devicePixelRatio);
    const height = Math.round(this.element.clientHeight * devicePixelRatio);
    const state = [...view.toScreen, width, height].join();
    if (!anew && state === this.drawn) return;
    if (masks && !masks.squares && masks.painter.busy && this.drawnBy) {
      this.slide(masks, view);
      return;
    }
    this.drawn = state;
    this.drawnBy = view.toScreen;
    this.frames++;
    for (const layer of [...this.layers, ...this.others]) layer.prepare(view, lookOf(layer.mask.mask_id));
    if (masks?.squares) this.drawSquares(masks.squares, sized(masks.over, width, height), view);
    else if (masks) {
      this.slide(masks, view);
      this.paintAll(masks, view, width, height);
    }
    this.drawMarks(view, width, height);
    if (this.swipe !== null) this.drawSwipe(Math.round(this.swipe * width), height);
  }

  /** This result, and from the line on the other one: what each has from where to where on the screen. */
  private parts(width: number): [MaskLayerView[], number, number][] {
    const line = this.swipe === null ? width : Math.round(this.swipe * width);
    return [
      [this.layers, 0, line],
      [this.others, line, width],
    ];
  }

  private paintAll({ painter }: Masks, view: View, width: number, height: number): void {
    painter.begin(width, height);
    for (const [layers, from, to] of this.parts(width)) {
      painter.clip(from, to);
      paint(layers, view);
    }
    painter.clip();
    painter.end();
  }

  private drawSquares(squares: readonly [Squares, Squares], context: CanvasRenderingContext2D, view: View): void {
    const { width, height } = context.canvas;
    let waiting = false;
    this.parts(width).forEach(([layers, from, to], number) => {
      if (to <= from || !layers.length) return;
      context.save();
      context.beginPath();
      context.rect(from, 0, to - from, height);
      context.clip();
      if (squares[number]!.draw(context, view, layers[0]!.within)) waiting = true;
      context.restore();
    });
    if (waiting) this.redraw();
  }

  /** Where the last frame is still being drawn: the one before, moved to where it belongs, and drawn soon. */
  private slide({ painter, over }: Masks, view: View): void {
    const [a, b, c, d, e, f] = between(this.drawnBy!, view.toScreen);
    const ratio = window.devicePixelRatio;
    const still = Math.abs(a - 1) + Math.abs(b) + Math.abs(e) + Math.abs(f) < 1e-6;
    const how = still ? "" : `matrix(${a},${b},${c},${d},${e / ratio},${f / ratio})`;
    for (const canvas of [over, this.marks]) canvas.style.transform = how;
    if (!painter.busy || this.later) return;
    this.later = window.setTimeout(() => {
      this.later = 0;
      this.redraw();
    }, 15);
  }

  private drawSwipe(x: number, height: number): void {
    const context = this.marks.getContext("2d")!;
    for (const [style, width] of [
      ["#000000", 4],
      ["#ffffff", 2],
    ] as const) {
      context.fillStyle = style;
      context.fillRect(x - (width * devicePixelRatio) / 2, 0, width * devicePixelRatio, height);
    }
  }

  private drawMarks(view: View, width: number, height: number): void {
    const context = sized(this.marks, width, height);
    const { value: one } = picked;
    const { value: some } = chosen;
    for (const layer of this.layers) {
      const ids = new Set<number>();
      if (one?.mask.mask_id === layer.mask.mask_id) ids.add(one.id);
      if (some?.maskId === layer.mask.mask_id) for (const id of some.ids) ids.add(id);
      if (!ids.size) continue;
      context.fillStyle = colourOf(layer.mask) + "99";
      context.strokeStyle = "#ffffff";
      context.lineWidth = 2.5 * devicePixelRatio;
      context.beginPath();
      for (const ring of layer.ringsOf(ids, view)) trace(context, view, ring);
      context.fill("evenodd");
      context.stroke();
    }
    for (const extra of this.extras) extra(context, view);
  }
}

function paint(layers: MaskLayerView[], view: View): void {
  for (const layer of layers) layer.draw(view, lookOf(layer.mask.mask_id), rgb(colourOf(layer.mask)));
}

/** Empty, and as large as it is said. */
function sized(canvas: HTMLCanvasElement, width: number, height: number): CanvasRenderingContext2D {
  const context = canvas.getContext("2d")!;
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  else context.clearRect(0, 0, width, height);
  return context;
}

export function trace(context: CanvasRenderingContext2D, view: View, points: [number, number][]): void {
  const [a, b, c, d, e, f] = view.toScreen;
  points.forEach(([x, y], number) => {
    const [u, v] = [a * x + c * y + e, b * x + d * y + f];
    if (number) context.lineTo(u, v);
    else context.moveTo(u, v);
  });
  context.closePath();
}
