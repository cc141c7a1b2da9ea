// Asks for /v1/overview now and then and shows it. Text goes in as text, never as markup.

const BUSY_MS = 1000;
const QUIET_MS = 4000;
const PATIENCE_MS = 8000;
const SVG = "http://www.w3.org/2000/svg";

const STEPS = {
  queued: "Queued", reading_manifest: "Reading the manifest", planning: "Planning",
  waiting_for_space: "Waiting for space", fetching: "Fetching", publishing: "Publishing",
};
const HOLDS = {
  process: ["process", "processes"], link: ["checkout", "checkouts"], pod: ["pod", "pods"],
  pin: ["pin", "pins"], follow: ["follow", "follows"], time: ["given out", "given out"],
};

const at = (id) => document.getElementById(id);

function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1023.95 && unit < units.length - 1) { value /= 1024; unit += 1; }
  return `${unit ? value.toFixed(value < 10 ? 2 : 1) : Math.round(value)} ${units[unit]}`;
}

function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

function ago(seconds) {
  if (seconds < 5) return "just now";
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

const count = (number, one, many) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

function put(id, text) {
  const found = typeof id === "string" ? at(id) : id;
  if (found.textContent !== text) found.textContent = text;
}

function make(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

// Keeps the element of each item, so that focus, selection and bars outlive an update.
function keyed(parent, items, key, create, update) {
  const before = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = key(item);
    const child = before.get(name) ?? create(item);
    before.delete(name);
    child.dataset.key = name;
    update(child, item);
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
  }
  for (const gone of before.values()) gone.remove();
}

function idButton(id) {
  const button = make("button", "id", id.slice(0, 12));
  button.type = "button";
  button.title = `${id} – click to copy`;
  button.setAttribute("aria-label", `Copy the snapshot ID that begins with ${id.slice(0, 12)}`);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(id);
      put("news", "Snapshot ID copied");
      button.textContent = "copied";
    } catch {
      button.textContent = id;
      return;
    }
    setTimeout(() => { button.textContent = id.slice(0, 12); }, 1200);
  });
  return button;
}

function showPull(item, pull) {
  const [step, percent, bar, bytes, speed, where] = item.parts;
  const fetching = ["fetching", "publishing"].includes(pull.state);
  const part = pull.bytes_total ? pull.bytes_done / pull.bytes_total : 0;
  put(step, pull.queue_position ? `Number ${pull.queue_position} in the queue` : STEPS[pull.state] ?? pull.state);
  step.classList.toggle("live", fetching);
  put(percent, pull.bytes_total ? `${Math.floor(part * 100)} %` : "");
  bar.max = Math.max(1, pull.bytes_total);
  bar.value = pull.bytes_done;
  bar.setAttribute("aria-label", `Pull of ${pull.snapshot_id.slice(0, 12)}`);
  put(bytes, pull.bytes_total
    ? `${size(pull.bytes_done)} of ${size(pull.bytes_total)}, ${pull.objects_done.toLocaleString("en")} of ${count(pull.objects_total, "object", "objects")}`
    : "Size not known yet");
  const words = [];
  if (fetching) words.push(`${size(pull.bytes_per_second)}/s`);
  if (pull.eta_seconds !== null && pull.state === "fetching") words.push(`${span(pull.eta_seconds)} left`);
  if (pull.retries) words.push(count(pull.retries, "retry", "retries"));
  words.push(pull.waiters ? `${count(pull.waiters, "waiter", "waiters")}` : "nobody waits");
  put(speed, words.join(" · "));
  put(where, pull.store);
}

function makePull(pull) {
  const parts = [
    make("span", "step"), make("span", "percent"), make("progress"),
    make("span", "sub"), make("span", "sub"), make("p", "sub where"),
  ];
  const [step, percent, bar, bytes, speed, where] = parts;
  const item = make("li", "pull",
    make("div", "row", make("span", "", idButton(pull.snapshot_id), step), percent),
    bar, make("div", "row", bytes, speed), where);
  item.parts = parts;
  return item;
}

function holds(snapshot, now) {
  if (!snapshot.holds.length) return [make("span", "tag none", "nobody")];
  return snapshot.holds.map((hold) => {
    const [one, many] = HOLDS[hold.kind] ?? [hold.kind, hold.kind];
    if (hold.kind === "time") {
      return make("span", "tag", `given out, ${ago(Math.max(0, hold.until - now))} left`);
    }
    return make("span", "tag", count(hold.count, one, many));
  });
}

function makeSnapshot(snapshot) {
  const cells = ["Store", "Size", "Files", "Age", "Last used", "Held by"].map((label, index) => {
    const text = make("span", index === 0 ? "where" : "");
    const cell = make("td", index >= 1 && index <= 4 ? "num" : "", text);
    cell.dataset.label = label;
    return cell;
  });
  const head = make("th", "", idButton(snapshot.snapshot_id));
  head.scope = "row";
  const row = make("tr", "", head, ...cells);
  row.cells_ = cells.map((cell) => cell.firstChild);
  return row;
}

