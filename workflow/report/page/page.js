"use strict";
// The lineage of a number, walked backwards through the jobs that the page holds once each.
{
  const data = JSON.parse(document.getElementById("data").textContent);
  const sheet = document.getElementById("lineage");
  const narrow = matchMedia("(max-width: 80rem)");
  const MANY = 6; // files of a list that are shown at once
  let chosen = null;

  const DERIVED = {
    value: "as it stands there",
    values: "these values together",
    difference: "the first minus the second",
    ratio: "the first divided by the second",
    percent: "the first as a percentage of the second",
    reduction_percent: "by how many percent the first is less than the second",
    mean: "their mean",
    sum: "their sum",
    count: "how many there are",
    entries: "how many entries it has",
    common: "the value that all have",
    job: "computed from these files by the code of the job that shows it",
  };
  const STATES = {
    holds: ["verified", "v-holds"],
    stale: ["the workflow would now do something else", "v-fails"],
    missing: ["something that it comes from is missing", "v-fails"],
    broken: ["does not hold", "v-fails"],
    unchecked: ["not checked", "v-undecided"],
  };

  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return made;
  }
  const code = (text, attributes) => element("code", attributes, text);
  const small = (...children) => element("small", {}, ...children);
  const short = (digest) => (digest ? digest.slice(0, 12) : "none");
  const utc = (moment) => (moment || "unknown").slice(0, 16).replace("T", " ");

  function facts(rows) {
    const known = rows.filter(([, value]) => value !== null && value !== undefined && value !== "");
    return element(
      "dl", {}, known.map(([name, ...values]) =>
        element("div", {}, element("dt", {}, name), element("dd", {}, ...values))),
    );
  }

  function duration(seconds) {
    if (seconds === null || seconds === undefined) return "time unknown";
    if (seconds < 60) return `${seconds.toFixed(1)} s`;
    const minutes = Math.floor(Math.round(seconds) / 60);
    if (minutes < 60) return `${minutes} min ${Math.round(seconds) % 60} s`;
    return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  }

  function rounding(rule) {
    const decimals = /\{:[^}]*\.(\d+)f\}/.exec(rule);
    if (decimals) return `rounded to ${decimals[1]} decimal${decimals[1] === "1" ? "" : "s"}`;
    if (rule === "{}") return "not rounded";
    return { window: "its first and last layer, by tower", span: "its first and last layer" }[
      rule] || "";
  }

  /* A file with its digest, and what is odd about it. */
  function fileEntry(place, pointer) {
    const [path, digest, , odd] = data.files[place];
    const note = {
      unrecorded: "no record says what made it",
      other: "not what the job that made it left",
    }[odd];
    return element(
      "li", { "data-path": path },
      code(pointer ? `${path} ${pointer}` : path),
      code(digest, { class: "digest" }),
      note ? element("span", { class: "note" }, note) : null,
    );
  }

  function fileList(entries) {
    const list = (some) => element("ul", { class: "file" }, some.map(([...of]) => fileEntry(...of)));
    if (entries.length <= MANY + 2) return list(entries);
    return element(
      "div", {}, list(entries.slice(0, MANY)),
      element("details", {},
        element("summary", {}, small(`${entries.length - MANY} more`)), list(entries.slice(MANY))),
    );
  }

  /* The jobs that a number comes from, each after those that it builds on, and the files without. */
  function ancestry(number) {
    const jobs = new Set(), origins = new Set();
    const visit = (place) => {
      const maker = data.files[place][2];
      if (maker < 0) origins.add(place);
      else if (!jobs.has(maker)) {
        jobs.add(maker);
        data.jobs[maker].in.forEach(visit);
      }
    };
    number.sources.forEach(([place]) => visit(place));
    jobs.delete(number.job);
    return { jobs: [...jobs].sort((a, b) => a - b), origins: [...origins] };
  }

  function jobStep(place, attributes, only) {
    const job = data.jobs[place];
    const environment = data.environments[job.environment], machine = data.machines[job.machine];
    const lock = environment.lock, inputs = only || job.in;
    const packages = Object.entries(environment.packages || {}).map((each) => each.join(" "));
    const where = [machine.host, machine.gpu || machine.cpu, `${machine.threads} threads`];
    if (machine.slurm_job) where.push(`SLURM job ${machine.slurm_job} on ${machine.slurm_node}`);
    const details = element(
      "details", {},
      element("summary", {},
        element("span", { class: "did" }, job.did || job.rule),
        small(`${job.name} · ${duration(job.seconds)} · ${short(job.code)}`)),
    );
    details.addEventListener("toggle", () => {
      if (details.children.length > 1) return; // filled when first opened
      details.append(facts([
        ["Rule", code(job.rule)],
        ["Parameters", ...job.params.map(([name, value]) =>
          element("span", { class: "param" }, element("b", {}, `${name} `), value)),
          job.more_params ? small(`and ${job.more_params} more, in the record`) : ""],
        ["Seed", job.seed === null ? null : String(job.seed)],
        ["Inputs", fileList(inputs.map((each) => [each])),
          inputs.length < job.in.length
            ? small(`and ${job.in.length - inputs.length} more, for its other numbers`) : ""],
        ["Outputs", fileList(job.out.map((each) => [each]))],
        ["Code", code(job.code || "unknown", { class: "digest" }),
          small(` digest of the syntax trees of what the script reaches; ${job.n_code} files ran`)],
        ["Commit", code(job.commit || "unknown", { class: "digest" }),
          job.dirty ? small(" and changes: ", code(job.patch || "")) : ""],
        [environment.image ? "Image" : "Lock",
          code(environment.image || (lock && lock.path) || "none"), " ",
          code(environment.image_sha256 || (lock && lock.sha256) || "", { class: "digest" })],
        ["Python", environment.python || "", packages.length
          ? element("details", {}, element("summary", {}, small(`${packages.length} packages`)),
            small(packages.join(", "))) : ""],
        ["Host", where.filter(Boolean).join(", ")],
        ["Ran", `${utc(job.started)} UTC, ${duration(job.seconds)}` +
          (job.memory ? `, at most ${Math.round(job.memory / 1e6)} MB` : "")],
        ["Record", element("ul", { class: "file" },
          element("li", { "data-record": job.record }, code(job.record),
            code(job.digest || "without a digest", { class: "digest" }),
            job.altered ? element("span", { class: "note" }, "not what the job wrote") : null))],
        ["Warnings", job.warnings.length ? job.warnings.join("; ") : null],
      ]));
    });
    return element("li", attributes, details,
      job.altered ? element("span", { class: "wrong" }, "its record was altered") : null);
  }

  function chainOf(number) {
    const { jobs, origins } = ancestry(number);
    const embedded = origins.filter((place) => !data.files[place][3]);
    const unknown = origins.filter((place) => data.files[place][3]);
    const sources = [...new Set(number.sources.map(([place]) => place))];
    return element(
      "ol", { class: "chain" },
      embedded.length ? element("li", { class: "origin" },
        element("span", { class: "did" }, "Data and models of this repository"),
        fileList(embedded.map((each) => [each]))) : null,
      unknown.length ? element("li", { class: "origin" },
        element("span", { class: "did wrong" }, "Missing evidence: no record speaks of these"),
        fileList(unknown.map((each) => [each]))) : null,
      jobs.map((place) => jobStep(place, { "data-job": data.jobs[place].name })),
      number.job >= 0
        ? jobStep(number.job, { class: "end", "data-job": data.jobs[number.job].name }, sources)
        : element("li", { class: "end wrong" }, "No record says what made what shows this number"),
    );
  }

  function command(text) {
    const copy = element("button", { type: "button" }, "Copy");
    copy.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text);
        copy.textContent = "Copied";
      } catch { // a browser that keeps its clipboard from a file: the text is marked instead
        getSelection().selectAllChildren(copy.previousSibling);
        copy.textContent = "Marked";
      }
    });
    return element("div", { class: "command" }, code(text), copy);
  }

  function againstPaper(number) {
    const { value, where } = number.paper, ours = Number(number.raw);
    const theirs = Number(value.replace(/[^\d.+-]/g, "") || NaN);
    const plain = /^[+-]?[\d.]+\s*%?$/.test(value) && typeof number.raw === "number";
    if (!plain || Number.isNaN(theirs)) return `${value} (${where})`;
    const decimals = (value.split(".")[1] || "").replace(/\D/g, "").length;
    const more = ours - theirs, digits = Math.abs(more).toFixed(Math.max(decimals, 1));
    return `${value} (${where}); here ${more < 0 ? "−" : "+"}${digits}`;
  }

  function interval({ low, high, confidence, method }) {
    const near = (value) => Number(value.toPrecision(5));
    return `${near(low)} to ${near(high)} (${Math.round(100 * confidence)} %, ${method})`;
  }

  function label(name) {
    const text = name.replace(/(\d+)$/, " $1");
    return text[0].toUpperCase() + text.slice(1);
  }

  function faultList(places) {
    const line = (place) => element("div", { class: "wrong" }, data.faults[place]);
    const rest = places.slice(MANY);
    return element("div", {}, places.slice(0, MANY).map(line), rest.length
      ? element("details", {}, element("summary", {}, small(`${rest.length} more`)), rest.map(line))
      : null);
  }

  function fill(id, number) {
    const close = element("button", { type: "button", class: "close" }, "Close");
    close.addEventListener("click", () => sheet.close());
    const state = STATES[number.state] || STATES.unchecked;
    const raw = Array.isArray(number.raw) ? JSON.stringify(number.raw) : String(number.raw);
    const link = document.getElementById(id); // where a long number is cut short
    const checked = number.state === "unchecked" ? "" : `when the page was made, ${utc(data.made)} UTC`;
    sheet.replaceChildren(element(
      "div", { class: "sheet" },
      element("div", { class: "bar" }, code(id), close),
      element("p", { class: "shown", id: "lineage-title", tabindex: "-1" }, link ? link.textContent : number.shown,
        element("span", { class: `verdict ${state[1]}` }, state[0])),
      element("p", { class: "place" },
        [label(number.of), ...number.where, number.column].join(" · ")),
      facts([
        ["Raw value", code(raw, { class: "raw" })],
        ["Shown", `${number.shown}, `, rounding(number.rule), " ", code(number.rule)],
        ["Interval", number.interval ? interval(number.interval) : null],
        ["Paper", number.paper ? againstPaper(number) : null],
        ["State", state[0], checked ? small(` ${checked}`) : "", faultList(number.faults || [])],
        ["Read from", element("div", { class: "sources" }, fileList(number.sources)),
          small(DERIVED[number.derivation] || number.derivation)],
      ]),
      element("h3", {}, "Ask again"),
      command(`ffmerge reproduce ${id}${data.options}`),
      command(`ffmerge trace ${id}${data.options}`),
      element("h3", {}, "From data and base model to this number"),
      chainOf(number),
    ));
    sheet.scrollTop = 0;
  }

  function mark(link) {
    if (chosen) chosen.classList.remove("chosen");
    chosen = link;
    if (chosen) chosen.classList.add("chosen");
  }

  function open(id, scroll) {
    const number = data.numbers[id], link = document.getElementById(id);
    for (let outer = link; outer; outer = outer.parentElement) if (outer.tagName === "DETAILS") outer.open = true;
    fill(id, number);
    mark(link);
    if (sheet.open && sheet.matches(":modal") !== narrow.matches) sheet.close();
    if (!sheet.open) narrow.matches ? sheet.showModal() : sheet.show();
    document.body.classList.add("asked");
    sheet.querySelector("#lineage-title").focus({ preventScroll: true });
    if (link) link.scrollIntoView({ block: scroll ? "center" : "nearest", behavior: "instant" });
  }

  function follow() {
    let id = location.hash.slice(1);
    try { id = decodeURIComponent(id); } catch { /* no name of ours has such a % */ }
    if (Object.hasOwn(data.numbers, id)) return open(id, true);
    if (sheet.open) sheet.close();
    const target = id && document.getElementById(id);
    if (target && target.tagName === "DETAILS") target.open = true;
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest("a.n");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault(); // so that the page stays where it is
    if (location.hash !== `#${link.id}`) history.pushState(null, "", `#${link.id}`);
    open(link.id, false);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && sheet.open && !sheet.matches(":modal")) sheet.close();
  });
  sheet.addEventListener("click", (event) => {
    if (event.target === sheet && sheet.matches(":modal")) sheet.close(); // beside it
  });
  sheet.addEventListener("close", () => {
    if (sheet.open) return; // reopened in the other way
    document.body.classList.remove("asked");
    const link = chosen;
    mark(null);
    if (link && location.hash === `#${link.id}`) {
      history.replaceState(null, "", location.href.split("#")[0]);
    }
    if (link) link.focus({ preventScroll: true });
  });
  addEventListener("hashchange", follow);
  addEventListener("popstate", follow);

  for (const bar of document.querySelectorAll("[data-filters]")) {
    const rows = document.querySelectorAll(`#${bar.dataset.filters} tbody tr`);
    bar.hidden = false;
    bar.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      for (const each of bar.children) each.setAttribute("aria-pressed", each === button);
      const wanted = button.dataset.verdict;
      for (const row of rows) row.hidden = wanted !== "" && row.dataset.verdict !== wanted;
    });
  }
  follow();
}
