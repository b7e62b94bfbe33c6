import { Ask, show } from "./ask";
import { stageRef } from "./controls";
import { Compare } from "./compare";
import { Evidence } from "./evidence";
import { Findings } from "./findings";
import { Jobs } from "./jobs";
import { Plots } from "./plots";
import { Sayings } from "./talk";
import { Teach } from "./teach";
import { about, activeMask, backend, colourOf, level, lookOf, masks, nameOf, picked, setLook } from "./state";
import type { Mask, ObjectRow } from "./types";

export function Panel() {
  const result = about.value?.result;
  return (
    <aside class="panel" aria-label="Masks and findings">
      {backend.value?.kind === "app" ? <Jobs open={(resultId) => void show(resultId)} /> : <Ask />}
      {result ? (
        <>
          <Findings />
          <Legend />
          <PickedObject />
          <Plots />
          <Evidence />
          <Compare />
          {result.not_segmented.length ? <Refused /> : null}
          {result.warnings.length || result.notes.length ? (
            <section>
              <h2>Notes</h2>
              <ul class="plain">
                {result.warnings.map((each) => (
                  <li key={each.code + each.message}>{each.message}</li>
                ))}
                {result.notes.map((each) => (
                  <li key={each}>{each}</li>
                ))}
              </ul>
            </section>
          ) : null}
        </>
      ) : null}
      <Teach />
      <p class="notice">Research use only. Masks and numbers are a model's output, not a diagnosis.</p>
    </aside>
  );
}

function Legend() {
  return (
    <section>
      <h2>Masks</h2>
      <ul class="legend">
        {masks.value.map((mask, number) => (
          <MaskRow key={mask.mask_id} mask={mask} number={number} />
        ))}
      </ul>
    </section>
  );
}

function MaskRow({ mask, number }: { mask: Mask; number: number }) {
  const look = lookOf(mask.mask_id);
  const name = nameOf(mask);
  const active = activeMask.value === mask.mask_id;
  const reliable = level(mask.reliability);
  return (
    <li class={`mask ${active ? "active" : ""} ${mask.found ? "" : "missing"} reliability-${reliable}`} data-mask={mask.mask_id}>
      <div class="line">
        {mask.found ? (
          <label class="swatch" title={look.shown ? `Hide ${name}` : `Show ${name}`}>
            <input
              type="checkbox"
              checked={look.shown}
              aria-label={`Show ${name}`}
              onChange={(event) => setLook(mask.mask_id, { shown: event.currentTarget.checked })}
            />
            <svg width="22" height="22" viewBox="0 0 22 22" aria-hidden="true">
              <rect x="2" y="2" width="18" height="18" rx="4" fill={look.shown ? colourOf(mask) : "none"} stroke={colourOf(mask)} stroke-width="3" />
            </svg>
          </label>
        ) : null}
        <button type="button" class="name" onClick={() => flyTo(mask)} disabled={!mask.bbox} title={mask.prompt}>
          {mask.found ? `${number + 1}. ` : ""}
          {name}
        </button>
        <span class="amount">{amountOf(mask)}</span>
      </div>
      {mask.found ? (
        <>
          <p class="sure">
            <span class={`badge ${reliable}`}>{sureness(mask)}</span>
            <meter min="0" max="1" value={mask.presence} aria-label={`Presence of ${name}`} title={`presence ${mask.presence.toFixed(2)}`} />
          </p>
          <div class="looks">
            <label>
              Fill
              <input
                type="range"
                min="0"
                max="1"
                step="0.05"
                value={look.fill}
                aria-label={`Fill of ${name}`}
                onInput={(event) => setLook(mask.mask_id, { fill: Number(event.currentTarget.value) })}
              />
            </label>
            <label>
              <input
                type="checkbox"
                checked={look.outline}
                onChange={(event) => setLook(mask.mask_id, { outline: event.currentTarget.checked })}
              />
              Outline
            </label>
          </div>
        </>
      ) : (
        <p class="sure">looked for, not found</p>
      )}
    </li>
  );
}

