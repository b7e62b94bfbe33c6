// One mask on the screen: which of its tiles are needed for a view, and how they are drawn. Outlines near, cover far.

import type { Backend } from "./backend";
import { moved, scaled, type CoverTexture, type LineBuffer, type Matrix, type Painter } from "./gl";
import { objectAt, ringsOf, segmentsOf, unpacked, type ObjectTile } from "./objects";
import type { MaskLook } from "./state";
import { TileCache } from "./tilecache";
import type { AboutResult, Box, Mask, Place } from "./types";

export interface View {
  toScreen: Matrix;
  /** Device pixels per image pixel. */
  scale: number;
  /** The same for choosing tiles: a power of two where what was drawn is kept. */
  detail: number;
  /** What is on the screen, in image pixels. */
  seen: Box;
  centre: [number, number];
}

interface Cover {
  picture: CoverTexture;
  blob: Blob;
}

interface Outlines {
  tile: ObjectTile;
  lines: LineBuffer;
}

const COVER_MB = 64;
const OUTLINES_MB = 96;

export class MaskLayerView {
  private readonly cover: TileCache<Cover>;
  private readonly outlines: TileCache<Outlines>;
  private readonly width: number;
  private readonly height: number;
  private wantsOutlines = false;
  /** How far an object may lie beyond the tile of its centroid, in image pixels. */
  private readonly reach: number = 0;
  drawnSegments = 0;

  constructor(
    readonly mask: Mask,
    private readonly about: AboutResult,
    backend: Backend,
    private readonly painter: Painter,
    changed: (box: Box | null) => void,
    failed: (error: unknown) => void,
  ) {
    const resultId = about.result.result_id;
    this.width = about.result.image.width;
    this.height = about.result.image.height;
    if (mask.count) this.reach = Math.min(about.tile_px, 3 * Math.sqrt(mask.area_px / mask.count / Math.PI));
    const atOnce = backend.kind === "app" ? 2 : 4;
    this.cover = new TileCache<Cover>(
      async (at, signal) => {
        const blob = await backend.coverTile(resultId, mask.mask_id, at, signal);
        if (!blob) return { value: null, weight: 100 };
        const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" } as const;
        const bitmap = await createImageBitmap(blob, options);
        const picture = painter.textureOf(bitmap);
        bitmap.close();
        return { value: { picture, blob }, weight: picture.size ** 2 + blob.size };
      },
      ({ picture }) => painter.dropTexture(picture),
      (value, at) => changed(value && this.boxOf(at)),
      failed,
      COVER_MB * 2 ** 20,
      atOnce,
    );
    this.outlines = new TileCache<Outlines>(
      async (at, signal) => {
        const data = await backend.objectTile(resultId, mask.mask_id, at, signal);
        if (!data) return { value: null, weight: 100 };
        const tile = unpacked(data);
        const segments = segmentsOf(tile);
        const lines = painter.linesOf(segments);
        return { value: { tile, lines }, weight: data.byteLength + tile.boxes.byteLength + segments.byteLength };
      },
      ({ lines }) => painter.dropLines(lines),
      (value) => changed(value && boundsOf(value.tile)),
      failed,
      OUTLINES_MB * 2 ** 20,
      atOnce,
    );
  }

  /** Part of the image that was looked at. */
  get within(): Box {
    const [x0, y0, x1, y1] = this.about.result.image.region;
    return [Math.max(x0, 0), Math.max(y0, 0), Math.min(x1, this.width), Math.min(y1, this.height)];
  }

  get loading(): number {
    return this.cover.loading + this.outlines.loading;
  }

