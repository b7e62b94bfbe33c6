// The page for people without an assistant: an image in, words in, masks out; what there is, what is being done.

import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { Refused, type PageBackend } from "./backend";
import { Jobs } from "./jobs";
import { backend, problem, theme } from "./state";
import type { ListedResult } from "./types";
import { takeUpJobs } from "./work";

const images = signal<{ path: string; size_bytes: number }[]>([]);
const results = signal<ListedResult[]>([]);
const upload = signal<{ name: string; share: number; cancel: () => void } | null>(null);
const dragging = signal(false);

function wrong(error: unknown): void {
  const said = error instanceof Refused ? error : new Refused("error", String(error));
  problem.value = { code: said.code, message: said.message };
}

async function list(): Promise<void> {
  const asked = backend.value!;
  const [there, made] = await Promise.all([
    asked.call("library", { action: "images" }),
    asked.call("library", { action: "results" }),
  ]);
  // a folder inside another one is listed with both
  const listed = there.structured.images as typeof images.value;
  images.value = [...new Map(listed.map((each) => [each.path, each])).values()];
  results.value = made.structured.results as ListedResult[];
}

async function send(file: File): Promise<void> {
  problem.value = null;
  const { done, cancel } = (backend.value as PageBackend).upload(file, (share) => {
    upload.value = { name: file.name, share, cancel };
  });
  upload.value = { name: file.name, share: 0, cancel };
  try {
    const { image } = await done;
    location.assign(`/view?image=${encodeURIComponent(image)}`);
  } catch (error) {
    wrong(error);
  } finally {
    upload.value = null;
  }
}

export function StartPage() {
  useEffect(() => {
    list().catch(wrong);
    takeUpJobs();
  }, []);
  const examples = images.value.filter((each) => exampleWords(each.path));
  const others = images.value.filter((each) => !exampleWords(each.path));
  return (
    <main class="start">
      <header>
        <h1>tissuetalk</h1>
        <button type="button" onClick={() => (theme.value = theme.value === "dark" ? "light" : "dark")}>
          {theme.value === "dark" ? "Light" : "Dark"}
        </button>
      </header>
      <p>Open an H&amp;E image or slide, say in words what to find, and look at what was found.</p>
      <Drop />
      {problem.value ? (
        <p class="wrong" role="alert">
          {problem.value.message}
        </p>
      ) : null}
      <Jobs open={(resultId) => location.assign(`/view/${resultId}`)} />
      {examples.length ? (
        <section>
          <h2>Examples</h2>
          <ul class="plain">
            {examples.map((each) => (
              <ImageLine key={each.path} path={each.path} />
            ))}
          </ul>
        </section>
      ) : null}
      <section>
        <h2>Results</h2>
        {results.value.length ? <Results /> : <p>None yet.</p>}
      </section>
      <section>
        <h2>Images</h2>
        {others.length ? (
          <ul class="plain">
            {others.map((each) => (
              <ImageLine key={each.path} path={each.path} />
            ))}
          </ul>
        ) : (
          <p>None in the folders of this server.</p>
        )}
      </section>
      <p class="notice">Research use only. Masks and numbers are a model's output, not a diagnosis.</p>
    </main>
  );
}

function Drop() {
  const dropped = (event: DragEvent) => {
    event.preventDefault();
    dragging.value = false;
    const file = event.dataTransfer?.files[0];
    if (file) void send(file);
  };
  return (
    <div
      class={`drop ${dragging.value ? "over" : ""}`}
      onDragOver={(event) => {
        event.preventDefault();
        dragging.value = true;
      }}
      onDragLeave={() => (dragging.value = false)}
      onDrop={dropped}
    >
      {upload.value ? (
        <>
          <p>
            Sending {upload.value.name}: {Math.round(100 * upload.value.share)} %
          </p>
          <progress value={upload.value.share} max="1" aria-label="Upload" />
          <button type="button" onClick={() => upload.value?.cancel()}>
            Cancel
          </button>
        </>
      ) : (
        <>
          <label for="file">Drop an image here, or choose one</label>
          <input
            id="file"
            type="file"
            accept="image/*,.svs,.tif,.tiff,.ndpi,.scn,.bif"
            onChange={(event) => {
              const file = event.currentTarget.files?.[0];
              if (file) void send(file);
            }}
          />
        </>
      )}
    </div>
  );
}

function ImageLine({ path }: { path: string }) {
  const said = exampleWords(path);
  const ask = said ? `&ask=${encodeURIComponent(said)}` : "";
  return (
    <li>
      <a href={`/view?image=${encodeURIComponent(path)}${ask}`}>
        {said || path.startsWith("/") ? path.slice(path.lastIndexOf("/") + 1) : path}
      </a>
      {said ? `: “${said}”` : null}
    </li>
  );
}

/** Of the pictures that come with the package: what to ask of them. */
function exampleWords(path: string): string {
  if (path.endsWith("models/samples/colon.jpg")) return "Crowded glands with low-grade dysplasia. No invasive carcinoma is seen.";
  return path.endsWith("models/samples/tnbc.jpg") ? "outline the nuclei" : "";
}

function Results() {
  return (
    <ul class="history">
      {results.value.map((each) => (
        <li key={each.result_id}>
          {each.problem ? (
            <span>{each.problem}</span>
          ) : (
            <a href={`/view/${each.result_id}`}>
              <img src={`/files/${each.result_id}/overlay.png`} alt="" loading="lazy" />
              <span>{each.masks.join(", ") || "no masks"}</span>
              <time>{new Date(each.created_at).toLocaleString()}</time>
            </a>
          )}
        </li>
      ))}
    </ul>
  );
}
