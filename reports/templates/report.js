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
  const choose = (kinds, variant) => {
    for (const plot of plots.filter((each) => kinds.split(" ").includes(each.dataset.kind))) {
      plot.data.forEach((trace, index) => {
        const change = trace.meta && trace.meta.variants && trace.meta.variants[variant];
        if (!change) return;
        const wrapped = Object.fromEntries(Object.entries(change).map(([key, value]) => [key, [value]]));
        Plotly.restyle(plot, wrapped, [index]);
      });
      const axis = plot.layout.meta.axes[variant];
      Plotly.relayout(plot, {
        "xaxis.title.text": axis.title,
        ...(axis.range ? { "xaxis.range": [...axis.range] } : { "xaxis.autorange": true }),
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
    }
    recolour(prefersDark.matches);
    document.querySelectorAll("[data-chooses]").forEach((group) => {
      const apply = () => {
        choose(group.dataset.chooses, group.querySelector("input:checked").value);
      };
      group.addEventListener("change", apply);
      if (group.querySelector("input")) apply();
    });
  };

  const gallery = document.querySelector(".gallery");
  const showPanel = () => {
    const value = (name) => {
      const input = document.querySelector(`input[name="${name}"]:checked`);
      return input ? input.value : null;
    };
    gallery.dataset.view = value("gallery-view") || "one";
    for (const panel of gallery.querySelectorAll(".panel")) {
      panel.hidden = panel.dataset.task !== value("gallery-task") || panel.dataset.seed !== value("gallery-seed");
    }
    const image = value("gallery-image") || "0";
    for (const shot of gallery.querySelectorAll(".shots figure")) {
      shot.classList.toggle("chosen", shot.dataset.image === image);
    }
    const images = document.getElementById("gallery-images");
    if (images) images.hidden = gallery.dataset.view !== "one";
  };
  if (gallery) {
    gallery.addEventListener("change", showPanel);
    showPanel();
  }

  prefersDark.addEventListener("change", (event) => recolour(event.matches));
  window.addEventListener("beforeprint", () => recolour(false));
  window.addEventListener("afterprint", () => recolour(prefersDark.matches));
  drawAll();
})();
