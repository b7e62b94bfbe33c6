// Work that takes a while: asked for, followed as a job where it becomes one, cancelled, found again after a reload.

import { signal } from "@preact/signals";
import { Refused, type Backend } from "./backend";
import { recall, remember } from "./kept";
import { keepWords } from "./opening";
import { backend, problem } from "./state";
import type { JobStatus, SegmentResult } from "./types";

export interface Work {
  number: number;
  title: string;
  words: string;
  jobId: string | null;
  state: "running" | "done" | "failed" | "cancelled";
  share: number;
  what: string;
  resultId: string | null;
  problem: string | null;
  stop: () => void;
}

export const work = signal<Work[]>([]);
const KEPT = "tissuetalk.jobs";
const LOOK_EVERY_MS = 1000;
let last = 0;

function change(number: number, to: Partial<Work>): void {
  work.value = work.value.map((each) => (each.number === number ? { ...each, ...to } : each));
  const running = work.value.filter((each) => each.jobId && each.state === "running");
  remember(KEPT, JSON.stringify(running.map((each) => ({ jobId: each.jobId, title: each.title }))));
}

function begin(title: string, words: string, jobId: string | null): Work {
  const one: Work = {
    number: ++last,
    title,
    words,
    jobId,
    state: "running",
    share: 0,
    what: "",
    resultId: null,
    problem: null,
    stop: () => {},
  };
  work.value = [one, ...work.value].slice(0, 20);
  return one;
}

/** Calls segment and follows it to its end. Gives the id of the result, or null when it was cancelled. */
export async function segment(title: string, words: string, args: Record<string, unknown>): Promise<string | null> {
  const asked = backend.value!;
  const one = begin(title, words, null);
  const stop = new AbortController();
  change(one.number, { stop: () => stop.abort() });
  try {
    const answer = await asked.call(
      "segment",
      args,
      (share, what) => change(one.number, { share, what }),
      stop.signal,
    );
    const result = answer.structured as unknown as SegmentResult;
    if (result.result_id) return done(one.number, words, result.result_id);
    if (!result.job_id) throw new Refused("error", answer.text);
    change(one.number, { jobId: result.job_id });
    return await follow(asked, one.number, words, result.job_id);
  } catch (error) {
    return ended(one.number, error, stop.signal.aborted);
  }
}

async function follow(asked: Backend, number: number, words: string, jobId: string): Promise<string | null> {
  const cancel = () => {
    change(number, { what: "stopping" });
    void asked.call("job", { job_id: jobId, action: "cancel" }).catch(() => {});
  };
  change(number, { stop: cancel });
  let silent = 0;
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS * Math.min(1 + silent, 10)));
    let status: JobStatus;
    try {
      status = (await asked.call("job", { job_id: jobId, action: "status" })).structured as unknown as JobStatus;
      silent = 0;
    } catch (error) {
      // a server that is being started again goes on with the job
      if (error instanceof Refused && error.code !== "unreachable" && error.code !== "busy") throw error;
      silent++;
      change(number, { what: "the server does not answer; trying again" });
      continue;
    }
    const place = status.queue_place ? `queued at place ${status.queue_place}` : "";
    const left = status.eta_s ? `about ${Math.ceil(status.eta_s)} s left` : "";
    const early = status.preliminary?.findings.map((each) => each.statement).join(" ") ?? "";
    change(number, { share: status.progress, what: [place, left, early].filter(Boolean).join(". ") });
    if (status.state === "done" && status.result?.result_id) return done(number, words, status.result.result_id);
    if (status.state === "failed") throw new Refused(status.error?.code ?? "error", status.error?.message ?? "It failed.");
    if (status.state === "cancelled") return ended(number, null, true);
  }
}

function done(number: number, words: string, resultId: string): string {
  if (words) keepWords(resultId, words);
  change(number, { state: "done", share: 1, what: "", resultId });
  return resultId;
}

function ended(number: number, error: unknown, cancelled: boolean): null {
  if (cancelled) change(number, { state: "cancelled", what: "", problem: null });
  else {
    const said = error as { code?: string; message: string };
    change(number, { state: "failed", what: "", problem: said.message });
    problem.value = { code: said.code ?? "error", message: said.message };
  }
  return null;
}

/** Jobs this browser had asked for before the page was loaded again. */
export function takeUpJobs(): void {
  let kept: { jobId: string; title: string }[] = [];
  try {
    kept = JSON.parse(recall(KEPT) ?? "[]");
  } catch {
    // not ours, or half-written
  }
  for (const { jobId, title } of Array.isArray(kept) ? kept : []) {
    if (typeof jobId !== "string" || work.value.some((each) => each.jobId === jobId)) continue;
    const one = begin(String(title), "", jobId);
    follow(backend.value!, one.number, "", jobId).catch((error) => ended(one.number, error, false));
  }
}
