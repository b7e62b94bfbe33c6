// Another result beside this one: a line to swipe, this result on its left, the other on its right.

import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { stageRef } from "./controls";
import { about, backend } from "./state";
import type { AboutResult, ListedResult } from "./types";

export const other = signal<AboutResult | null>(null);
/** 0..1 of the width. */
export const swipe = signal(0.5);
const choices = signal<ListedResult[]>([]);
const failed = signal("");

async function list(): Promise<void> {
  const here = about.value!.result;
  try {
    const { structured } = await backend.value!.call("library", { action: "results" });
    const found = structured.results as ListedResult[];
    choices.value = found.filter((each) => each.image_id === here.image.image_id && each.result_id !== here.result_id && !each.problem);
    failed.value = choices.value.length ? "" : "There is no other result of this image.";
  } catch (error) {
    failed.value = (error as Error).message;
  }
}

async function beside(resultId: string): Promise<void> {
  try {
    other.value = resultId ? await backend.value!.aboutResult(resultId) : null;
    failed.value = "";
  } catch (error) {
    failed.value = (error as Error).message;
  }
}

export function Compare() {
  const result = about.value?.result;
  useEffect(() => {
    other.value = null;
    choices.value = [];
  }, [result?.result_id]);
  if (!result) return null;
  return (
    <details class="compare" onToggle={(event) => (event.currentTarget.open ? void list() : (other.value = null))}>
      <summary>Compare with another result</summary>
      {result.parent ? (
        <button type="button" onClick={() => void beside(result.parent!)}>
          Before the correction
        </button>
      ) : null}
      {choices.value.length ? (
        <select aria-label="Other result" value={other.value?.result.result_id ?? ""} onChange={(event) => void beside(event.currentTarget.value)}>
          <option value="">none</option>
          {choices.value.map((each) => (
            <option key={each.result_id} value={each.result_id}>
              {each.masks.join(", ") || "no masks"}, {new Date(each.created_at).toLocaleString()}
            </option>
          ))}
        </select>
      ) : null}
      {failed.value ? <p class="hint">{failed.value}</p> : null}
    </details>
  );
}

export function Swipe() {
  const stage = stageRef.value;
  useEffect(() => {
    stage?.showOther(other.value);
  }, [stage, other.value]);
  useEffect(() => {
    if (stage) stage.swipe = other.value ? swipe.value : null;
    stage?.redraw();
  }, [stage, other.value, swipe.value]);
  if (!other.value) return null;
  return (
    <div class="swipe">
      <span>this result</span>
      <input
        type="range"
        min="0"
        max="1"
        step="0.01"
        value={swipe.value}
        aria-label="Where this result ends and the other one begins"
        onInput={(event) => (swipe.value = Number(event.currentTarget.value))}
      />
      <span>the other</span>
    </div>
  );
}
