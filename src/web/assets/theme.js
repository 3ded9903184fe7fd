// Sets light or dark before anything is painted. Nothing else: it runs in the head, before the page is there.
{
  let chosen = null;
  try {
    chosen = localStorage.getItem("roentgen-theme");
  } catch {
    // A browser that keeps nothing shows what the system prefers.
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
}