function showSnapshot(row, snapshot, now) {
  const [store, bytes, files, age, used, held] = row.cells_;
  put(store, snapshot.store);
  put(bytes, size(snapshot.size_bytes));
  put(files, snapshot.files.toLocaleString("en"));
  put(age, ago(now - snapshot.completed_at));
  put(used, ago(now - snapshot.used_at));
  const shown = JSON.stringify(snapshot.holds.map((hold) => [hold.kind, hold.count, hold.until && Math.round((hold.until - now) / 60)]));
  if (held.dataset.shown !== shown) {
    held.dataset.shown = shown;
    held.replaceChildren(...holds(snapshot, now));
  }
}

function withoutWholeIds(text) {
  return text.replace(/\b([0-9a-f]{12})[0-9a-f]{52}\b/g, "$1…");
}

// What stands in backticks is for typing.
function withCode(text) {
  return text.split("`").map((part, index) => (index % 2 ? make("code", "", part) : part));
}

function showFailure(item, failure, now) {
  item.replaceChildren(
    make("div", "row", make("span", "what", withoutWholeIds(failure.message)),
      make("span", "sub", failure.ended_at > now - 5 ? "just now" : `${ago(now - failure.ended_at)} ago`)),
    make("p", "hint", ...withCode(failure.hint)),
    make("p", "sub", make("span", "code", failure.code), ` · ${failure.snapshot_id.slice(0, 12)} · ${failure.store}`));
}