  /** Asks for what the view needs. */
  prepare(view: View, look: MaskLook): void {
    this.drawnSegments = 0;
    if (!look.shown || !this.mask.found) {
      this.cover.want([]);
      this.outlines.want([]);
      return;
    }
    const z = this.levelOf(view);
    const fine = this.outlineLevel(view);
    this.wantsOutlines = look.outline && fine <= (this.about.outlines_to_level[this.mask.mask_id] ?? -1);
    const outlined = this.wantsOutlines ? this.places(view, fine, this.reach) : [];
    this.outlines.want(outlined);
    for (const at of outlined) this.drawnSegments += this.outlines.get(at)?.lines.count ?? 0;
    const needsCover = look.fill > 0 || !this.wantsOutlines || this.outlines.loading > 0 || this.drawnSegments > this.painter.mostSegments;
    // one coarse tile first: something is there at once
    const coarse = Math.min(this.about.levels - 1, z + 3);
    this.cover.want(needsCover ? [...(coarse > z ? this.places(view, coarse) : []), ...this.places(view, z)] : []);
  }

  draw(view: View, look: MaskLook, colour: [number, number, number]): void {
    if (!look.shown || !this.mask.found) return;
    const z = this.levelOf(view);
    const places = this.places(view, z);
    const fine = this.wantsOutlines ? this.places(view, this.outlineLevel(view), this.reach) : [];
    const ready = fine.map((at) => this.outlines.get(at));
    const segments = ready.reduce((sum, each) => sum + (each?.lines.count ?? 0), 0);
    const asLines = this.wantsOutlines && segments <= this.painter.mostSegments;
    // objects too small for outlines, or whose outlines are on their way: how densely they lie
    const dense = { fill: Math.max(look.fill, look.outline ? 0.55 : 0), outline: 0 };
    const far = this.about.outlines_to_level[this.mask.mask_id]! >= 0 && !asLines;
    const near = { fill: look.fill, outline: asLines || !look.outline ? 0 : 1 };
    for (const at of places) this.drawCoverAt(at, view, colour, far ? dense : near);
    if (asLines) fine.forEach((at, number) => ready[number] === undefined && this.drawCoverAt(at, view, colour, dense));
    if (!asLines) return;
    const width = (view.scale > 0.5 ? 2 : 1.4) * devicePixelRatio;
    for (const each of ready) {
      if (!each) continue;
      const { tile, lines } = each;
      this.painter.drawLines(lines, scaled(moved(view.toScreen, tile.x0, tile.y0), tile.step), colour, width);
    }
  }

  /** The object under a point of the image, where outlines are on the screen. */
  objectAt(x: number, y: number, view: View): { id: number; rings: [number, number][][] } | null {
    const z = this.outlineLevel(view);
    if (!this.wantsOutlines) return null;
    // an object belongs to the tile its centroid lies in, which can be the next one
    const side = this.about.tile_px * 2 ** z;
    for (const dx of [0, -1, 1]) {
      for (const dy of [0, -1, 1]) {
        const at = { z, x: Math.floor(x / side) + dx, y: Math.floor(y / side) + dy };
        const found = this.outlines.get(at);
        if (!found) continue;
        const index = objectAt(found.tile, x, y);
        if (index >= 0) return { id: found.tile.ids[index]!, rings: ringsOf(found.tile, index) };
      }
    }
    return null;
  }

  /** Outlines of some objects by number, as far as they are on the screen. */
  ringsOf(ids: Set<number>, view: View): [number, number][][] {
    if (!this.wantsOutlines) return [];
    const rings: [number, number][][] = [];
    for (const at of this.places(view, this.outlineLevel(view), this.reach)) {
      const tile = this.outlines.get(at)?.tile;
      tile?.ids.forEach((id, index) => ids.has(id) && rings.push(...ringsOf(tile, index)));
    }
    return rings;
  }

