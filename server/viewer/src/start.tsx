import { Toolbar } from "./toolbar";

export function StartPage() {
  return (
    <main class="start">
      <Toolbar />
      <h1>tissuetalk</h1>
    </main>
  );
}
