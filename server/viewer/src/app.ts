// The page inside a chat (MCP Apps): the host tells it what was asked and answered, and brings what it draws.

import { App, PostMessageTransport, type McpUiHostContext } from "@modelcontextprotocol/ext-apps";
import { signal } from "@preact/signals";
import { z } from "zod";
import { toolAnswer, Refused, type Backend, type Progress } from "./backend";
import { stageRef } from "./controls";
import { openImage, openResult } from "./opening";
import { about, activeMask, backend, busy, foundMasks, image, nameOf, note, picked, problem, setLook, theme, words } from "./state";
import type { AboutImage, AboutResult, Box, ObjectColumns, ObjectRow, Place, ToolAnswer } from "./types";

type Arguments = Record<string, unknown>;
type ToolResult = { content?: { type: string; text?: string }[]; structuredContent?: unknown; isError?: boolean };

interface Part {
  media: string;
  data: string;
  size_bytes: number;
  next_offset: number | null;
}

interface Look {
  number: number;
  region: Box | null;
  mask_ids: string[] | null;
}

/** As the host shows the page: beside the conversation, or on the whole screen. */
export const mode = signal<"inline" | "fullscreen" | "pip">("inline");
export const modes = signal<string[]>([]);

const CALL_MS = 10 * 60_000;
const MOST_TILES = 100;
const FIRST_LOOK_MS = 4_000;
const LAST_LOOK_MS = 120_000;

export class AppBackend implements Backend {
  readonly kind = "app" as const;
  /** The small picture in the corner asks for the same ones, and hosts record every question. */
  private readonly tiles = new Map<string, Promise<Blob | null>>();

  constructor(private readonly app: App) {}

  aboutImage(name: string): Promise<AboutImage> {
    return this.described({ what: "image", image: name });
  }

  aboutResult(resultId: string): Promise<AboutResult> {
    return this.described({ what: "result", result_id: resultId });
  }

  imageTile(imageId: string, at: Place, signal: AbortSignal): Promise<Blob | null> {
    const key = `${imageId}/${at.z}/${at.x}/${at.y}`;
    const known = this.tiles.get(key);
    if (known) return known;
    const tile = this.blob({ what: "image_tile", image: imageId, tile: [at.z, at.x, at.y] }, signal);
    this.tiles.set(key, tile);
    tile.catch(() => this.tiles.delete(key));
    if (this.tiles.size > MOST_TILES) this.tiles.delete(this.tiles.keys().next().value!);
    return tile;
  }

  coverTile(resultId: string, maskId: string, at: Place, signal: AbortSignal): Promise<Blob | null> {
    return this.blob({ what: "cover", result_id: resultId, mask_id: maskId, tile: [at.z, at.x, at.y] }, signal);
  }

  async objectTile(resultId: string, maskId: string, at: Place, signal: AbortSignal): Promise<ArrayBuffer | null> {
    const asked = { what: "outlines", result_id: resultId, mask_id: maskId, tile: [at.z, at.x, at.y] };
    const { bytes } = await this.brought(asked, signal);
    return bytes.length ? bytes.buffer : null;
  }

  objects(resultId: string, maskId: string, columns: string[]): Promise<ObjectColumns> {
    return this.described({ what: "objects", result_id: resultId, mask_id: maskId, columns });
  }

  objectRow(resultId: string, maskId: string, id: number, near: [number, number]): Promise<ObjectRow> {
    return this.described({ what: "object", result_id: resultId, mask_id: maskId, number: id, near });
  }

  async file(resultId: string, path: string): Promise<Blob> {
    return (await this.blob({ what: "file", result_id: resultId, path })) ?? new Blob();
  }

  look(resultId: string): Promise<Look> {
    return this.described({ what: "look", result_id: resultId });
  }

  async call(tool: string, args: Arguments, progress?: Progress, stop?: AbortSignal): Promise<ToolAnswer> {
    return toolAnswer({ result: await this.asked(tool, args, stop, progress) });
  }

  /** A page in a frame may save nothing by itself. */
  async save(content: Blob, name: string): Promise<void> {
    const bytes = new Uint8Array(await content.arrayBuffer());
    let text = "";
    for (let at = 0; at < bytes.length; at += 0x8000) text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
    const resource = { uri: `file:///${name}`, mimeType: content.type, blob: btoa(text) };
    const { isError } = await this.app.downloadFile({ contents: [{ type: "resource", resource }] });
    if (isError) throw new Refused("error", "The chat did not save the file.");
  }

  /** As if the person had typed it: the assistant answers. */
  async tell(text: string): Promise<void> {
    const { isError } = await this.app.sendMessage({ role: "user", content: [{ type: "text", text }] });
    if (isError) throw new Refused("error", "The chat did not take the message; type it yourself.");
  }

  /** What the assistant knows of the view when it is next asked something. */
  async show(text: string): Promise<void> {
    if (this.app.getHostCapabilities()?.updateModelContext) await this.app.updateModelContext({ content: [{ type: "text", text }] });
  }