  /** Whether the mask covers a point, from the cover that is there. */
  async covers(x: number, y: number, view: View): Promise<boolean> {
    for (let z = this.levelOf(view); z < this.about.levels; z++) {
      const side = this.about.tile_px * 2 ** z;
      const at = { z, x: Math.floor(x / side), y: Math.floor(y / side) };
      const found = this.cover.get(at);
      if (found === null) return false;
      if (!found) continue;
      const column = Math.floor((x - at.x * side) / 2 ** z) + this.about.border_px;
      const row = Math.floor((y - at.y * side) / 2 ** z) + this.about.border_px;
      const pixel = await createImageBitmap(found.blob, column, row, 1, 1);
      const canvas = new OffscreenCanvas(1, 1);
      const context = canvas.getContext("2d")!;
      context.drawImage(pixel, 0, 0);
      return context.getImageData(0, 0, 1, 1).data[0]! > 127;
    }
    return false;
  }

  close(): void {
    this.cover.clear();
    this.outlines.clear();
  }

  private levelOf(view: View): number {
    return Math.min(this.about.levels - 1, Math.max(0, Math.floor(Math.log2(1 / view.detail) + 0.4)));
  }

  /** The coarsest one whose outlines are right to a pixel of the screen. */
  private outlineLevel(view: View): number {
    return Math.min(this.about.levels - 1, Math.max(0, Math.ceil(Math.log2(1 / view.detail) - 0.05)));
  }

  /** Tiles of a level on the screen, the middle one first. */
  private places(view: View, z: number, beyond = 0): Place[] {
    const side = this.about.tile_px * 2 ** z;
    const [x0, y0, x1, y1] = [view.seen[0] - beyond, view.seen[1] - beyond, view.seen[2] + beyond, view.seen[3] + beyond];
    const [left, top, right, bottom] = this.within;
    const found: Place[] = [];
    for (let y = Math.floor(Math.max(y0, top) / side); y <= Math.floor((Math.min(y1, bottom) - 1e-6) / side); y++) {
      for (let x = Math.floor(Math.max(x0, left) / side); x <= Math.floor((Math.min(x1, right) - 1e-6) / side); x++) found.push({ z, x, y });
    }
    const away = ({ x, y }: Place) => Math.hypot((x + 0.5) * side - view.centre[0], (y + 0.5) * side - view.centre[1]);
    return found.sort((one, other) => away(one) - away(other));
  }

  private boxOf({ z, x, y }: Place): Box {
    const side = this.about.tile_px * 2 ** z;
    return [x * side, y * side, (x + 1) * side, (y + 1) * side];
  }

  /** Its own tile, or as long as it is not there the part of a coarser one. */
  private drawCoverAt(at: Place, view: View, colour: [number, number, number], look: { fill: number; outline: number }): void {
    if (look.fill <= 0 && look.outline <= 0) return;
    const { tile_px, border_px, levels } = this.about;
    for (let z = at.z; z < levels; z++) {
      const shrink = 2 ** (z - at.z);
      const from = { z, x: Math.floor(at.x / shrink), y: Math.floor(at.y / shrink) };
      const found = this.cover.get(from);
      if (found === null) return;
      if (!found) continue;
      const part = tile_px / shrink;
      const left = border_px + (at.x - from.x * shrink) * part;
      const top = border_px + (at.y - from.y * shrink) * part;
      const whole = found.picture.size;
      const inside: Box = [left / whole, top / whole, (left + part) / whole, (top + part) / whole];
      this.painter.drawCover(found.picture, this.boxOf(at), inside, view.toScreen, colour, look, 1 / (view.scale * 2 ** z));
      return;
    }
  }
}

/** Of all objects of a tile, in image pixels. */
function boundsOf({ boxes, step, x0, y0 }: ObjectTile): Box {
  const bounds: Box = [Infinity, Infinity, -Infinity, -Infinity];
  boxes.forEach((value, at) => {
    const [side, least] = [at & 3, (at & 3) < 2];
    bounds[side] = least ? Math.min(bounds[side]!, value) : Math.max(bounds[side]!, value);
  });
  const [left, top, right, bottom] = bounds;
  return [x0 + left * step, y0 + top * step, x0 + right * step, y0 + bottom * step];
}
