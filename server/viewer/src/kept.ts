// What this browser keeps between visits; one that keeps nothing shows everything all the same.

export function remember(name: string, value: string): void {
  try {
    localStorage.setItem(name, value);
  } catch {
    // full, or switched off
  }
}

export function recall(name: string): string | null {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}