  private async blob(asked: Arguments, signal?: AbortSignal): Promise<Blob | null> {
    const { bytes, media } = await this.brought(asked, signal);
    return bytes.length ? new Blob([bytes], { type: media }) : null;
  }

  private async described<T>(asked: Arguments): Promise<T> {
    return JSON.parse(new TextDecoder().decode((await this.brought(asked)).bytes)) as T;
  }

  /** All parts of it. */
  private async brought(asked: Arguments, signal?: AbortSignal): Promise<{ bytes: Uint8Array<ArrayBuffer>; media: string }> {
    let bytes: Uint8Array<ArrayBuffer> | null = null;
    for (let offset: number | null = 0; offset !== null; ) {
      const answer = toolAnswer({ result: await this.asked("viewer", { ...asked, offset }, signal) });
      const part = answer.structured as unknown as Part;
      bytes ??= new Uint8Array(part.size_bytes);
      const text = atob(part.data);
      for (let at = 0; at < text.length; at++) bytes[offset + at] = text.charCodeAt(at);
      offset = part.next_offset;
      if (offset === null) return { bytes, media: part.media };
    }
    throw new Refused("error", "nothing was brought");
  }

  private async asked(
    tool: string,
    args: Arguments,
    signal?: AbortSignal,
    progress?: Progress,
  ): Promise<ToolResult> {
    const options = {
      timeout: CALL_MS,
      ...(signal && { signal }),
      ...(progress && { onprogress: (at: { progress: number; message?: string }) => progress(at.progress, at.message ?? "") }),
    };
    try {
      return (await this.app.callServerTool({ name: tool, arguments: args }, options)) as ToolResult;
    } catch (error) {
      if (signal?.aborted) throw new DOMException("no longer needed", "AbortError");
      throw new Refused("unreachable", `The chat could not bring it: ${(error as Error).message}`);
    }
  }
}

/** Connects to the host; the page is drawn when something is known to be shown. */
export async function startApp(): Promise<void> {
  document.documentElement.dataset.kind = "app";
  const app = new App({ name: "tissuetalk viewer", version: "1" }, { tools: {}, availableDisplayModes: ["inline", "fullscreen"] });
  const brought = new AppBackend(app);
  backend.value = brought;
  note.value = "Waiting for the answer…";
  const one = new Conversation(brought);
  app.ontoolinput = ({ arguments: given }) => one.asked(given ?? {});
  app.ontoolresult = (answer) => void one.answered(answer as ToolResult);
  app.ontoolcancelled = () => (note.value = "The work was cancelled.");
  app.onhostcontextchanged = wear;
  app.onteardown = async () => {
    one.close();
    return {};
  };
  offerLook(app);
  await app.connect(new PostMessageTransport(window.parent, window.parent));
  wear(app.getHostContext() ?? {});
  askMode = async (wanted) => {
    wear({ displayMode: (await app.requestDisplayMode({ mode: wanted })).mode });
  };
}

export let askMode: (wanted: "inline" | "fullscreen") => Promise<void> = async () => {};

function wear(context: Partial<McpUiHostContext>): void {
  if (context.theme) theme.value = context.theme;
  if (context.displayMode) mode.value = context.displayMode;
  if (context.availableDisplayModes) modes.value = context.availableDisplayModes;
  const fixed = context.containerDimensions && "height" in context.containerDimensions;
  document.documentElement.dataset.mode = fixed ? "fullscreen" : mode.value;
}

/** Hosts that let an assistant call a page's own tools need no asking again and again. */
function offerLook(app: App): void {
  const pixel = z.number().min(-1e9).max(1e9);
  const inputSchema = z.object({
    region: z.array(pixel).length(4).describe("[x0, y0, x1, y1] in full-resolution pixels"),
    mask_ids: z.array(z.string().max(100)).max(200).optional().describe("Masks to show; all that are shown when left out"),
  });
  const description = "Move the viewer that the person sees to a region, and show only some masks there.";
  app.registerTool("look_here", { title: "Look here", description, inputSchema }, async ({ region, mask_ids }) => {
    if (!about.value && !image.value) return { content: [{ type: "text", text: "the viewer shows nothing yet" }], isError: true };
    follow({ number: 0, region: region as Box, mask_ids: mask_ids ?? null });
    return { content: [{ type: "text", text: `the viewer shows ${region.join(", ")}` }] };
  });
}

function whenOpen(then: () => void): void {
  const stage = stageRef.value;
  if (!stage) return;
  // a handler of "open" runs before the picture lies where it will
  if (stage.view) then();
  else stage.osd.addOnceHandler("open", () => requestAnimationFrame(then));
}

function follow(look: Look): void {
  if (look.mask_ids) for (const mask of foundMasks.value) setLook(mask.mask_id, { shown: look.mask_ids.includes(mask.mask_id) });
  if (look.region) stageRef.value?.fit(look.region);
}

/** What the host told: the call, then its answer; and where the assistant looks afterwards. */
class Conversation {
  private given: Arguments = {};
  private seen = 0;
  private timer = 0;
  private pause = FIRST_LOOK_MS;
  private following = "";

