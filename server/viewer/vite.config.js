import { defineConfig } from "vite";
import { viteSingleFile } from "vite-plugin-singlefile";

// One file without addresses of others: it is served with a policy that allows nothing else, and travels inside chats.
export default defineConfig({
  plugins: [viteSingleFile()],
  build: {
    outDir: "../../build/viewer",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: false,
    license: { fileName: "licences.md" },
    reportCompressedSize: false,
    chunkSizeWarningLimit: 2000,
  },
});
