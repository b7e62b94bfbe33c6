// Object tiles as the server packs them (tools/view/tiles.py), and which object lies under a point.

export interface ObjectTile {
  ids: Uint32Array;
  firstRing: Uint32Array;
  firstPoint: Uint32Array;
  points: Int16Array;
  step: number;
  x0: number;
  y0: number;
  boxes: Float32Array;
}

const MAGIC = 0x314f5454;

export function unpacked(data: ArrayBuffer): ObjectTile {
  const [magic, objects, rings, points] = new Uint32Array(data, 0, 4) as unknown as [number, number, number, number];
  if (magic !== MAGIC) throw new Error("this is no object tile");
  const [step, x0, y0] = new Float32Array(data, 16, 3) as unknown as [number, number, number];
  let at = 32;
  const take = (count: number) => {
    const part = new Uint32Array(data, at, count);
    at += 4 * count;
    return part;
  };
  const ids = take(objects);
  const firstRing = take(objects + 1);
  const firstPoint = take(rings + 1);
  const tile = { ids, firstRing, firstPoint, points: new Int16Array(data, at, 2 * points), step, x0, y0 };
  return { ...tile, boxes: boxesOf(tile) };
}

function boxesOf(tile: Omit<ObjectTile, "boxes">): Float32Array {
  const boxes = new Float32Array(4 * tile.ids.length);
  for (let object = 0; object < tile.ids.length; object++) {
    let [left, top, right, bottom] = [Infinity, Infinity, -Infinity, -Infinity];
    const last = tile.firstPoint[tile.firstRing[object + 1]!]!;
    for (let point = tile.firstPoint[tile.firstRing[object]!]!; point < last; point++) {
      const x = tile.points[2 * point]!;
      const y = tile.points[2 * point + 1]!;
      if (x < left) left = x;
      if (x > right) right = x;
      if (y < top) top = y;
      if (y > bottom) bottom = y;
    }
    boxes.set([left, top, right, bottom], 4 * object);
  }
  return boxes;
}

/** Two ends of every stretch of outline, [x0, y0, x1, y1] in the tile's own units. */
export function segmentsOf(tile: ObjectTile): Int16Array {
  const rings = tile.firstPoint.length - 1;
  const found = new Int16Array(4 * Math.max(0, tile.points.length / 2 - rings));
  let at = 0;
  for (let ring = 0; ring < rings; ring++) {
    const last = tile.firstPoint[ring + 1]! - 1;
    for (let point = tile.firstPoint[ring]!; point < last; point++) {
      found.set(tile.points.subarray(2 * point, 2 * point + 4), at);
      at += 4;
    }
  }
  return found;
}

/** Index of the object that holds a point of the image, or -1. */
export function objectAt(tile: ObjectTile, x: number, y: number): number {
  const u = (x - tile.x0) / tile.step;
  const v = (y - tile.y0) / tile.step;
  for (let object = 0; object < tile.ids.length; object++) {
    const [left, top, right, bottom] = tile.boxes.subarray(4 * object, 4 * object + 4);
    if (u >= left! && u <= right! && v >= top! && v <= bottom! && holds(tile, object, u, v)) return object;
  }
  return -1;
}

function holds(tile: ObjectTile, object: number, u: number, v: number): boolean {
  let inside = false;
  for (let ring = tile.firstRing[object]!; ring < tile.firstRing[object + 1]!; ring++) {
    for (let point = tile.firstPoint[ring]!; point < tile.firstPoint[ring + 1]! - 1; point++) {
      const [ax, ay, bx, by] = tile.points.subarray(2 * point, 2 * point + 4);
      if (ay! > v !== by! > v && u < ((bx! - ax!) * (v - ay!)) / (by! - ay!) + ax!) inside = !inside;
    }
  }
  return inside;
}

/** Rings of one object in image pixels. */
export function ringsOf(tile: ObjectTile, object: number): [number, number][][] {
  const rings: [number, number][][] = [];
  for (let ring = tile.firstRing[object]!; ring < tile.firstRing[object + 1]!; ring++) {
    const points: [number, number][] = [];
    for (let point = tile.firstPoint[ring]!; point < tile.firstPoint[ring + 1]!; point++) {
      points.push([tile.x0 + tile.points[2 * point]! * tile.step, tile.y0 + tile.points[2 * point + 1]! * tile.step]);
    }
    rings.push(points);
  }
  return rings;
}