function drawn(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function roundUp(rate) {
  let step = 1024;
  while (true) {
    for (const factor of [1, 2, 5, 10, 20, 50, 100, 200, 500]) {
      if (step * factor >= rate) return step * factor;
    }
    step *= 1024;
  }
}

function showRates(rates) {
  const chart = at("chart");
  const width = chart.clientWidth;
  const height = chart.clientHeight;
  const values = rates.bytes_per_second;
  const points = 150;
  const peak = Math.max(0, ...values);
  const top = roundUp(Math.max(peak, 1024 * 1024));
  const [left, right, above, below] = [0, 76, 8, 22];
  const x = (index) => left + (width - left - right) * ((points - values.length + index) / (points - 1));
  const y = (value) => above + (height - above - below) * (1 - value / top);
  const parts = [];
  for (const part of [0, 0.5, 1]) {
    const line = Math.round(y(top * part)) + 0.5;
    parts.push(drawn("line", { class: "grid", x1: left, x2: width - right, y1: line, y2: line }));
    parts.push(drawn("text", { x: width - right + 8, y: line + 4 }, part ? `${size(top * part).replace(/\.0+ /, " ")}/s` : "0"));
  }
  const minutes = Math.round((points * rates.interval_seconds) / 60);
  parts.push(drawn("text", { x: left, y: height - 3 }, `${minutes} min ago`));
  parts.push(drawn("text", { x: width - right, y: height - 3, "text-anchor": "end" }, "now"));
  if (values.length > 1) {
    const line = values.map((value, index) => `${x(index).toFixed(1)} ${y(value).toFixed(1)}`).join("L");
    parts.push(drawn("path", { class: "area", d: `M${x(0).toFixed(1)} ${y(0)}L${line}L${x(values.length - 1).toFixed(1)} ${y(0)}Z` }));
    parts.push(drawn("path", { class: "curve", d: `M${line}` }));
  }
  chart.setAttribute("viewBox", `0 0 ${width} ${height}`);
  chart.replaceChildren(...parts);
  put("peak", peak ? `Peak ${size(peak)}/s in the last ${minutes} minutes` : `Nothing in the last ${minutes} minutes`);
  put("chart-text", `Bytes fetched per second over the last ${minutes} minutes: now ${size(values.at(-1) ?? 0)} per second, at most ${size(peak)} per second.`);
}

function showDisk(seen) {
  const total = seen.disk_total_bytes;
  const other = Math.max(0, total - seen.disk_free_bytes - seen.cache_bytes);
  const free = Math.max(0, seen.disk_free_bytes - seen.reserved_bytes);
  const parts = [
    ["used", "Cache", seen.cache_bytes], ["reserved", "Promised to pulls", seen.reserved_bytes],
    ["other", "Everything else", other], ["free", "Free", free],
  ];
  keyed(at("disk-bar"), parts, (part) => part[0], (part) => make("span", part[0]),
    (child, part) => {
      child.style.flexGrow = String(total ? part[2] / total : 0);
      child.style.flexBasis = part[2] ? "4px" : "0";
    });
  keyed(at("disk-legend"), parts, (part) => part[0],
    (part) => make("li", "", make("i", part[0]), `${part[1]} `, make("b", "")),
    (child, part) => put(child.lastChild, size(part[2])));
  put("disk-text", parts.map((part) => `${part[1]} ${size(part[2])}`).join(", "));
  put("quota", seen.cache_bytes_max
    ? `${size(seen.cache_bytes)} of ${size(seen.cache_bytes_max)} allowed (${Math.round((100 * seen.cache_bytes) / seen.cache_bytes_max)} %)`
    : "No quota is set");
  put("free", size(seen.disk_free_bytes));
  put("free-sub", total ? `of ${size(total)}` : "");
}

// Small objects count by the batch, so between two of them on a slow line the last seconds tell more.
function rateOf(seen) {
  const fetching = seen.pulls.filter((pull) => pull.state === "fetching");
  if (!fetching.length) return 0;
  const last = seen.rates.bytes_per_second.slice(-5);
  return fetching.reduce((sum, pull) => sum + pull.bytes_per_second, 0)
    || last.reduce((sum, value) => sum + value, 0) / Math.max(1, last.length);
}

function show(seen) {
  const rate = rateOf(seen);
  document.title = `${seen.pulls_running ? `${size(rate)}/s – ` : ""}${seen.host} – snapsync`;
  put("host", seen.host);
  put("version", seen.version);
  put("uptime", ` · up ${span(seen.uptime_seconds)}`);
  showState(seen.state, { ready: "Ready", draining: "Draining", starting: "Starting" }[seen.state] ?? seen.state);
  put("rate", `${size(rate)}/s`);
  const left = seen.pulls.reduce((sum, pull) => sum + Math.max(0, pull.bytes_total - pull.bytes_done), 0);
  put("rate-sub", left ? `${size(left)} to go` : "all done");
  put("running", `${seen.pulls_running} running`);
  put("queued", seen.pulls_queued ? `${seen.pulls_queued} queued` : "none queued");
  put("count", seen.snapshots_total.toLocaleString("en"));
  const held = seen.snapshots.filter((each) => each.holds.length).length;
  put("held", seen.snapshots_total ? `${held} in use` : "cache is empty");
  showRates(seen.rates);
  keyed(at("pull-list"), seen.pulls, (pull) => pull.job_id, makePull, showPull);
  at("no-pulls").hidden = seen.pulls.length > 0;
  keyed(at("failure-list"), seen.failures, (each) => each.job_id, () => make("li", "failure"),
    (item, failure) => showFailure(item, failure, seen.now));
  at("failure-card").hidden = !seen.failures.length;
  showDisk(seen);
  keyed(at("snapshot-rows"), seen.snapshots, (each) => each.snapshot_id, makeSnapshot,
    (row, each) => showSnapshot(row, each, seen.now));
  at("no-snapshots").hidden = seen.snapshots.length > 0;
  at("snapshots").hidden = !seen.snapshots.length;
  put("snapshots-sub", seen.snapshots.length < seen.snapshots_total
    ? `the ${seen.snapshots.length} used last of ${seen.snapshots_total}` : "");
  put("stores", seen.stores.length ? `Stores: ${seen.stores.join(", ")}` : "No store is allowed");
  put("scrub", scrubText(seen.scrub));
  tellNews(seen);
}

function scrubText(scrub) {
  if (!scrub) return "";
  const words = [scrub.phase === "running" ? `scrub at ${Math.round(scrub.progress * 100)} %` : `scrub ${scrub.phase}`];
  if (scrub.damaged) words.push(`${scrub.damaged} damaged, ${scrub.repaired} repaired`);
  if (scrub.waiting_for_repair) words.push(`${scrub.waiting_for_repair} wait for repair`);
  return ` · ${words.join(", ")}`;
}

function showState(state, text) {
  at("state").dataset.state = state;
  put("state-text", text);
}

// Screen readers hear what begins and ends, not every number.
let known = null;
function tellNews(seen) {
  const now = new Map(seen.pulls.map((pull) => [pull.job_id, pull.snapshot_id.slice(0, 8)]));
  if (known) {
    const failed = new Set(seen.failures.map((each) => each.job_id));
    const begun = [...now].filter(([job]) => !known.has(job)).map(([, id]) => `Pull of ${id} began.`);
    const ended = [...known].filter(([job]) => !now.has(job))
      .map(([job, id]) => `Pull of ${id} ${failed.has(job) ? "failed" : "ended"}.`);
    if (begun.length + ended.length) put("news", [...begun, ...ended].join(" "));
  }
  known = now;
}

let latest = null;
let timer = 0;

async function look() {
  clearTimeout(timer);
  if (document.hidden) return;
  try {
    const answer = await fetch("/v1/overview", { signal: AbortSignal.timeout(PATIENCE_MS), cache: "no-store" });
    if (!answer.ok) throw new Error(`the daemon answers ${answer.status}`);
    latest = await answer.json();
    document.body.classList.remove("stale");
    show(latest);
  } catch {
    document.body.classList.add("stale");
    showState("lost", "No answer");
  }
  clearTimeout(timer);
  timer = setTimeout(look, latest?.pulls.length ? BUSY_MS : QUIET_MS);
}

document.addEventListener("visibilitychange", look);
addEventListener("resize", () => { if (latest) showRates(latest.rates); });
look();
