// Draws the charts of the chosen group, each once, when it is first shown: a hidden chart has no width.
// What a chart lets the reader choose stands above it; a choice is made in all charts that have one of its name.
(() => {
  const theme = JSON.parse(document.getElementById("theme").textContent);
  const sections = [...document.querySelectorAll("[data-group]")];
  const chooser = document.getElementById("group");

  const draw = (root) => {
    for (const place of root.querySelectorAll(".chart:not([data-drawn])")) {
      if (place.closest("[hidden]")) continue;
      place.dataset.drawn = "yes";
      const spec = JSON.parse(place.nextElementSibling.textContent);
      const bind = document.createElement("div");
      bind.className = "choices";
      place.before(bind);
      const options = { actions: false, renderer: "svg", ast: true, config: theme, bind };
      vegaEmbed(place, spec, options).catch((error) => { place.textContent = String(error); });
    }
  };

  const choose = (group) => {
    for (const section of sections) section.hidden = section.dataset.group !== group;
    draw(document);
  };

  document.addEventListener("change", ({ target, isTrusted }) => {
    if (!isTrusted || !target.closest(".choices")) return;
    for (const other of document.querySelectorAll(".choices select")) {
      const offers = [...other.options].some((option) => option.value === target.value);
      if (other === target || other.name !== target.name || !offers) continue;
      other.value = target.value;
      for (const kind of ["input", "change"]) other.dispatchEvent(new Event(kind));
    }
  });

  if (chooser) {
    const asked = new URLSearchParams(location.hash.slice(1)).get("group");
    if ([...chooser.options].some((option) => option.value === asked)) chooser.value = asked;
    chooser.addEventListener("change", () => {
      history.replaceState(null, "", "#" + new URLSearchParams({ group: chooser.value }));
      choose(chooser.value);
    });
    choose(chooser.value);
  } else {
    draw(document);
  }
})();
