// Sets the formulas that arithmatex marks as \(...\) and \[...\], with the KaTeX that the site carries; again on every
// page that is opened without a reload.
document$.subscribe(() => {
  for (const node of document.querySelectorAll(".arithmatex:not([data-set])")) {
    const tex = node.textContent.trim();
    node.dataset.set = "";
    katex.render(tex.slice(2, -2), node, { displayMode: tex.startsWith("\\["), throwOnError: false });
  }
});
