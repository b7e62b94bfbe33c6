// "This", "not this", "everything like this": what a person means, said to the assistant of a chat with the call it stands for.

import { AppBackend, selection } from "./app";
import { exampleOf, type Shape } from "./draw";
import { about, backend, image, nameOf, note, picked } from "./state";
import type { Mask } from "./types";

const MOST_SAID = 20;

async function say(text: string): Promise<void> {
  try {
    await (backend.value as AppBackend).tell(text);
    note.value = "Said in the conversation.";
  } catch (error) {
    note.value = (error as Error).message;
  }
  setTimeout(() => (note.value = ""), 4000);
}

function call(tool: string, args: Record<string, unknown>): string {
  return `${tool}(${Object.entries(args)
    .map(([name, value]) => `${name}=${JSON.stringify(value)}`)
    .join(", ")})`;
}

/** Of the selected object; only in a chat, where somebody listens. */
export function Sayings() {
  const [one, result] = [picked.value, about.value?.result];
  if (!one || !result || !(backend.value instanceof AppBackend)) return null;
  const where = { image: `image://${result.image.image_id}`, words: nameOf(one.mask) };
  const point = one.at.map(Math.round);
  const sayings: [string, () => string][] = [
    ["Ask about this", () => `What is it? ${call("explain", { result_id: result.result_id, question: `What is ${nameOf(one.mask)}, and how sure is it?` })}`],
    [
      "Not this",
      () => `That is wrong, take it away: ${call("segment", { ...where, base_result: result.result_id, examples: [{ is: false, point }] })}`,
    ],
    ["Everything like this", () => `Find everything like it: ${call("segment", { ...where, examples: [{ is: true, point }] })}`],
  ];
  return (
    <div class="sayings" role="group" aria-label="Say to the assistant">
      {sayings.map(([name, text]) => (
        <button key={name} type="button" onClick={() => void say(`${selection()} ${text()}`)}>
          {name}
        </button>
      ))}
    </div>
  );
}

/** What was drawn, said instead of done: the assistant may ask back. */
export function SayDrawn({ drawn, name, mask }: { drawn: Shape[]; name: string; mask: Mask | undefined }) {
  const info = about.value?.result.image ?? image.value;
  if (!(backend.value instanceof AppBackend) || !info) return null;
  const result = about.value?.result;
  const text = () => {
    const examples = drawn.slice(0, MOST_SAID).map(exampleOf);
    const base = result && mask ? { base_result: result.result_id } : {};
    const yes = drawn.filter((each) => each.is).length;
    const said = `In the viewer the person drew ${yes} places that show ${name || "what is meant"} and ${drawn.length - yes} that do not.`;
    return `${said} ${call("segment", { image: `image://${info.image_id}`, words: name, ...base, examples })}`;
  };
  return (
    <button type="button" onClick={() => void say(text())}>
      Say it in the chat
    </button>
  );
}
