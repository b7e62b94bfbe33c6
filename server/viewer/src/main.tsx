import { render } from "preact";
import { startApp } from "./app";
import { asked as wordsInBox } from "./ask";
import { PageBackend, Refused } from "./backend";
import { Entry } from "./entry";
import { recall, remember } from "./kept";
import { StartPage } from "./start";
import { backend, problem, theme } from "./state";
import "./style.css";
import { ViewerPage } from "./viewer";
import { openImage, openResult } from "./opening";

const root = document.getElementById("root")!;

theme.subscribe((value) => {
  document.documentElement.dataset.theme = value;
  remember("tissuetalk.theme", value);
});
const kept = recall("tissuetalk.theme");
if (kept === "light" || kept === "dark") theme.value = kept;

/** In a frame: shown by a host, which says what there is to see. */
async function chat(): Promise<void> {
  render(<ViewerPage />, root);
  try {
    await startApp();
  } catch (error) {
    problem.value = { code: "error", message: `The chat does not answer this page: ${(error as Error).message}` };
  }
}

async function page(): Promise<void> {
  const asked = new PageBackend();
  backend.value = asked;
  const [, kind, id] = location.pathname.split("/");
  const image = new URLSearchParams(location.search).get("image");
  try {
    if (kind === "view" && id) await openResult(decodeURIComponent(id));
    else if (kind === "view" && image) {
      await openImage(image);
      wordsInBox.value = new URLSearchParams(location.search).get("ask") ?? "";
    }
    else await asked.call("library", { action: "results" });
  } catch (error) {
    if (error instanceof Refused && error.code === "entry") {
      render(<Entry enter={(token) => asked.enter(token)} done={() => location.reload()} />, root);
      return;
    }
    const said = error instanceof Refused ? error : new Refused("error", String(error));
    problem.value = { code: said.code, message: said.message };
  }
  render(kind === "view" ? <ViewerPage /> : <StartPage />, root);
}

window.addEventListener("popstate", () => location.reload());
if (window.parent !== window) void chat();
else void page();
