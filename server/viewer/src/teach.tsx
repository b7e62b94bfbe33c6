// Saying "this", "not this" and "everything like this" with what was drawn.

import { signal } from "@preact/signals";
import { asked, imageName, show } from "./ask";
import {
  boxOf,
  brushPx,
  canRedo,
  canUndo,
  changedObjects,
  exampleOf,
  redo,
  setShapes,
  shapes,
  sign,
  tool,
  undo,
  type Shape,
  type Tool,
} from "./draw";
import { about, activeMask, backend, image, masks, nameOf, problem } from "./state";
import { SayDrawn } from "./talk";
import type { Mask } from "./types";
import { segment } from "./work";

const LONGEST_NAME = 60;
const called = signal("");
const keep = signal(false);

const TOOLS: [Tool, string][] = [
  ["box", "Box"],
  ["polygon", "Polygon"],
  ["brush", "Brush"],
  ["point", "Point"],
  ["object", "Object"],
  ["corners", "Corners"],
];

function correctedMask() {
  return masks.value.find((each) => each.mask_id === activeMask.value) ?? masks.value.find((each) => each.found);
}

async function run(title: string, words: string, args: Record<string, unknown>): Promise<void> {
  tool.value = "off";
  const found = await segment(title, words, args);
  if (!found) return;
  await show(found);
  setShapes([]);
}

/** One correction, or two where objects were changed: one place cannot be shown as the target and as not at once. */
async function correct(mask: Mask, baseResult: string, drawn: Shape[]): Promise<void> {
  const name = nameOf(mask);
  const args = { image: imageName(), words: name };
  const kept = keep.value ? { name: called.value.trim() || name } : {};
  const before = changedObjects(drawn).map(exampleOf);
  const base = before.length
    ? await segment(`${name}, without what was changed`, name, { ...args, base_result: baseResult, examples: before })
    : baseResult;
  if (base) await run(`${name}, corrected`, name, { ...args, ...kept, base_result: base, examples: drawn.map(exampleOf) });
}

export function Teach() {
  if (!image.value) return null;
  const drawn = shapes.value;
  const yes = drawn.filter((each) => each.is);
  const boxes = yes.filter((each) => each.kind === "box");
  const result = about.value?.result;
  const mask = correctedMask();
  const said = asked.value.trim().length <= LONGEST_NAME ? asked.value.trim() : "";
  const name = called.value.trim() || (mask ? nameOf(mask) : said);
  const examples = drawn.map(exampleOf);
  return (
    <section class="teach">
      <h2>Point at it</h2>
      <div class="line" role="toolbar" aria-label="Draw">
        {TOOLS.map(([kind, text]) => (
          <button
            type="button"
            key={kind}
            aria-pressed={tool.value === kind}
            disabled={kind === "object" ? !masks.value.some((each) => each.count) : kind === "corners" && !drawn.length}
            onClick={() => (tool.value = tool.value === kind ? "off" : kind)}
          >
            {text}
          </button>
        ))}
      </div>
      <div class="line" role="radiogroup" aria-label="What the next drawing shows">
        {[true, false].map((is) => (
          <label key={String(is)} class={is ? "yes" : "no"}>
            <input type="radio" name="sign" checked={sign.value === is} onChange={() => (sign.value = is)} />
            {is ? "this" : "not this"}
          </label>
        ))}
        {tool.value === "brush" ? (
          <label>
            size
            <input type="range" min="4" max="60" value={brushPx.value} onInput={(e) => (brushPx.value = Number(e.currentTarget.value))} />
          </label>
        ) : null}
      </div>
      {tool.value === "polygon" ? <p class="hint">Click its corners; Enter, or the first corner again, closes it.</p> : null}
      {tool.value === "corners" ? (
        <p class="hint">Pull a corner, or a side to make a new one; Shift and a click takes one away. An object taken as “this” and changed here is corrected to what you draw.</p>
      ) : null}
      <div class="line">
        <span>
          {yes.length} this, {drawn.length - yes.length} not this
        </span>
        <button type="button" disabled={!canUndo.value} onClick={undo}>
          Undo
        </button>
        <button type="button" disabled={!canRedo.value} onClick={redo}>
          Redo
        </button>
        <button type="button" disabled={!drawn.length} onClick={() => setShapes([])}>
          Clear
        </button>
      </div>
      {drawn.length ? (
        <>
          <label class="called">
            What it is called
            <input type="text" maxLength={100} value={called.value} placeholder={name} onInput={(e) => (called.value = e.currentTarget.value)} />
          </label>
          <label>
            <input type="checkbox" checked={keep.value} onChange={(e) => (keep.value = e.currentTarget.checked)} /> keep it under this name for other images
          </label>
          <div class="actions">
            <SayDrawn drawn={drawn} name={name} mask={mask} />
            {boxes.length === drawn.length && name ? (
              <button type="button" onClick={() => void run(`${name}, in the boxes`, name, { image: imageName(), words: name, boxes: boxes.map(boxOf) })}>
                Find {name} in the boxes
              </button>
            ) : null}
            <button
              type="button"
              class="main"
              disabled={!name || !yes.length}
              onClick={() =>
                void run(`everything like ${name}`, name, {
                  image: imageName(),
                  words: name,
                  examples,
                  ...(keep.value ? { name } : {}),
                  ...(result && result.image.mpp_source === "given" ? { mpp: result.image.mpp } : {}),
                })
              }
            >
              Find everything like this
            </button>
            {result && mask ? (
              <button
                type="button"
                onClick={() => void correct(mask, result.result_id, drawn)}
              >
                Correct {nameOf(mask)}
              </button>
            ) : null}
          </div>
        </>
      ) : null}
      <Exchange drawn={drawn} name={name} />
      {result?.parent ? (
        <p>
          A correction of{" "}
          <button type="button" class="link" onClick={() => void show(result.parent!)}>
            an earlier result
          </button>
          .
        </p>
      ) : null}
    </section>
  );
}

