"use strict";
// Shows what the page's data holds: draws figures of the chosen runs, sorts tables. It computes no results.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const figureOf = (id) => byId(id).closest("figure");
  const axisOf = (name) => data.axes.find((one) => one.name === name);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const on = (target, event, act) => target.addEventListener(event, act);
  /** Sentences that are not empty, one after another. */
  const paragraph = (...sentences) => sentences.filter(Boolean).join(" ");
  const touch = matchMedia("(pointer: coarse)").matches;
  const FAMILY = 'system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", Arial, sans-serif';
  const MARKERS = ["circle", "square", "diamond", "cross", "pentagon", "star", "hexagon", "bowtie"];
  const BLACK = "#000000";
  const COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", BLACK, "#7F7F7F"];
  const DASHES = ["solid", "dot", "dash", "dashdot", "longdash", "longdashdot"];

  /** A colour of the page, which its style sheet names: light, dark or for paper. */
  const styled = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  /** Black is the page's ink, so that it is seen on a dark page. */
  const inked = (color) => (color === BLACK ? styled("ink") : color);
  /** The colour of the i-th of n sets of runs: of a palette that all can tell apart, of a ramp where there are more. */
  const colorOf = (i, n) => inked(n > COLORS.length ? `hsl(${260 - (220 * i) / (n - 1)} 65% 50%)` : COLORS[i]);

  // ---- Text ------------------------------------------------------------------------------------------------------

  // Plotly reads some tags in its texts; names from a config are to be shown as they are.
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const steps = (n) => n.toLocaleString("en-US", { maximumFractionDigits: 0 });
  const number = (x) =>
    x === 0 || (Math.abs(x) >= 0.01 && Math.abs(x) < 1e5) ? String(+x.toPrecision(4)) : x.toExponential(2);

  // ---- Arrays ----------------------------------------------------------------------------------------------------

  /** An array from its base64. */
  const decode = (text, Type) => new Type(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);

  /** A curve's steps and values, gaps as null; none if the run has no values. */
  function curve(column, run) {
    const held = data.curves[column][run];
    if (!held) return null;
    const all = decode(data.steps[run], Uint32Array);
    const values = decode(held.v, Float32Array);
    const x = held.i
      ? Array.from(decode(held.i, data.index_bytes === 2 ? Uint16Array : Uint32Array), (i) => all[i])
      : Array.from(all);
    return { x, y: Array.from(values, (v) => (Number.isFinite(v) ? v : null)), sparse: Boolean(held.i) };
  }

  // ---- Drawing ---------------------------------------------------------------------------------------------------

  function axis(title, more) {
    return {
      title: { text: title, standoff: 6 },
      automargin: true,
      gridcolor: styled("grid"),
      linecolor: styled("axis"),
      showline: true,
      zeroline: false,
      ticks: "outside",
      ticklen: 4,
      tickcolor: styled("axis"),
      exponentformat: "power",
      ...more,
    };
  }

  /** A logarithmic axis that names 1, 2 and 5 of a decade if there are few of them. */
  function logAxis(values) {
    const logs = values.filter((v) => v > 0).map(Math.log10);
    const span = logs.reduce((a, b) => Math.max(a, b), -Infinity) - logs.reduce((a, b) => Math.min(a, b), Infinity);
    return { type: "log", ...(span < 2.5 ? { dtick: "D2", tickformat: "~s" } : {}) };
  }

  function layout(x, y, more) {
    return {
      font: { family: FAMILY, size: 12, color: styled("ink") },
      margin: { l: 58, r: 14, t: 26, b: 40 },
      paper_bgcolor: styled("paper"),
      plot_bgcolor: styled("paper"),
      showlegend: false,
      dragmode: touch ? false : "zoom",
      hoverlabel: { font: { size: 12 }, align: "left" },
      xaxis: x,
      yaxis: y,
      ...more,
    };
  }

  function colorbar(title, more) {
    return { thickness: 12, outlinewidth: 0, title: { text: title, side: "top" }, ...more };
  }

  // The buttons by name: Plotly's own choice has one that uploads a figure.
  const CONFIG = {
    responsive: true,
    displaylogo: false,
    plotlyServerURL: "",
    modeBarButtons: [["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
  };

  /** Draws a figure; `says` is its caption and what a screen reader hears. */
  function draw(id, traces, shape, says) {
    const plot = byId(id);
    plot.setAttribute("aria-label", `${figureOf(id).querySelector("h3").textContent}. ${says}`);
    figureOf(id).querySelector("figcaption").textContent = says;
    const fresh = !plot.data;
    const done = Plotly.react(plot, traces, shape, CONFIG);
    if (fresh) {
      plot.on("plotly_click", (event) => {
        const run = event.points[0].customdata;
        const shows = shown.runs.length === 1 && shown.runs[0] === run;
        if (Number.isInteger(run) && !shows) choose(`run ${run}`, !byId("curves").contains(plot));
      });
    }
    return done;
  }

  function save(id, format) {
    const plot = byId(id);
    const figure = figureOf(id);
    const of = figure.dataset.of || document.querySelector("h1").textContent;
    const title = `${figure.querySelector("h3").textContent}: ${of}`;
    const named = {
      ...plot.layout,
      title: { text: plain(title), font: { size: 14 } },
      margin: { ...plot.layout.margin, t: 60 },
      showlegend: plot.data.some((trace) => trace.name),
      legend: { orientation: "h", y: -0.2 },
    };
    const width = Math.max(plot.clientWidth, 720),
      height = Math.max(plot.clientHeight, 420);
    const filename = `${data.name}_${id}`.replace(/[^\w.-]+/g, "_");
    Plotly.downloadImage(
      { data: plot.data, layout: { ...named, width, height, autosize: false } },
      { format, filename, width, height, scale: format === "png" ? 2 : 1 },
    );
  }

  // ---- Curves over training --------------------------------------------------------------------------------------

  const shown = { runs: [], group: null, detail: 0, label: "" };

  /** Phases behind the curves: of a run, or of many runs by the share of them that is in each. */
  function shading(group) {
    const spans = group ? group.shades : data.runs[shown.runs[0]].phases.map((phase) => [...phase, 1]);
    return spans.map(([phase, from, to, share]) => ({
      type: "rect",
      layer: "below",
      xref: "x",
      yref: "paper",
      x0: from,
      x1: to,
      y0: 0,
      y1: 1,
      fillcolor: data.phases[phase],
      opacity: 0.22 * share,
      line: { width: 0 },
    }));
  }

  /** The curves of some runs, one after another with gaps between them. */
  function trace(line, runs, style) {
    const points = []; // step, value, run
    let dots = false;
    for (const run of runs) {
      const held = curve(line.column, run);
      if (!held) continue;
      if (points.length) points.push([null, null, null]);
      dots ||= held.sparse && !data.curve_limit;
      held.y.forEach((value, i) => {
        dots ||= value !== null && (held.y[i - 1] ?? null) === null && (held.y[i + 1] ?? null) === null;
        points.push([held.x[i], value, run]);
      });
    }
    return {
      type: "scatter",
      mode: dots ? "lines+markers" : "lines",
      meta: [plain(line.label)],
      x: points.map(([step]) => step),
      y: points.map(([, value]) => value),
      customdata: points.map(([, , run]) => run),
      connectgaps: false,
      ...style,
      marker: { color: style.line.color, size: 4 },
    };
  }

  /** One run's curves: a colour for each. */
  const ofOne = (lines) =>
    lines.map((line) =>
      trace(line, shown.runs, {
        name: plain(line.label),
        hovertemplate: "%{y:.4~g}<extra>%{meta[0]}</extra>",
        line: { color: inked(line.color), dash: line.dash, width: 2 },
      }),
    );

  /** Several runs' curves: a colour for each value of an axis, dashes for what they are of; the first lies on top. */
  function ofMany(lines, figure) {
    const sets = series(byId("color_by")?.value).map(([name, runs]) => [name, runs.map(([i]) => i)]);
    const opacity = Math.max(0.35, 1 - shown.runs.length / 60);
    return sets
      .flatMap(([name, members], s) => {
        const runs = shown.runs.filter((run) => members.includes(run));
        return lines.map((line, i) =>
          trace(line, runs, {
            name: plain(name || line.label),
            legendgroup: name,
            showlegend: i === 0 && runs.length > 0,
            hovertemplate: `${plain(name)}, run %{customdata}, %{meta[0]}<br>step %{x:,}: %{y:.4~g}<extra></extra>`,
            line: { color: colorOf(s, sets.length), dash: dashOf(line, figure), width: 1.4 },
            opacity,
          }),
        );
      })
      .reverse();
  }

  const dashOf = (line, figure) => DASHES[figure.lines.indexOf(line) % DASHES.length];
  const STROKES = { solid: "none", dot: "2 3", dash: "7 4", dashdot: "7 3 2 3", longdash: "11 4", longdashdot: "11 3 2 3" };

  /** Ticks the boxes that one run's curves start with, or several runs'; their samples show what tells curves apart. */
  function tick(figure, many) {
    const frame = figureOf(figure.name);
    if (frame.dataset.many === String(many)) return;
    frame.dataset.many = many;
    for (const box of all("input", frame)) {
      const line = figure.lines.find((one) => one.column === box.value);
      const stroke = box.parentElement.querySelector("line");
      box.checked = many ? line.many : line.on;
      stroke.style.stroke = many ? styled("ink") : inked(line.color);
      stroke.style.strokeDasharray = STROKES[many ? dashOf(line, figure) : line.dash];
    }
  }

  function drawCurves(figure) {
    const frame = figureOf(figure.name);
    const boxes = all("input", frame);
    const many = shown.runs.length > 1;
    tick(figure, many);
    boxes.forEach((box) => {
      box.parentElement.classList.toggle(
        "absent",
        shown.runs.every((run) => !data.curves[box.value][run]),
      );
    });
    const wanted = figure.lines.filter((line) => boxes.find((box) => box.value === line.column).checked);
    const traces = many ? ofMany(wanted, figure) : ofOne(wanted);
    const values = traces.flatMap((t) => t.y);
    const zeros = figure.log ? values.filter((v) => v === 0).length : 0;
    const group = shown.group;
    const x = axis("step", { rangemode: "tozero", tickformat: "~s", hoverformat: ",d" });
    const y = axis(figure.unit, figure.log ? logAxis(values) : { rangemode: "tozero" });
    const form = layout(x, y, {
      shapes: shading(group),
      showlegend: many && traces.some((t) => t.legendgroup),
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { size: 11 }, traceorder: "reversed" },
      hovermode: many ? "closest" : "x unified",
      uirevision: shown.label,
    });
    frame.dataset.of = shown.label;
    const last = many
      ? ""
      : traces
          .map((t) => [t.meta[0], t.y.filter((v) => v !== null).pop()])
          .filter(([, v]) => v !== undefined)
          .map(([name, v]) => `${name} ${number(v)}`)
          .join(", ");
    const missing = zeros ? ` ${zeros} values of exactly 0 have no place on a logarithmic axis.` : "";
    const deep = group && group.shades.length ? " The deeper a phase's shade, the more of these runs are in it." : "";
    return draw(figure.name, traces, form, `${shown.label}.${deep}${last ? ` Last values: ${last}.` : ""}${missing}`);
  }

  // ---- Images of Fourier norms -----------------------------------------------------------------------------------

  function drawSpectrum(spectrum) {
    const id = `spectrum_${spectrum.matrix}`;
    const run = data.runs[shown.detail],
      held = spectrum.images[shown.detail];
    figureOf(id).dataset.of = run.label;
    if (!held) return draw(id, [], layout(axis("step"), axis(data.words.one)), `${run.label}: no norms were recorded.`);
    const x = Array.from(decode(held.steps, Uint32Array));
    const levels = decode(held.levels, Uint8Array);
    const low = Math.log10(spectrum.low),
      high = Math.log10(spectrum.high);
    const z = Array.from({ length: held.frequencies }, (_, f) =>
      x.map((_, t) => {
        const level = levels[t * held.frequencies + f];
        return level === 255 ? null : low + ((high - low) * level) / 254;
      }),
    );
    const ticks = [];
    for (let power = Math.ceil(low); power <= high; power++) ticks.push(power);
    const keys = run.keys && run.keys.length <= 8 ? run.keys : null;
    const named = (k) => (run.blocks ? `${k} (${run.blocks[k - 1]})` : String(k));
    const y = axis(
      data.words.one,
      keys ? { tickvals: keys, ticktext: keys.map(named), showgrid: false } : { showgrid: false },
    );
    const shape = layout(axis("step", { tickformat: "~s", showgrid: false }), y, { hovermode: "closest" });
    const image = {
      type: "heatmap",
      x,
      y: z.map((_, f) => f + 1),
      z,
      zmin: low,
      zmax: high,
      colorscale: "Viridis",
      text: z.map((row) => row.map((v) => (v === null ? null : 10 ** v))),
      customdata: z.map((row, f) => row.map(() => named(f + 1))),
      hovertemplate: `${data.words.one} %{customdata}, step %{x:,}<br>norm %{text:.3~g}<extra></extra>`,
      colorbar: colorbar("norm", { tickvals: ticks, ticktext: ticks.map((p) => `10<sup>${p}</sup>`) }),
    };
    const about = run.keys
      ? `Final ${data.words.keys}: ${run.keys.map(named).join(", ") || "none"}.`
      : `Its final ${data.words.keys} are not known yet.`;
    return draw(id, [image], shape, `${run.label}. ${about} Logarithmic colours.`);
  }

  // ---- Time to grok ----------------------------------------------------------------------------------------------

  /** Places on an axis for its values: to scale where they are numbers, in a row otherwise. */
  function places(name) {
    const held = axisOf(name);
    if (!held) return { at: () => 0, ticks: [0], texts: [""], gap: 1, note: "" };
    const n = held.numbers;
    let at = held.values.map((_, i) => i),
      note = "";
    if (n && n.length > 1 && n.every((v) => v !== null)) {
      at = n;
      const logs = n.filter((v) => v > 0).map(Math.log10);
      const low = Math.min(...logs);
      const span = Math.max(...logs) - low; // -Infinity where no value is above 0
      if (n.every((v) => v >= 0) && span > 0.9) {
        const step = Math.max(0.3, span / (logs.length - 1));
        at = n.map((v) => (v > 0 ? Math.log10(v) : low - step));
        note = `${name} is on a logarithmic axis${n.includes(0) ? ", with 0 set apart at its left" : ""}.`;
      }
    }
    const sorted = [...at].sort((a, b) => a - b);
    const gap = Math.min(...sorted.slice(1).map((v, i) => v - sorted[i]), Infinity);
    const where = new Map(held.values.map((value, i) => [value, at[i]]));
    const few = held.values.length <= 16;
    return {
      at: (value) => where.get(value),
      note,
      gap: Number.isFinite(gap) ? gap : 1,
      ticks: few ? at : [at[0], at[at.length - 1]],
      texts: (few ? held.values : [held.values[0], held.values.at(-1)]).map(plain),
    };
  }

  // Runs that have evaluations as [index, run].
  const begun = data.runs.map((run, i) => [i, run]).filter(([, run]) => run.last_step !== null);

  /** Those in named sets that differ in one more axis, or all together. */
  function series(name) {
    const held = axisOf(name);
    if (!held) return [["", begun]];
    return held.values.map((value) => [`${name} = ${value}`, begun.filter(([, run]) => run.axes[name] === value)]);
  }

  // What became of a run, in its point: when, at which step, and the sign if that is not the set's own.
  const OUTCOMES = [
    { name: "grokked", of: (run) => run.values.grokked_by !== null, step: (run) => run.values.grokked_by },
    {
      name: "not by the last step",
      of: (run) => run.status !== "diverged",
      step: (run) => run.last_step,
      symbol: "triangle-up-open",
    },
    { name: "diverged", of: () => true, step: (run) => run.last_step, symbol: "x-thin-open", color: BLACK },
  ];

  /** Runs of one value side by side around its place, in their order. */
  function beside(runs, across, where) {
    const width = 0.6 * where.gap;
    const sets = Map.groupBy(runs, ([, run]) => run.axes[across]);
    return runs.map((one) => {
      const value = one[1].axes[across];
      const same = sets.get(value);
      return where.at(value) + width * ((same.indexOf(one) + 0.5) / same.length - 0.5);
    });
  }

  /** The points of one set of runs, a trace per outcome. */
  function points([name, runs], hue, s, across, where) {
    const x = beside(runs, across, where);
    const outcome = runs.map(([, run]) => OUTCOMES.find((one) => one.of(run)));
    return OUTCOMES.map((one) => {
      const at = runs.map((_, i) => i).filter((i) => outcome[i] === one);
      const symbol = one.symbol || MARKERS[s % MARKERS.length],
        color = one.color ? inked(one.color) : hue;
      return {
        type: "scatter",
        mode: "markers",
        name: plain(name || one.name),
        showlegend: one === OUTCOMES[0],
        x: at.length ? at.map((i) => x[i]) : [null], // so that the legend names it
        y: at.length ? at.map((i) => one.step(runs[i][1])) : [null],
        customdata: at.map((i) => runs[i][0]),
        text: at.map((i) => plain(runs[i][1].label)),
        hovertemplate: `%{text}<br>${one.name}: step %{y:,}<extra></extra>`,
        marker: { symbol, color, size: 9, opacity: 0.85, line: { width: symbol.includes("open") ? 1.8 : 0, color } },
      };
    }).filter((trace) => trace.customdata.length || trace.showlegend);
  }

  /** Entries of the legend for the signs that all sets share. */
  function signs(traces) {
    const found = OUTCOMES.slice(1).filter((one) => begun.some(([, run]) => OUTCOMES.find((o) => o.of(run)) === one));
    const held = found.map((one) => [one.name, one.symbol]);
    if (traces.some((trace) => trace.error_y)) held.push(["median", "line-ew-open"]);
    return held.map(([name, symbol]) => {
      const color = styled("ink");
      const marker = { symbol, color, size: 9, line: { width: 1.8, color } };
      return { type: "scatter", mode: "markers", name, x: [null], y: [null], marker };
    });
  }

  function drawTimes() {
    const across = byId("times_x").value,
      within = byId("times_by").value;
    const where = places(across);
    const sets = series(within);
    const traces = sets.flatMap((set, s) => points(set, colorOf(s, sets.length), s, across, where));
    if (isOfSettings([across, within])) {
      sets.forEach(([name], s) => traces.push(...medians(name, s, sets.length, across, within, where)));
    }
    const legends = signs(traces);
    const legend = { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { size: 11 } };
    const shape = layout(
      axis(plain(across), { tickvals: where.ticks, ticktext: where.texts, showgrid: false }),
      axis("step", logAxis(traces.flatMap((t) => t.y))),
      { hovermode: "closest", showlegend: true, legend },
    );
    const censored = begun.filter(([, run]) => OUTCOMES.find((one) => one.of(run)) === OUTCOMES[1]).length;
    const said = paragraph(
      "Every run is a point.",
      censored ? `Open triangles: ${censored} that had not grokked by the step where they stand.` : "",
      where.note,
      "Choose a point to see its curves.",
    );
    return draw("times", [...traces, ...legends], shape, said);
  }

  /** Whether runs that agree on these axes are the groups of the table of settings. */
  function isOfSettings(names) {
    const used = names.filter(Boolean);
    return data.settings.length === used.length && data.settings.every((name) => used.includes(name));
  }

  /** Kaplan–Meier medians of one set, in its colour, with their intervals; one beyond the budget ends with it. */
  function medians(name, s, n, across, within, where) {
    const last = Math.max(...data.runs.map((run) => run.last_step || 0));
    const ours = data.medians.filter((one) => !within || `${within} = ${one.axes[within]}` === name);
    const held = ours.filter((one) => one.median !== null);
    if (!held.length) return [];
    const color = n > 1 ? colorOf(s, n) : styled("ink");
    const text = (one) => (one.low === null ? "" : `<br>95 % interval ${steps(one.low)} to ${one.high === null ? "beyond the budget" : steps(one.high)}`);
    return [
      {
        type: "scatter",
        mode: "markers",
        name: plain(name),
        showlegend: false,
        x: held.map((one) => where.at(one.axes[across])),
        y: held.map((one) => one.median),
        marker: { symbol: "line-ew-open", size: 26, color, line: { width: 2.5, color } },
        error_y: {
          type: "data",
          symmetric: false,
          color,
          thickness: 1,
          width: 5,
          array: held.map((one) => (one.low === null ? 0 : (one.high === null ? last : one.high) - one.median)),
          arrayminus: held.map((one) => (one.low === null ? 0 : one.median - one.low)),
        },
        text: held.map((one) => `${one.grokked} of ${one.runs} grokked, median ${steps(one.median)}${text(one)}`),
        hovertemplate: "%{text}<extra></extra>",
      },
    ];
  }

  // ---- Heat map --------------------------------------------------------------------------------------------------

  /** The middle of numbers. */
  function median(values) {
    const sorted = [...values].sort((a, b) => a - b),
      half = sorted.length >> 1;
    return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
  }

  const keyOf = (axes) => JSON.stringify(Object.entries(axes).sort(([a], [b]) => (a < b ? -1 : 1)));
  const times = new Map(data.cells.map((one) => [keyOf(one.axes), one.times])); // Kaplan–Meier medians

  /** What a cell shows of its runs: null for nothing, infinite for a median beyond the last evaluation. */
  function cell(what, wanted) {
    const axes = Object.entries(wanted);
    const runs = begun.filter(([, run]) => axes.every(([name, value]) => run.axes[name] === value));
    const which = axes.map(([name, value]) => `${name} = ${value}`).join(", ");
    const of = what.unit === "steps" ? timeOf(what, wanted) : valueOf(what, runs);
    const hover = `${plain(which)}<br>${of.hover || "no value"}`;
    return { n: runs.length, first: runs.length ? runs[0][0] : null, ...of, hover };
  }

  function timeOf(what, wanted) {
    const held = times.get(keyOf(wanted))?.[what.name];
    if (!held || !held.runs) return { shows: null, label: "" };
    const text = held.median === null ? `> ${steps(held.last)}` : steps(held.median);
    return {
      shows: held.median ?? Infinity,
      label: `${text}<br>${held.seen}/${held.runs}`,
      hover: `${text}, seen in ${held.seen} of ${held.runs} run${held.runs === 1 ? "" : "s"}`,
    };
  }

  function valueOf(what, runs) {
    const values = runs.map(([, run]) => run.values[what.name]).filter((v) => v !== null && v !== undefined);
    const mean = values.reduce((a, b) => a + b, 0) / values.length;
    const shows = !values.length ? null : what.name === "grokked" ? mean : median(values);
    const label = shows === null ? "" : number(shows);
    return { shows, label, hover: label && `${label}, ${values.length} run${values.length === 1 ? "" : "s"}` };
  }

  function drawHeat() {
    const [across, up, name] = ["heat_x", "heat_y", "heat_value"].map((id) => byId(id).value);
    const what = data.quantities.find((one) => one.name === name);
    const [xs, ys] = [across, up].map((axisName) => axisOf(axisName)?.values || [""]);
    const cells = ys.map((y) =>
      xs.map((x) => cell(what, { [across]: x, ...(up && up !== across ? { [up]: y } : {}) })),
    );
    const flat = cells.flat(),
      each = (make) => cells.map((row) => row.map(make));
    const common = {
      type: "heatmap",
      x: xs.map(plain),
      y: ys.map(plain),
      xgap: 2,
      ygap: 2,
      customdata: each((c) => c.first),
      hovertext: each((c) => c.hover),
      hoverinfo: "text",
      text: each((c) => c.label),
      texttemplate: flat.length <= 150 ? "%{text}" : "",
    };
    const scaled = (v) => (what.log ? Math.log10(Math.max(v, 1e-45)) : v);
    const unit = what.log ? `log<sub>10</sub> ${what.unit}` : what.unit;
    const traces = [
      {
        ...common,
        z: each((c) => (c.shows === Infinity ? 0 : null)),
        showscale: false,
        textfont: { color: styled("ink") },
        colorscale: [0, 1].map((at) => [at, styled("after")]),
      },
      {
        ...common,
        z: each((c) => (Number.isFinite(c.shows) ? scaled(c.shows) : null)),
        colorscale: "Cividis",
        reversescale: what.unit === "steps",
        ...(name === "grokked" ? { zmin: 0, zmax: 1 } : {}),
        colorbar: colorbar(unit, { tickformat: what.log ? "" : "~s" }),
      },
    ];
    const [x, y] = [across, up].map((title) => axis(plain(title), { type: "category", showgrid: false }));
    const said = paragraph(
      `${what.label[0].toUpperCase()}${what.label.slice(1)}.`,
      what.unit === "steps" ? "Kaplan–Meier medians, and in how many of the runs it was seen." : "",
      what.unit !== "steps" && flat.some((c) => c.n > 1) ? "Cells of several runs: their median." : "",
      flat.some((c) => c.shows === Infinity) ? "Grey: the median lies beyond the last evaluation." : "",
    );
    return draw("heat", traces, layout(x, y, { hovermode: "closest" }), said);
  }

  // ---- The circuit's table ---------------------------------------------------------------------------------------

  function showCircuit() {
    if (!data.circuit) return;
    const run = data.runs[shown.detail],
      held = data.circuit[shown.detail];
    byId("circuit_of").textContent = held
      ? `${run.label}, at step ${steps(held.step)}.`
      : `${run.label} is not in circuit.parquet: only runs of one layer that have ended are.`;
    const rows = (held ? held.rows : []).map(([claim, paper, here, source, reason]) => {
      const row = document.createElement("tr");
      for (const text of [claim, paper, here, source]) row.insertCell().textContent = text;
      if (reason) row.cells[2].title = reason;
      return row;
    });
    byId("claims").tBodies[0].replaceChildren(...rows);
    all("th", byId("claims")).forEach((head) => head.removeAttribute("aria-sort"));
  }

  // ---- Choosing --------------------------------------------------------------------------------------------------

  const pending = new Map(); // drawings by what they draw

  /** Draws one figure after another, giving the browser its turn in between. */
  async function queue(name, drawing) {
    delete document.documentElement.dataset.drawn;
    const working = pending.size > 0;
    pending.set(name, drawing);
    if (working) return;
    while (pending.size) {
      const [[next, draws]] = pending;
      try {
        await draws();
      } catch (error) {
        // the other figures are still worth seeing
        console.error(`${next} cannot be drawn`, error);
      }
      await new Promise((resolve) => setTimeout(resolve));
      if (pending.get(next) === draws) pending.delete(next);
    }
    document.documentElement.dataset.drawn = `${shown.label} ${Math.round(performance.now())}`;
  }

  /** Shows "run 3" or "group 0", by index. */
  function choose(what, jump) {
    const [kind, text] = what.split(" "),
      i = Number(text);
    const group = kind === "group" ? data.groups[i] : null;
    Object.assign(shown, { group, runs: group ? group.runs : [i], label: group ? group.label : data.runs[i].label });
    if (!shown.runs.includes(shown.detail)) shown.detail = shown.runs[0];
    byId("choose").value = what;
    byId("said").textContent = group ? group.text : data.runs[i].text;
    all("#runs tbody tr").forEach((row) => {
      const mine = shown.runs.includes(Number(row.querySelector("button").dataset.run));
      if (mine && !group) row.setAttribute("aria-current", "true");
      else row.removeAttribute("aria-current");
    });
    data.figures.forEach((figure) => queue(figure.name, () => drawCurves(figure)));
    data.spectra.forEach((spectrum) => queue(spectrum.matrix, () => drawSpectrum(spectrum)));
    showCircuit();
    if (jump) byId("curves").scrollIntoView();
  }

  // ---- Tables ----------------------------------------------------------------------------------------------------

  function sort(table, column, head) {
    const up = head.getAttribute("aria-sort") !== "ascending";
    all("thead th", table).forEach((th) => th.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
    const numbers = rows.every(([text]) => text === "" || !Number.isNaN(Number(text)));
    rows.sort(([a], [b]) => {
      if ((a === "") !== (b === "")) return a === "" ? 1 : -1;
      const order = numbers ? Number(a) - Number(b) : a.localeCompare(b);
      return up ? order : -order;
    });
    table.tBodies[0].append(...rows.map(([, row]) => row));
  }

  // ---- Start -----------------------------------------------------------------------------------------------------

  /** Draws a figure again when one of its controls is changed. */
  const redraw = (id, drawing) => on(figureOf(id), "change", () => queue(id, drawing));

  for (const table of all("table"))
    all("thead th", table).forEach((head, column) =>
      on(head.firstElementChild, "click", () => sort(table, column, head)),
    );
  for (const button of all("#runs tbody button"))
    on(button, "click", () => choose(`run ${button.dataset.run}`, true));
  for (const button of all("[data-export]"))
    on(button, "click", () => save(button.closest("figure").dataset.figure, button.dataset.export));
  for (const figure of data.figures) redraw(figure.name, () => drawCurves(figure));
  on(byId("choose"), "change", (event) => choose(event.target.value));
  if (innerWidth < 600) document.querySelector("header details").open = false;

  const drawings = { times: drawTimes, heat: drawHeat };
  function drawAll() {
    for (const figure of data.figures) delete figureOf(figure.name).dataset.many;
    choose(byId("choose").value);
    for (const [id, drawing] of Object.entries(drawings)) if (byId(id)) queue(id, drawing);
  }

  for (const [id, drawing] of Object.entries(drawings)) if (byId(id)) redraw(id, drawing);
  if (byId("color_by")) on(byId("color_by"), "change", () => choose(byId("choose").value));
  on(matchMedia("(prefers-color-scheme: dark)"), "change", drawAll);
  drawAll();

  // On paper the page is light and one column wide; what has been drawn follows at once, since printing does not wait.
  const root = document.documentElement;
  const resize = (width) => {
    for (const plot of all(".plot").filter((one) => one.data)) {
      const [ink, paper, grid] = ["ink", "paper", "grid"].map(styled);
      const colors = { "font.color": ink, paper_bgcolor: paper, plot_bgcolor: paper };
      Plotly.relayout(plot, { ...colors, "xaxis.gridcolor": grid, "yaxis.gridcolor": grid, width });
    }
  };
  on(window, "beforeprint", () => {
    root.classList.add("print");
    resize(680);
  });
  on(window, "afterprint", () => {
    root.classList.remove("print");
    resize(null);
    drawAll();
  });
})();