export function flyTo(mask: Mask): void {
  activeMask.value = mask.mask_id;
  if (mask.bbox) stageRef.value?.fit(mask.bbox);
}

export function amountOf(mask: Mask): string {
  if (!mask.found) return "";
  if (mask.count !== null) return `${mask.count.toLocaleString("en")}`;
  if (mask.area_um2 === null) return `${mask.area_px.toLocaleString("en")} px²`;
  return mask.area_um2 < 1e5 ? `${Math.round(mask.area_um2).toLocaleString("en")} µm²` : `${(mask.area_um2 / 1e6).toPrecision(3)} mm²`;
}

export function sureness(mask: Mask): string {
  const uncertain = mask.assertion === "uncertain" ? "uncertain in the words; " : "";
  switch (level(mask.reliability)) {
    case "high":
      return `${uncertain}reliability high`;
    case "medium":
      return `${uncertain}reliability medium`;
    case "low":
      return `${uncertain}low: look closely`;
    default:
      return `${uncertain}reliability not known`;
  }
}

function Refused() {
  return (
    <section>
      <h2>Not looked for</h2>
      <ul class="plain">
        {about.value!.result.not_segmented.map((each) => (
          <li key={each.evidence + each.code}>
            <strong>{each.free_form ?? each.label}</strong> ({each.code}): {forPeople(each.reason)}
            {each.nearest.length ? ` Known: ${each.nearest.join(", ")}.` : ""}
          </li>
        ))}
      </ul>
    </section>
  );
}

/** What an assistant would pass as arguments is drawn here. */
function forPeople(reason: string): string {
  return reason.replace(/show me some: examples=\[.*\]/, "draw some below, under “Point at it”");
}

const FIRST = ["area", "equivalent_diameter", "perimeter", "circularity", "solidity", "eccentricity"];

function PickedObject() {
  const one = picked.value;
  if (!one) return null;
  return (
    <section class="picked" aria-live="polite">
      <h2>
        {nameOf(one.mask)} {one.id}
      </h2>
      {one.problem ? <p>{one.problem}</p> : one.row ? <Numbers row={one.row} /> : <p>Reading its numbers…</p>}
      <Sayings />
    </section>
  );
}

/** In µm where there are such columns, else in pixels. */
function Numbers({ row }: { row: ObjectRow }) {
  const names = Object.keys(row).filter((name) => {
    if (/^(id|bbox_|centroid_)/.test(name)) return false;
    return !(name.endsWith("_px") && (`${name.slice(0, -2)}um` in row || `${name.slice(0, -2)}um2` in row));
  });
  const rank = (name: string) => {
    const at = FIRST.findIndex((each) => name.startsWith(each));
    return at < 0 ? FIRST.length : at;
  };
  names.sort((one, other) => rank(one) - rank(other));
  return (
    <table class="numbers">
      <tbody>
        {names.map((name) => (
          <tr key={name}>
            <th scope="row">{label(name)}</th>
            <td>{shownNumber(row[name] ?? null)}</td>
            <td>{unit(name)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

export function unit(name: string): string {
  const found = /_(um2|um|px|deg|od|bits)$/.exec(name)?.[1] ?? "";
  const units: Record<string, string> = { um2: "µm²", um: "µm", px: name.startsWith("area") ? "px²" : "px", deg: "°", od: "OD", bits: "bits" };
  return units[found] ?? "";
}

export function label(name: string): string {
  return name.replace(/_(um2|um|px|deg|od|bits)$/, "").replaceAll("_", " ");
}

function shownNumber(value: number | boolean | null): string {
  if (value === null) return "n/a";
  if (typeof value === "boolean") return value ? "yes" : "no";
  return Number.isInteger(value) ? value.toLocaleString("en") : String(Number(value.toPrecision(4)));
}
