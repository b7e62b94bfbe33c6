// Opening a result or an image in the page that is there.

import { about, activeMask, backend, chosen, hovered, image, looks, picked, problem, words } from "./state";

export async function openResult(resultId: string): Promise<void> {
  const found = await backend.value!.aboutResult(resultId);
  const info = found.result.image;
  chosen.value = picked.value = hovered.value = null;
  activeMask.value = null;
  problem.value = found.image_problem ? { code: "unknown_image", message: `The image cannot be shown: ${found.image_problem}` } : null;
  looks.value = Object.fromEntries(
    Object.entries(looks.value).filter(([maskId]) => found.result.masks.some((mask) => mask.mask_id === maskId)),
  );
  words.value = wordsOf(resultId);
  image.value = {
    image_id: info.image_id,
    width: info.width,
    height: info.height,
    mpp: info.mpp,
    mpp_source: info.mpp_source,
    tile_px: found.tile_px,
    levels: found.levels,
  };
  about.value = found;
}

export async function openImage(name: string): Promise<void> {
  image.value = await backend.value!.aboutImage(name);
  about.value = null;
}

/** What was asked stays in this browser window: the server keeps no report. */
export function keepWords(resultId: string, said: string): void {
  try {
    sessionStorage.setItem(`tissuetalk.words.${resultId}`, said);
  } catch {
    // too long, or nothing is kept: the findings are shown without their text
  }
}

export function wordsOf(resultId: string): string {
  try {
    return sessionStorage.getItem(`tissuetalk.words.${resultId}`) ?? "";
  } catch {
    return "";
  }
}
