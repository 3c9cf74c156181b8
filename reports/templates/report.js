"use strict";
(() => {
  const inks = {
    light: { text: "#1b1d21", grid: "#e6e6e1", line: "#9a9fa8", surface: "#ffffff" },
    dark: { text: "#e9e9e5", grid: "#2c3136", line: "#6a717b", surface: "#1a1d20" },
  };
  const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
  const plots = [];

  const colours = (ink) => {
    const axis = { gridcolor: ink.grid, linecolor: ink.line, tickcolor: ink.line, color: ink.text };
    const settings = {
      "font.color": ink.text, "modebar.bgcolor": "rgba(0,0,0,0)",
      "modebar.color": ink.line, "modebar.activecolor": ink.text,
      "hoverlabel.bgcolor": ink.surface, "hoverlabel.font.color": ink.text,
    };
    for (const name of ["xaxis", "yaxis"]) {
      for (const [key, value] of Object.entries(axis)) settings[`${name}.${key}`] = value;
    }
    return settings;
  };
  const recolour = (dark) => plots.forEach((plot) => Plotly.relayout(plot, colours(dark ? inks.dark : inks.light)));

  // Every trace that can be drawn over several quantities carries them in meta.variants.
  const choose = (part, kinds, variant) => {
    for (const plot of plots.filter((each) => kinds.split(" ").includes(each.dataset.kind) && part.contains(each))) {
      const changes = {};
      plot.data.forEach((trace, index) => {
        const change = trace.meta && trace.meta.variants && trace.meta.variants[variant];
        for (const [key, value] of Object.entries(change || {})) {
          changes[key] = changes[key] || { values: [], traces: [] };
          changes[key].values.push(value);
          changes[key].traces.push(index);
        }
      });
      for (const [key, { values, traces }] of Object.entries(changes)) {
        Plotly.restyle(plot, { [key]: values }, traces);
      }
      const axis = plot.layout.meta.axes[variant];
      const name = axis.along === "y" ? "yaxis" : "xaxis";
      Plotly.relayout(plot, {
        [`${name}.title.text`]: axis.title,
        ...(axis.range ? { [`${name}.range`]: [...axis.range] } : { [`${name}.autorange`]: true }),
      });
    }
  };

  const drawAll = async () => {
    const font = getComputedStyle(document.body).fontFamily;
    for (const element of document.querySelectorAll(".plot")) {
      const figure = JSON.parse(document.getElementById(element.dataset.source).textContent);
      figure.layout.font = { family: font, size: 12 };
      figure.layout.dragmode = "pan";
      await Plotly.newPlot(element, figure.data, figure.layout, {
        responsive: true, displaylogo: false, scrollZoom: false,
        modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomOut2d", "resetScale2d"]],
      });
      plots.push(element);
      if (element.dataset.kind === "scatter") {
        element.on("plotly_click", ({ points }) => {
          const [method, ...seeds] = points[0].customdata || [];
          if (method) show(element, method, seeds.map(String));
        });
      }
    }
    recolour(prefersDark.matches);
    document.querySelectorAll("[data-chooses]").forEach((group) => {
      const apply = () => {
        const chosen = group.querySelector("input:checked, option:checked");
        choose(group.closest("[data-part]"), group.dataset.chooses, chosen.value);
      };
      group.addEventListener("change", apply);
      if (group.querySelector("input, select")) apply();
    });
  };

  const showPanel = (gallery) => {
    const value = (name) => {
      const input = gallery.querySelector(`input[name$="gallery-${name}"]:checked`);
      return input ? input.value : null;
    };
    gallery.dataset.view = value("view") || "one";
    for (const panel of gallery.querySelectorAll(".panel")) {
      panel.hidden = panel.dataset.task !== value("task") || panel.dataset.seed !== value("seed");
    }
    const image = value("image") || "0";
    for (const shot of gallery.querySelectorAll(".shots:not(.picked) figure")) {
      shot.classList.toggle("chosen", shot.dataset.image === image);
    }
    const noises = gallery.querySelector(".noises");
    if (noises) noises.hidden = gallery.dataset.view !== "one";
  };
  for (const gallery of document.querySelectorAll(".gallery")) {
    gallery.addEventListener("change", () => showPanel(gallery));
    showPanel(gallery);
  }

  // The pictures of a point of a scatter: those of its cell that the page has, in a dialog.
  const dialog = document.getElementById("shown");
  const make = (tag, text) => {
    const element = document.createElement(tag);
    element.textContent = text;
    return element;
  };
  const found = (elements, wanted) =>
    [...elements].find((each) => Object.entries(wanted).every(([name, value]) => each.dataset[name] === value));
  const pictures = (part, task, method, seed) => {
    const panel = found(part.querySelectorAll(".panel"), { task, seed });
    const head = panel && found(panel.querySelectorAll("thead th"), { method });
    if (!head) return [];
    const column = head.cellIndex;
    return [...panel.querySelectorAll("tbody tr")].flatMap((row) => {
      const shots = row.cells[column] && row.cells[column].querySelector(".shots");
      if (!shots || !shots.querySelector("figure")) return [];
      const group = document.createElement("section");
      group.append(make("h4", row.cells[0].textContent.trim()), shots.cloneNode(true));
      return [group];
    });
  };
  const densities = (part, task, method) => {
    const table = found(part.querySelectorAll("table"), { densities: task });
    const row = table && found(table.querySelectorAll("tr"), { method });
    return [...(row ? row.querySelectorAll("img") : [])].map((image) => {
      const figure = document.createElement("figure");
      figure.append(image.cloneNode(true), make("figcaption", image.alt));
      return figure;
    });
  };
  const show = (element, method, seeds) => {
    const part = element.closest("[data-part]");
    const task = element.closest("[data-figure]").dataset.figure;
    const content = dialog.querySelector(".content");
    content.replaceChildren();
    for (const seed of seeds) {
      const shown = pictures(part, task, method, seed);
      if (shown.length) content.append(make("h3", `Seed ${seed}`), ...shown);
    }
    if (!content.firstChild) content.append(...densities(part, task, method));
    if (!content.firstChild) content.append(make("p", "The page has no pictures of this point."));
    const which = seeds.length === 1 ? `seed ${seeds[0]}` : `seeds ${seeds.join(", ")}`;
    document.getElementById("shown-title").textContent = `${method}, reward ${task}, ${which}`;
    dialog.showModal();
    content.scrollTop = 0;
  };
  for (const button of document.querySelectorAll(".openers button")) {
    button.addEventListener("click", () => show(button, button.dataset.method, [button.dataset.seed]));
  }
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });

  // A link to a failed cell leads to its traceback, not to a folded line.
  const unfold = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target && target.tagName === "DETAILS") target.open = true;
  };
  window.addEventListener("hashchange", unfold);
  unfold();

  prefersDark.addEventListener("change", (event) => recolour(event.matches));
  window.addEventListener("beforeprint", () => recolour(false));
  window.addEventListener("afterprint", () => recolour(prefersDark.matches));
  window.drawn = drawAll(); // a promise, for whoever has to wait for the figures
})();
