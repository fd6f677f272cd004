(function () {
  "use strict";
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  var narrow = window.matchMedia("(max-width: 34rem)");
  var charts = JSON.parse(document.getElementById("charts").textContent);
  var config = { displayModeBar: false, responsive: true, scrollZoom: false };

  var heights = {};
  Object.keys(charts).forEach(function (name) { heights[name] = charts[name].layout.height; });

  function entries(traces) {
    return traces.filter(function (trace) { return trace.showlegend; }).length;
  }

  function scheme(printing) {
    var night = dark.matches && !printing;
    return {
      ink: night ? "#e6e9ec" : "#1b1f24",
      grid: night ? "#343a41" : "#e3e6ea",
      hover: night ? "#1d2125" : "#ffffff"
    };
  }

  function dress(name, layout, colours) {
    layout.font.color = colours.ink;
    layout.hoverlabel = { bgcolor: colours.hover, bordercolor: colours.grid, font: { color: colours.ink }, namelength: -1 };
    ["xaxis", "yaxis"].forEach(function (name) {
      layout[name].gridcolor = colours.grid;
      layout[name].linecolor = colours.grid;
      layout[name].tickcolor = colours.grid;
    });
    layout.height = heights[name] + (narrow.matches ? 17 * Math.max(0, entries(charts[name].data) - 2) : 0);
    layout.font.size = narrow.matches ? 11.5 : 13;
    layout.margin.l = narrow.matches ? 44 : 56;
    layout.margin.r = narrow.matches ? 6 : 14;
    return layout;
  }

  function draw(printing) {
    Object.keys(charts).forEach(function (name) {
      var place = document.getElementById("chart-" + name);
      if (place) { window.Plotly.react(place, charts[name].data, dress(name, charts[name].layout, scheme(printing)), config); }
    });
  }

  function problem(text) {
    document.querySelectorAll(".chart").forEach(function (place) {
      var line = document.createElement("p");
      line.className = "problem";
      line.textContent = text;
      place.replaceChildren(line);
      place.style.minHeight = "0";
    });
  }

  function start(code) {
    var script = document.createElement("script");
    script.textContent = code;
    document.head.appendChild(script);
    draw(false);
    dark.addEventListener("change", function () { draw(false); });
    narrow.addEventListener("change", function () { draw(false); });
    var opened = [];
    window.addEventListener("beforeprint", function () {
      opened = Array.from(document.querySelectorAll("details:not([open])"));
      opened.forEach(function (part) { part.open = true; });
      draw(true);
    });
    window.addEventListener("afterprint", function () {
      opened.forEach(function (part) { part.open = false; });
      draw(false);
    });
  }

  function unpack() {
    var text = atob(document.getElementById("plotly-code").textContent);
    var bytes = Uint8Array.from(text, function (letter) { return letter.charCodeAt(0); });
    var stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }

  if (typeof DecompressionStream === "undefined") {
    problem("This browser is too old to draw the chart; the table below holds the same numbers.");
  } else {
    unpack().then(start).catch(function (error) {
      problem("The chart could not be drawn (" + error.message + "); the table below holds the same numbers.");
    });
  }
})();
