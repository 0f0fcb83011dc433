// Pictures follow the page's theme: they know JupyterLab's attribute, and the system's choice without it.
function follow() {
  const { theme } = document.body.dataset;
  if (theme === "light" || theme === "dark") document.body.dataset.jpThemeLight = String(theme === "light");
  else delete document.body.dataset.jpThemeLight;
}
addEventListener("DOMContentLoaded", () => {
  follow();
  new MutationObserver(follow).observe(document.body, { attributeFilter: ["data-theme"] });
});
