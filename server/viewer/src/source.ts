// Tiles of the picture, as OpenSeadragon asks for them.

import type { Backend } from "./backend";
import type { AboutImage } from "./types";

/** OpenSeadragon counts levels from the smallest up; the server from full resolution down. */
export function sourceOf(image: AboutImage, backend: Backend): object {
  const stops = new WeakMap<object, AbortController>();
  const last = image.levels - 1;
  return {
    width: image.width,
    height: image.height,
    tileSize: image.tile_px,
    minLevel: 0,
    maxLevel: last,
    tileOverlap: 0,
    getLevelScale: (level: number) => 2 ** (level - last),
    getTileUrl: (level: number, x: number, y: number) => `${image.image_id}/${last - level}/${x}/${y}`,
    getTileHashKey: (level: number, x: number, y: number) => `${image.image_id}/${last - level}/${x}/${y}`,
    downloadTileStart(job: Job) {
      const stop = new AbortController();
      stops.set(job, stop);
      const [, z, x, y] = job.src.split("/").map(Number) as [number, number, number, number];
      backend.imageTile(image.image_id, { z, x, y }, stop.signal).then(
        (blob) => (blob ? job.finish(blob, null, "rasterBlob") : job.fail("the tile is empty", null)),
        (error: Error) => job.fail(error.message, null),
      );
    },
    downloadTileAbort(job: Job) {
      stops.get(job)?.abort();
    },
  };
}

interface Job {
  src: string;
  finish(data: Blob, request: null, kind: string): void;
  fail(message: string, request: null): void;
}
