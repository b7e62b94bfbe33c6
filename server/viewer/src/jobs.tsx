import { work, type Work } from "./work";

/** What is being worked on, with a way to stop it. */
export function Jobs({ open }: { open: (resultId: string) => void }) {
  if (!work.value.length) return null;
  return (
    <section class="jobs" aria-live="polite">
      <h2>Work</h2>
      <ul class="plain">
        {work.value.map((one) => (
          <li key={one.number} class={`job ${one.state}`}>
            <JobLine one={one} open={open} />
          </li>
        ))}
      </ul>
    </section>
  );
}

function JobLine({ one, open }: { one: Work; open: (resultId: string) => void }) {
  return (
    <>
      <div class="line">
        <span class="title">{one.title}</span>
        {one.state === "running" ? (
          <button type="button" onClick={() => one.stop()}>
            Cancel
          </button>
        ) : null}
        {one.state === "done" ? (
          <button type="button" onClick={() => open(one.resultId!)}>
            Show
          </button>
        ) : null}
        {one.state === "cancelled" ? <span>cancelled</span> : null}
      </div>
      {one.state === "running" ? <progress value={one.share || undefined} max="1" aria-label={one.title} /> : null}
      {one.what ? <p>{one.what}</p> : null}
      {one.problem ? <p class="wrong">{one.problem}</p> : null}
    </>
  );
}
