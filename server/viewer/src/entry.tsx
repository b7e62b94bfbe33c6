import { useState } from "preact/hooks";

/** Shown where the server asks for its token. */
export function Entry({ enter, done }: { enter: (token: string) => Promise<void>; done: () => void }) {
  const [said, say] = useState("");
  const [token, setToken] = useState("");
  const used = location.pathname === "/enter";
  const submit = async (event: Event) => {
    event.preventDefault();
    try {
      await enter(token.trim());
      done();
    } catch {
      say("That token does not open this server. Ask whoever runs it.");
    }
  };
  return (
    <main class="entry">
      <h1>tissuetalk</h1>
      {used ? <p>That address worked once, or is older than ten minutes. Run the command again for a new one.</p> : null}
      <form onSubmit={submit}>
        <label for="token">Token of this server</label>
        <input id="token" type="password" autocomplete="off" value={token} onInput={(e) => setToken(e.currentTarget.value)} />
        <button type="submit" disabled={!token.trim()}>
          Enter
        </button>
        <p role="alert">{said}</p>
      </form>
    </main>
  );
}
