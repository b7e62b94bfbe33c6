// Explanations as layers: where answers to other wordings and changed pictures differ, and what was said about it.

import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { stageRef } from "./controls";
import type { View } from "./layer";
import { about, backend } from "./state";
import type { Box } from "./types";

interface Stability {
  mask_id: string;
  name: string;
  statement: string;
  checked_region: Box | null;
  map: string | null;
}

interface Explained {
  evidence: { statement: string }[];
  meanings: { name: string; what: string; looks_like: string }[];
  observations?: { statement: string }[];
  stability: Stability[];
  picture: string | null;
  notice: string;
}

const QUESTIONS = ["How reliable is it?", "What does it mean?", "What else is there?", "Which words led to which mask?"];
const question = signal(QUESTIONS[0]!);
const answer = signal<{ resultId: string; explained: Explained; text: string } | null>(null);
const waiting = signal("");
const failed = signal("");
const layer = signal<{ maskId: string; picture: HTMLCanvasElement; box: Box } | null>(null);
const strength = signal(0.8);

async function ask(): Promise<void> {
  const asked = backend.value!;
  const resultId = about.value!.result.result_id;
  failed.value = "";
  waiting.value = "looking";
  try {
    const done = await asked.call("explain", { result_id: resultId, question: question.value }, (share) => {
      waiting.value = `${Math.round(100 * share)} %`;
    });
    let explained = done.structured as unknown as Explained & { job_id?: string | null };
    let text = done.text;
    while (explained.job_id) {
      const { job_id } = explained;
      await new Promise((resolve) => setTimeout(resolve, 1000));
      const status = await asked.call("job", { job_id, action: "wait" });
      const said = status.structured as unknown as { state: string; progress: number; result: Explained | null; error: { message: string } | null };
      waiting.value = `${Math.round(100 * said.progress)} %`;
      if (said.state === "done" && said.result) [explained, text] = [said.result, status.text];
      else if (said.state !== "running" && said.state !== "queued") throw new Error(said.error?.message ?? "It was cancelled.");
    }
    answer.value = { resultId, explained, text };
  } catch (error) {
    failed.value = (error as Error).message;
  } finally {
    waiting.value = "";
  }
}

/** 0 where all agree stays clear; where they split in half it is full. */
async function showMap(one: Stability): Promise<void> {
  if (!one.map || !one.checked_region || layer.value?.maskId === one.mask_id) {
    layer.value = null;
    return;
  }
  try {
    const path = one.map.replace(/^result:\/\/[^/]+\//, "");
    const bitmap = await createImageBitmap(await backend.value!.file(about.value!.result.result_id, path));
    const picture = document.createElement("canvas");
    [picture.width, picture.height] = [bitmap.width, bitmap.height];
    const context = picture.getContext("2d", { willReadFrequently: true })!;
    context.drawImage(bitmap, 0, 0);
    const pixels = context.getImageData(0, 0, picture.width, picture.height);
    for (let at = 0; at < pixels.data.length; at += 4) {
      const split = pixels.data[at]!;
      pixels.data.set([255, Math.max(0, 200 - split), 0, Math.min(255, split * 1.3)], at);
    }
    context.putImageData(pixels, 0, 0);
    layer.value = { maskId: one.mask_id, picture, box: one.checked_region };
  } catch (error) {
    failed.value = (error as Error).message;
  }
}

function draw(context: CanvasRenderingContext2D, view: View): void {
  if (!layer.value) return;
  const { picture, box } = layer.value;
  const [x0, y0, x1, y1] = box;
  context.save();
  context.globalAlpha = strength.value;
  context.setTransform(...view.toScreen);
  context.drawImage(picture, x0, y0, x1 - x0, y1 - y0);
  context.restore();
}

export function Evidence() {
  const stage = stageRef.value;
  const result = about.value?.result;
  useEffect(() => {
    if (!stage) return;
    stage.extras.unshift(draw);
    const stops = [layer.subscribe(() => stage.redraw()), strength.subscribe(() => stage.redraw())];
    return () => {
      stops.forEach((stop) => stop());
      stage.extras.splice(stage.extras.indexOf(draw), 1);
    };
  }, [stage]);
  useEffect(() => {
    layer.value = null;
  }, [result?.result_id]);
  if (!result?.masks.length) return null;
  const explained = answer.value?.resultId === result.result_id ? answer.value.explained : null;
  return (
    <details class="evidence">
      <summary>Explain</summary>
      <div class="line">
        <select aria-label="Question" value={question.value} onChange={(event) => (question.value = event.currentTarget.value)}>
          {QUESTIONS.map((each) => (
            <option key={each}>{each}</option>
          ))}
        </select>
        <button type="button" disabled={!!waiting.value} onClick={() => void ask()}>
          {waiting.value || "Ask"}
        </button>
      </div>
      {failed.value ? <p class="wrong">{failed.value}</p> : null}
      {explained ? (
        <ul class="plain">
          {explained.evidence.map((each) => (
            <li key={each.statement}>{each.statement}</li>
          ))}
          {explained.meanings.map((each) => (
            <li key={each.name}>
              <strong>{each.name}</strong>: {each.what} {each.looks_like}
            </li>
          ))}
          {(explained.observations ?? []).map((each) => (
            <li key={each.statement}>{each.statement}</li>
          ))}
          {explained.stability.map((each) => (
            <li key={each.mask_id}>
              {each.statement}{" "}
              {each.map ? (
                <button type="button" aria-pressed={layer.value?.maskId === each.mask_id} onClick={() => void showMap(each)}>
                  Where answers differ
                </button>
              ) : null}
            </li>
          ))}
        </ul>
      ) : null}
      {layer.value ? (
        <label>
          strength
          <input type="range" min="0.1" max="1" step="0.05" value={strength.value} onInput={(event) => (strength.value = Number(event.currentTarget.value))} />
        </label>
      ) : null}
    </details>
  );
}
