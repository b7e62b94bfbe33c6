import { signal } from "@preact/signals";
import { Jobs } from "./jobs";
import { openResult } from "./opening";
import { about, backend, image, problem, words } from "./state";
import { stageRef } from "./controls";
import { segment } from "./work";

export const asked = signal("");
const onlySeen = signal(false);
const mpp = signal("");

const EXAMPLES = ["outline the nuclei", "the glands", "the tumour", "Crowded glands with low-grade dysplasia. No invasive carcinoma."];

/** Shows a result in this page, and in its address. */
export async function show(resultId: string): Promise<void> {
  try {
    await openResult(resultId);
    if (backend.value?.kind === "page") history.pushState(null, "", `/view/${resultId}`);
  } catch (error) {
    problem.value = { code: "error", message: (error as Error).message };
  }
}

export function imageName(): string {
  return `image://${(about.value?.result.image ?? image.value)!.image_id}`;
}

export function Ask() {
  if (!image.value) return null;
  const submit = async (event: Event) => {
    event.preventDefault();
    const said = asked.value.trim();
    if (!said) return;
    const view = stageRef.value?.view;
    const args: Record<string, unknown> = { image: imageName(), words: said };
    if (onlySeen.value && view) args.region = view.seen.map(Math.round);
    if (Number(mpp.value) > 0) args.mpp = Number(mpp.value);
    const found = await segment(said.length > 60 ? `${said.slice(0, 57)}…` : said, said, args);
    if (found) await show(found);
  };
  const needsScale = image.value.mpp === null || image.value.mpp_source === "assumed";
  return (
    <section class="ask">
      <form onSubmit={submit}>
        <label for="words">What to find: a request, or a report</label>
        <textarea
          id="words"
          rows={3}
          value={asked.value}
          placeholder={words.value || "outline the glands"}
          onInput={(event) => (asked.value = event.currentTarget.value)}
          onKeyDown={(event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && void submit(event)}
        />
        <div class="line">
          <label>
            <input type="checkbox" checked={onlySeen.value} onChange={(event) => (onlySeen.value = event.currentTarget.checked)} />
            only what I see
          </label>
          {needsScale ? (
            <label title="Only where the file does not say it">
              µm/px
              <input
                type="number"
                min="0.02"
                max="50"
                step="any"
                value={mpp.value}
                aria-label="µm per pixel"
                onInput={(event) => (mpp.value = event.currentTarget.value)}
              />
            </label>
          ) : null}
          <button class="main" type="submit" disabled={!asked.value.trim()}>
            Find
          </button>
        </div>
        {about.value ? null : (
          <p class="examples">
            {EXAMPLES.map((each) => (
              <button type="button" key={each} onClick={() => (asked.value = each)}>
                {each}
              </button>
            ))}
          </p>
        )}
      </form>
      <Jobs open={(resultId) => void show(resultId)} />
    </section>
  );
}