  constructor(private readonly brought: AppBackend) {
    about.subscribe((value) => value && this.followLooks(value.result.result_id));
    picked.subscribe(() => this.say());
    activeMask.subscribe(() => this.say());
    for (const name of ["pointerdown", "keydown"]) window.addEventListener(name, () => this.soon(), true);
    document.addEventListener("visibilitychange", () => this.soon());
  }

  asked(given: Arguments): void {
    this.given = given;
    if (typeof given.words === "string") words.value = given.words;
    // while the work goes on there is already something to look at
    const { image: name, result_id: resultId } = given;
    if (typeof resultId === "string") void this.open(() => openResult(resultId));
    else if (typeof name === "string") void this.open(() => openImage(name));
  }

  async answered(answer: ToolResult): Promise<void> {
    try {
      const { structured } = toolAnswer({ result: answer });
      const found = structured.job_id && !structured.result_id ? await this.awaited(String(structured.job_id)) : structured;
      const resultId = found?.result_id ?? this.given.result_id;
      const imageInfo = found?.image as { image_id?: string } | undefined;
      const said = words.value;
      if (typeof resultId === "string" && about.value?.result.result_id !== resultId) await this.open(() => openResult(resultId));
      else if (typeof resultId !== "string" && imageInfo?.image_id) {
        const uri = `image://${imageInfo.image_id}`;
        if (image.value?.image_id !== imageInfo.image_id) await this.open(() => openImage(uri));
      }
      words.value ||= said;
      const { region = null, mask_ids = null } = this.given as { region?: Box | null; mask_ids?: string[] | null };
      if (region || mask_ids) whenOpen(() => follow({ number: 0, region, mask_ids }));
      if (note.value === "Waiting for the answer…") note.value = "";
    } catch (error) {
      complain(error);
    }
  }

  close(): void {
    clearTimeout(this.timer);
    this.following = "";
  }

  private async open(work: () => Promise<void>): Promise<void> {
    try {
      await work();
      note.value = "";
    } catch (error) {
      complain(error);
    }
  }

  /** The answer of long work. The host records every question, so each waits as long as the server lets it. */
  private async awaited(jobId: string): Promise<Record<string, unknown> | null> {
    for (;;) {
      const { structured } = await this.brought.call("job", { job_id: jobId, action: "wait" });
      const share = Math.round(100 * Number(structured.progress ?? 0));
      busy.value = `${String(structured.state)}, ${share} %`;
      note.value = `The work goes on: ${share} % done.`;
      if (structured.state === "queued" || structured.state === "running") continue;
      busy.value = note.value = "";
      if (structured.state === "done") return structured.result as Record<string, unknown>;
      const why = structured.error as { code: string; message: string } | null;
      throw new Refused(why?.code ?? "cancelled", why?.message ?? "The work was cancelled.");
    }
  }

  /** Asks now and then where the assistant looks: less and less often, and not at all while nobody sees the page. */
  private followLooks(resultId: string): void {
    const first = this.following !== resultId;
    this.following = resultId;
    if (first) void this.brought.look(resultId).then((look) => (this.seen = look.number), () => undefined);
    this.soon();
  }

  private soon(): void {
    this.pause = FIRST_LOOK_MS;
    this.wait();
  }

  private wait(): void {
    clearTimeout(this.timer);
    if (!this.following || document.hidden) return;
    this.timer = window.setTimeout(() => void this.ask(), this.pause);
    this.pause = Math.min(LAST_LOOK_MS, this.pause * 2);
  }

  private async ask(): Promise<void> {
    try {
      const look = await this.brought.look(this.following);
      if (look.number > this.seen) {
        this.seen = look.number;
        this.pause = FIRST_LOOK_MS;
        follow(look);
      }
    } catch {
      // asked again later; what is wrong is said when something is drawn
    }
    this.wait();
  }

  private told = "";

  private say(): void {
    const text = selection();
    if (text === this.told || !about.value) return;
    this.told = text;
    void this.brought.show(text).catch(() => undefined);
  }
}

/** What is selected, in words and numbers an assistant can pass on. */
export function selection(): string {
  const result = about.value?.result;
  if (!result) return "";
  const where = `In the viewer of result ${result.result_id} (image://${result.image.image_id})`;
  const one = picked.value;
  if (one) {
    const [x, y] = one.at.map(Math.round);
    return `${where} the person selected object ${one.id} of mask ${one.mask.mask_id} (${nameOf(one.mask)}) at pixel [${x}, ${y}].`;
  }
  const mask = foundMasks.value.find((each) => each.mask_id === activeMask.value);
  return mask ? `${where} the person selected mask ${mask.mask_id} (${nameOf(mask)}).` : `${where} nothing is selected.`;
}

function complain(error: unknown): void {
  const said = error instanceof Refused ? error : new Refused("error", (error as Error).message);
  problem.value = { code: said.code, message: said.message };
  note.value = "";
}
