// Where answers come from. As a page: addresses of this server. In a chat: tools called through the host (app.ts).

import type { AboutImage, AboutResult, ObjectColumns, ObjectRow, Place, ToolAnswer } from "./types";

export type Progress = (share: number, what: string) => void;

export interface Backend {
  readonly kind: "page" | "app";
  aboutImage(image: string): Promise<AboutImage>;
  aboutResult(resultId: string): Promise<AboutResult>;
  imageTile(imageId: string, at: Place, signal: AbortSignal): Promise<Blob | null>;
  coverTile(resultId: string, maskId: string, at: Place, signal: AbortSignal): Promise<Blob | null>;
  objectTile(resultId: string, maskId: string, at: Place, signal: AbortSignal): Promise<ArrayBuffer | null>;
  objects(resultId: string, maskId: string, columns: string[]): Promise<ObjectColumns>;
  objectRow(resultId: string, maskId: string, id: number, near: [number, number]): Promise<ObjectRow>;
  file(resultId: string, path: string): Promise<Blob>;
  /** stop: closing the request cancels the work. */
  call(tool: string, args: Record<string, unknown>, progress?: Progress, stop?: AbortSignal): Promise<ToolAnswer>;
  /** Where the page may not save files by itself. */
  save?(content: Blob, name: string): Promise<void>;
}