/** Annotations come and go as QuPath has them. */
function Exchange({ drawn, name }: { drawn: Shape[]; name: string }) {
  const read = async (file: File | undefined) => {
    if (!file) return;
    try {
      if (file.size > 20 * 2 ** 20) throw new Error("the file is larger than 20 MB");
      const found = fromGeoJson(JSON.parse(await file.text()));
      if (!found.length) throw new Error("it holds no polygon, rectangle or point");
      setShapes([...shapes.value, ...found]);
    } catch (error) {
      problem.value = { code: "invalid_argument", message: `${file.name} cannot be used: ${(error as Error).message}.` };
    }
  };
  return (
    <details>
      <summary>GeoJSON (QuPath)</summary>
      <label>
        Open annotations
        <input type="file" accept=".geojson,.json" onChange={(event) => void read(event.currentTarget.files?.[0])} />
      </label>
      <button
        type="button"
        disabled={!drawn.length}
        onClick={() => save(new Blob([JSON.stringify(toGeoJson(drawn, name), null, 1)], { type: "application/geo+json" }), "drawn.geojson")}
      >
        Save what was drawn
      </button>
    </details>
  );
}

export function save(content: Blob, name: string): void {
  if (backend.value?.save) {
    backend.value.save(content, name).catch((error: Error) => (problem.value = { code: "error", message: error.message }));
    return;
  }
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

export function toGeoJson(drawn: Shape[], name: string): object {
  const features = drawn.map((shape) => {
    const [x0, y0, x1, y1] = boxOf(shape) as [number, number, number, number];
    const corners = shape.kind === "box" ? [[x0, y0], [x1, y0], [x1, y1], [x0, y1]] : shape.points;
    const geometry =
      shape.kind === "point"
        ? { type: "Point", coordinates: shape.points[0] }
        : { type: "Polygon", coordinates: [[...corners, corners[0]]] };
    const classification = { name: shape.is ? name || "this" : `not ${name || "this"}` };
    return { type: "Feature", geometry, properties: { objectType: "annotation", classification } };
  });
  return { type: "FeatureCollection", features };
}

interface Feature {
  geometry?: { type?: string; coordinates?: unknown };
  properties?: { classification?: { name?: unknown } | null } | null;
}

const MOST_SHAPES = 500;

/** A class "not …" or "Ignore…" is one of "not this". */
export function fromGeoJson(content: unknown): Shape[] {
  const collection = content as { features?: unknown };
  const features = (Array.isArray(content) ? content : Array.isArray(collection?.features) ? collection.features : [content]) as Feature[];
  const found: Shape[] = [];
  for (const { geometry, properties } of features.slice(0, MOST_SHAPES)) {
    const is = !/^(not |ignore)/i.test(String(properties?.classification?.name ?? ""));
    const polygons =
      geometry?.type === "Polygon" ? [geometry.coordinates] : geometry?.type === "MultiPolygon" ? (geometry.coordinates as unknown[]) : [];
    for (const polygon of polygons as unknown[][]) {
      const ring = (polygon?.[0] as unknown[] | undefined)?.filter(isPoint).map(([x, y]) => [x, y] as [number, number]) ?? [];
      if (ring.length > 3) found.push({ is, kind: "polygon", points: ring.slice(0, -1) });
    }
    if (geometry?.type === "Point" && isPoint(geometry.coordinates)) found.push({ is, kind: "point", points: [geometry.coordinates] });
  }
  return found.slice(0, MOST_SHAPES);
}

function isPoint(value: unknown): value is [number, number] {
  return Array.isArray(value) && Number.isFinite(value[0]) && Number.isFinite(value[1]);
}