/** What went wrong, in the server's own words. code "entry": a token is needed first. */
export class Refused extends Error {
  constructor(
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

declare global {
  interface Window {
    /** What index.html asked for before this was read. */
    early?: { path: string; answer: Promise<Response> } | undefined;
  }
}

const PROTOCOL = "2026-07-28";

export class PageBackend implements Backend {
  readonly kind = "page" as const;
  private link = "";
  private imageLink = "";
  private asked = 0;

  constructor() {
    const query = new URLSearchParams(location.search);
    if (query.get("key")) this.link = `until=${query.get("until") ?? ""}&key=${query.get("key")}`;
  }

  async aboutImage(image: string): Promise<AboutImage> {
    return (await this.get(`/look/image?image=${encodeURIComponent(image)}`)).json();
  }

  async aboutResult(resultId: string): Promise<AboutResult> {
    const about: AboutResult = await (await this.get(this.signed(`/look/result/${seg(resultId)}`))).json();
    this.imageLink = about.image_link ?? "";
    return about;
  }

  async imageTile(imageId: string, at: Place, signal: AbortSignal): Promise<Blob | null> {
    const address = `/tiles/image/${seg(imageId)}/${at.z}/${at.x}/${at.y}`;
    return (await this.get(this.imageLink ? `${address}?${this.imageLink}` : address, signal)).blob();
  }

  async coverTile(resultId: string, maskId: string, at: Place, signal: AbortSignal): Promise<Blob | null> {
    const path = `/tiles/cover/${seg(resultId)}/${seg(maskId)}/${at.z}/${at.x}/${at.y}`;
    const answer = await this.get(this.signed(path), signal);
    return answer.status === 204 ? null : answer.blob();
  }

  async objectTile(resultId: string, maskId: string, at: Place, signal: AbortSignal): Promise<ArrayBuffer | null> {
    const path = `/tiles/objects/${seg(resultId)}/${seg(maskId)}/${at.z}/${at.x}/${at.y}`;
    const answer = await this.get(this.signed(path), signal);
    return answer.status === 204 ? null : answer.arrayBuffer();
  }

  async objects(resultId: string, maskId: string, columns: string[]): Promise<ObjectColumns> {
    const query = columns.map((name) => `column=${encodeURIComponent(name)}`).join("&");
    return (await this.get(this.signed(`/look/objects/${seg(resultId)}/${seg(maskId)}`, query))).json();
  }

  async objectRow(resultId: string, maskId: string, id: number, near: [number, number]): Promise<ObjectRow> {
    const query = `x=${near[0]}&y=${near[1]}`;
    return (await this.get(this.signed(`/look/object/${seg(resultId)}/${seg(maskId)}/${id}`, query))).json();
  }

  async file(resultId: string, path: string): Promise<Blob> {
    return (await this.get(this.signed(`/files/${seg(resultId)}/${path.split("/").map(seg).join("/")}`))).blob();
  }

  async call(tool: string, args: Record<string, unknown>, progress?: Progress, stop?: AbortSignal): Promise<ToolAnswer> {
    const id = ++this.asked;
    const meta = {
      "io.modelcontextprotocol/protocolVersion": PROTOCOL,
      "io.modelcontextprotocol/clientInfo": { name: "tissuetalk-viewer", version: "1" },
      "io.modelcontextprotocol/clientCapabilities": {},
      progressToken: id,
    };
    const body = { jsonrpc: "2.0", id, method: "tools/call", params: { name: tool, arguments: args, _meta: meta } };
    const answer = await this.asked_(
      fetch("/mcp", {
        method: "POST",
        headers: {
          "Content-Type": "application/json",
          Accept: "application/json, text/event-stream",
          "MCP-Protocol-Version": PROTOCOL,
          "Mcp-Method": "tools/call",
          "Mcp-Name": tool,
        },
        body: JSON.stringify(body),
        signal: stop ?? null,
      }),
    );
    return toolAnswer(await finalMessage(answer, id, progress));
  }

  /** Uploads an image; share is 0..1 of what was sent. */
  upload(file: File, sent: (share: number) => void): { done: Promise<{ image: string }>; cancel: () => void } {
    const request = new XMLHttpRequest();
    const done = new Promise<{ image: string }>((resolve, reject) => {
      request.open("PUT", "/images");
      request.upload.onprogress = (event) => event.lengthComputable && sent(event.loaded / event.total);
      request.onerror = () => reject(new Refused("unreachable", "The server cannot be reached; is it still running?"));
      request.onabort = () => reject(new Refused("cancelled", "The upload was cancelled."));
      request.onload = () => {
        if (request.status === 201) resolve(JSON.parse(request.responseText));
        else reject(refusedBy(request.status, request.responseText));
      };
      request.send(file);
    });
    return { done, cancel: () => request.abort() };
  }

  /** An address of a result's page that needs no token for a while. */
  async share(resultId: string): Promise<string> {
    const answer = await this.asked_(fetch(`/share/${seg(resultId)}`, { method: "POST" }));
    return new URL((await answer.json()).address, location.origin).href;
  }

  /** Trades a token for a cookie. */
  async enter(token: string): Promise<void> {
    await this.asked_(fetch("/enter", { method: "POST", headers: { Authorization: `Bearer ${token}` } }));
  }

  private signed(path: string, query = ""): string {
    const all = [query, this.link].filter(Boolean).join("&");
    return all ? `${path}?${all}` : path;
  }

  private get(path: string, signal?: AbortSignal): Promise<Response> {
    const { early } = window;
    if (early?.path !== path) return this.asked_(fetch(path, { signal: signal ?? null }));
    window.early = undefined;
    return this.asked_(early.answer);
  }

  private async asked_(request: Promise<Response>): Promise<Response> {
    let answer: Response;
    try {
      answer = await request;
    } catch (error) {
      if (error instanceof DOMException && error.name === "AbortError") throw error;
      throw new Refused("unreachable", "The server cannot be reached; is it still running?");
    }
    if (!answer.ok) throw refusedBy(answer.status, await answer.text());
    return answer;
  }
}

function refusedBy(status: number, text: string): Refused {
  if (status === 401) return new Refused("entry", "This server asks for its token.");
  try {
    const said = JSON.parse(text);
    const message = said.message ?? said.error?.message ?? said.error;
    return new Refused(said.message ? said.error : "error", String(message));
  } catch {
    return new Refused("error", `The server answered with status ${status}.`);
  }
}

const seg = encodeURIComponent;

interface RpcMessage {
  id?: number;
  method?: string;
  params?: { progress?: number; message?: string };
  result?: { content?: { type: string; text?: string }[]; structuredContent?: unknown; isError?: boolean };
  error?: { message: string };
}

/** The answer with our id: the body itself, or the last event of a stream that also reports progress. */
async function finalMessage(answer: Response, id: number, progress?: Progress): Promise<RpcMessage> {
  if (!answer.headers.get("content-type")?.includes("event-stream")) return answer.json();
  const reader = answer.body!.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Refused("unreachable", "The server ended the connection before it had answered.");
    waiting += value.replaceAll("\r\n", "\n");
    for (let end = waiting.indexOf("\n\n"); end >= 0; end = waiting.indexOf("\n\n")) {
      const data = waiting
        .slice(0, end)
        .split("\n")
        .filter((line) => line.startsWith("data:"))
        .map((line) => line.slice(5).trimStart())
        .join("\n");
      waiting = waiting.slice(end + 2);
      if (!data) continue;
      const message = JSON.parse(data) as RpcMessage;
      if (message.id === id && !message.method) return message;
      if (message.method === "notifications/progress") progress?.(message.params?.progress ?? 0, message.params?.message ?? "");
    }
  }
}

export function toolAnswer(message: RpcMessage): ToolAnswer {
  if (message.error) throw new Refused("error", message.error.message);
  const content = message.result?.content ?? [];
  const text = content
    .filter((part) => part.type === "text")
    .map((part) => part.text ?? "")
    .join("\n");
  if (message.result?.isError) {
    const [, code = "error", said = text] = /^([a-z_]+): ([\s\S]*)$/.exec(text) ?? [];
    throw new Refused(code, said);
  }
  return { text, structured: (message.result?.structuredContent ?? {}) as Record<string, unknown>, isError: false };
}
