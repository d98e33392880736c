"use strict";
const MOST_BYTES = 10485760, MOST_PHOTOS = 500, TOGETHER = 2, TRIES = 4, DEAR_TRIES = 12, SHOWN = 5, FEW = 4, FINE = 12;
const PHOTO = /\.(jpe?g|png|webp|gif|bmp|tiff?|avif|hei[cf])$/i;
const FORMULA = /^[=+\-@\t\r＝＋－＠]/;  // a spreadsheet would run it
const LIMITS = "a photo gets one answer even if it shows several, and some photos of other things get one of these labels, too.";
const ELSEWHERE = "Save the picture and drop the file here. Or ask the operator to list its host in PETCLF_URL_HOSTS.";
const ADDRESS = /^(https?:\/\/|data:image\/)\S+$/i;

const byId = (id) => document.getElementById(id);
const facts = JSON.parse(byId("facts").textContent);
const labels = facts.labels || [], shift = facts.shift || 0;
const modelName = document.querySelector('meta[name="petclf-model"]').content;
const asked = location.pathname.match(/^\/predictions\/[^/]+(\/[^/]+)?/);
const predictUrl = asked ? asked[0] : `/predictions/${modelName}`;
const explainUrl = predictUrl.replace("/predictions/", "/explanations/");
const one = new Intl.ListFormat("en-GB", { type: "disjunction" });
const all = new Intl.ListFormat("en-GB");

const jobs = [];  // each photo, in the order in which they came
let leftOut = 0;  // files of folders that are no photos by their names
let running = 0, round = 0, stop = new AbortController();

// ---- words

const capital = (text) => text.charAt(0).toLocaleUpperCase() + text.slice(1);
const plural = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;
const ranked = (answer) => Object.entries(answer.probabilities).sort((first, second) => second[1] - first[1]);

function percent(value) {
  const shown = value * 100;
  return (shown > 99.9 && shown < 100 ? "> 99.9" : shown < 0.1 && shown > 0 ? "< 0.1" : shown.toFixed(1)) + " %";
}

function headline(answer) {
  const names = Object.keys(answer.probabilities), [first, second] = ranked(answer).map(([label]) => label);
  if (!answer.unsure) return capital(first);
  if (answer.unsure_because === "close_call") return `${capital(first)} or ${second}: too close to call`;
  if (answer.unsure_because !== "unlike_training_photos") return `Most likely ${first}, but not sure`;
  if (names.length === 2) return `Probably neither ${names[0]} nor ${names[1]}`;
  return names.length <= FEW ? `Probably not ${one.format(names)}` : `Probably none of the ${names.length} labels`;
}

function doubt(answer) {
  if (answer.unsure_because === "close_call") return "The two likeliest labels are too close to each other.";
  if (answer.unsure_because === "low_confidence") return "Answers with a figure like this are wrong too often to rely on.";
  if (answer.unsure_because === "unlike_training_photos") return "This looks unlike the photos that the model learned from.";
  return "The model is not sure.";
}

function describe(job) {
  if (job.error) return `${job.name}: not answered. ${job.error.message}`;
  return `${job.name}: ${headline(job.answer)}${job.answer.unsure ? "" : `, ${percent(job.answer.confidence)}`}`;
}

function tell(text) { byId("status").textContent = text; }

// ---- elements

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;  // never as HTML: labels and names come from elsewhere
  return made;
}

function button(text, act) {
  const made = element("button", "plain", text);
  made.type = "button";
  made.addEventListener("click", act);
  return made;
}

function chance([label, value]) {
  const bar = element("progress"), holder = element("dd");
  bar.max = 1;
  bar.value = value;
  bar.setAttribute("aria-label", label);
  holder.append(bar);
  return [element("dt", "", label), holder, element("dd", "number", percent(value))];
}

function chances(rows) {
  const list = element("dl", "chances");
  list.append(...rows.flatMap(chance));
  return list;
}

// ---- what comes in

function add(files) {
  const room = MOST_PHOTOS - jobs.length, taken = [...files].slice(0, Math.max(0, room));
  for (const file of taken) enter({ name: file.name || "photo", body: file, type: file.type || "application/octet-stream", size: file.size, file });
  if (files.length > taken.length) tell(`${plural(MOST_PHOTOS, "photo")} are in the list, which is all it takes. For more, use scripts/predict.py.`);
  else if (taken.length) tell("");
  next();
  bringIntoView(jobs[jobs.length - taken.length]);
}

function bringIntoView(job) {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  if (job) job.item.scrollIntoView({ block: "nearest", behavior: calm ? "instant" : "smooth" });
}

function addFolder(files) {
  const photos = files.filter((file) => !file.name.startsWith(".") && (PHOTO.test(file.name) || (file.type.startsWith("image/") && file.type !== "image/svg+xml")));
  leftOut += files.length - photos.length;
  add(photos);
  if (photos.length < files.length) tell(`${plural(files.length - photos.length, "file")} left out: not a photo by name.`);
  if (!files.length) tell("The folder is empty.");
}

function addAddress(address) {
  if (address.startsWith("data:")) return addData(address);
  enter({ name: nameIn(address), body: JSON.stringify({ url: address }), type: "application/json", size: 0 });
  next();
  bringIntoView(jobs.at(-1));
}

function nameIn(address) {
  const last = address.replace(/[?#].*/, "").split("/").pop();
  try {
    return decodeURIComponent(last) || address;
  } catch {
    return last;  // a % that encodes nothing
  }
}

function addData(address) {
  try {
    const [head, content] = address.split(",", 2);
    const bytes = Uint8Array.from(head.endsWith(";base64") ? atob(content) : decodeURIComponent(content), (letter) => letter.charCodeAt(0));
    const type = head.slice(5).split(";")[0];
    add([new File([bytes], `photo.${type.split("/")[1]}`, { type })]);
  } catch {
    tell("That data: address cannot be read.");
  }
}

function enter(job) {
  job.item = element("li", "card");
  job.stage = element("figure", "stage");
  job.words = element("div", "words");
  job.item.append(job.stage, job.words);
  byId("results").append(job.item);
  byId("answers").hidden = false;
  document.body.classList.add("asked");
  jobs.push(job);
  preview(job);
  wait(job);
}

function wait(job) {
  job.state = "waiting";
  job.error = undefined;
  job.words.replaceChildren(nameOf(job), element("p", "state", "waiting ..."));
  summarise();
}

function nameOf(job) {
  const name = element("p", "name", job.name);
  name.title = job.name;
  return name;
}

function preview(job) {
  if (!job.file) return job.stage.replaceChildren(element("span", "", "no preview: this page loads no pictures from other sites"));
  job.address = URL.createObjectURL(job.file);
  job.frame = framed(job.address, () => job.stage.replaceChildren(element("span", "", "no preview of this kind of file")));
  job.frame.setAttribute("aria-label", `Enlarge ${job.name}`);
  job.frame.addEventListener("click", () => enlarge(job));
  job.stage.replaceChildren(job.frame);
}

/** A picture in a frame of exactly its shape, so that a heat map of the frame's size lies on it. */
function framed(address, failed, tag = "button") {
  const frame = element(tag, "frame"), image = element("img");
  if (tag === "button") frame.type = "button";
  image.alt = "";
  image.decoding = "async";
  image.loading = "lazy";  // a hundred photos are not decoded at once
  image.addEventListener("load", () => frame.style.setProperty("--ratio", image.naturalWidth / image.naturalHeight));
  image.addEventListener("error", failed);
  image.src = address;
  frame.append(image);
  return frame;
}

async function dropped(data) {
  const entries = [...data.items].map((item) => item.webkitGetAsEntry && item.webkitGetAsEntry()).filter(Boolean);
  if (entries.some((entry) => entry.isDirectory)) return addFolder((await Promise.all(entries.map(filesOf))).flat());
  if (data.files.length) return add(data.files);
  const address = addressIn(data);
  if (address) addAddress(address);
  else tell("That is neither a photo nor the address of one.");
}

function addressIn(data) {
  const page = new DOMParser().parseFromString(data.getData("text/html"), "text/html").querySelector("img[src]");
  const found = [page && page.getAttribute("src"), ...data.getData("text/uri-list").split(/\s+/), data.getData("text/plain").trim()];
  return found.find((text) => text && ADDRESS.test(text));
}

async function filesOf(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader(), inside = [];
  for (let some; (some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject))).length;) inside.push(...some);  // a hundred at a time
  return (await Promise.all(inside.map(filesOf))).flat();
}

// ---- asking

function next() {
  while (running < TOGETHER) {
    const job = jobs.find(({ state }) => state === "waiting");
    if (!job) return;
    running += 1;
    answer(job, stop.signal).finally(() => { running -= 1; next(); });
  }
}

async function answer(job, signal) {
  const say = (text) => { job.words.querySelector(".state").textContent = text; };
  job.state = "asking";
  say("looking ...");
  const started = performance.now();
  try {
    const response = await send(predictUrl, job, "application/json", signal, say);
    job.answer = await response.json();
    job.took = performance.now() - started;
    showAnswer(job);
  } catch (error) {
    if (signal.aborted) return;
    job.error = error;
    showRefusal(job);
  }
  job.state = "done";
  finished(job);
}

class Refused extends Error {
  constructor(message, code = "", id = "", again = false) { super(message); Object.assign(this, { code, id, again }); }
}

async function send(url, job, accept, signal, say) {
  if (job.size > MOST_BYTES) throw new Refused("The file is larger than 10 MB. Make it smaller and try again.", "too_large");
  for (let attempt = 1; ; attempt += 1) {
    const response = await fetch(url, { method: "POST", body: job.body, signal, headers: { "Content-Type": job.type, Accept: accept } }).catch(() => {
      throw new Refused("The server cannot be reached. Is it running, and are you online?", "", "", true);
    });
    if (response.ok) return response;
    const busy = response.status === 429 || response.status === 503;
    if (!busy || attempt >= (response.headers.get("x-petclf-refusal") === "dear_request" ? DEAR_TRIES : TRIES)) throw await refusal(response, busy);
    const seconds = Math.min(10, Number(response.headers.get("Retry-After")) || attempt);
    say(`the server is busy; trying again in ${seconds} s ...`);
    await pause(seconds, signal);
  }
}

function pause(seconds, signal) {
  return new Promise((resolve) => {
    setTimeout(resolve, seconds * 1000);
    signal.addEventListener("abort", resolve, { once: true });  // nobody waits for a list that was cleared
  });
}

/** The server's own reason, whichever server it was: petclf and its gateway say {error}, TorchServe {code, message}. */
async function refusal(response, again) {
  const said = await response.json().catch(() => null);
  const { message, code, request_id: id } = (said && (said.error || said)) || {};
  if (message) return new Refused(capital(String(message)), String(code || response.status), id, again || response.status >= 500);
  if (response.status === 413) return new Refused("The file is larger than 10 MB. Make it smaller and try again.", "too_large");
  return new Refused(`The server answered with status ${response.status} and no reason.`, String(response.status), "", response.status >= 429);
}

// ---- showing

function showAnswer(job) {
  const { answer } = job, rows = ranked(answer), title = element("h3", "", headline(answer)), parts = [nameOf(job), title];
  if (answer.unsure) parts.push(element("p", "unsure", doubt(answer)));
  else title.append(" ", element("span", "figure", percent(answer.confidence)));
  if (answer.unsure_because === "unlike_training_photos") parts.push(element("p", "caption", "If it had to be one of them:"));
  parts.push(chances(rows.slice(0, SHOWN)));
  if (rows.length > SHOWN) parts.push(more(rows.slice(SHOWN)));
  job.toggle = button("Where it looked", () => toggleHeat(job));
  job.toggle.setAttribute("aria-pressed", "false");
  const { decode, model } = answer.milliseconds;
  parts.push(job.toggle, element("p", "small", `${Math.round(job.took)} ms in all: reading ${decode.toFixed(1)}, model ${model.toFixed(1)}`));
  job.words.replaceChildren(...parts);
  job.item.classList.toggle("doubt", answer.unsure);
}

function more(rows) {
  const details = element("details");
  details.append(element("summary", "", `${rows.length} more`), chances(rows));
  return details;
}

function showRefusal(job) {
  const { message, code, id, again } = job.error, parts = [nameOf(job), element("h3", "", "Not answered"), element("p", "error", message)];
  if (code === "url_not_allowed") parts.push(element("p", "small", ELSEWHERE));
  if (again) parts.push(button("Try again", () => { wait(job); next(); }));
  if (code || id) parts.push(element("p", "small", [code, id && `request ${id}`].filter(Boolean).join(", ")));
  job.words.replaceChildren(...parts);
}

function finished(job) {
  announce(job);
  if (job.answer) tellVersion(job.answer.model);
  summarise();
  sort();
}

/** Say each answer of a few photos, and of many only how all of them went. */
function announce(job) {
  const left = pending().length;
  round += 1;
  if (round + left <= 3) tell(describe(job));
  else if (!left) tell(`All answered: ${counts()}`);
  if (!left) round = 0;
}

const pending = () => jobs.filter(({ state }) => state !== "done");

function counts() {
  const answers = jobs.flatMap(({ answer }) => answer || []), sure = new Map();
  for (const { label, unsure } of answers) if (!unsure) sure.set(label, (sure.get(label) || 0) + 1);
  const parts = [...sure].sort((first, second) => second[1] - first[1]).map(([label, number]) => `${number} ${label}`);
  const rest = parts.splice(SHOWN).length, unsure = answers.filter((answer) => answer.unsure).length, refused = jobs.filter(({ error }) => error).length;
  if (rest) parts.push(plural(rest, "more label"));
  if (unsure) parts.push(`${unsure} unsure`);
  if (refused) parts.push(`${refused} not answered`);
  if (leftOut) parts.push(`${plural(leftOut, "other file")} left out`);
  return parts.join(", ");
}

function summarise() {
  const left = pending().length, bar = byId("done");
  byId("summary").textContent = left ? `${jobs.length - left} of ${jobs.length} answered` : `${plural(jobs.length, "photo")}: ${counts()}`;
  bar.hidden = !left || jobs.length < 3;
  bar.max = jobs.length;
  bar.value = jobs.length - left;
  byId("sorting").hidden = jobs.length < 2;
  byId("csv").disabled = byId("json").disabled = left === jobs.length;
}

/** Refused first, then unsure ones, then by how sure they are; or as they came. */
function sort() {
  const rank = ({ error, answer }) => (error ? -2 : !answer ? 2 : answer.confidence - (answer.unsure ? 1.5 : 0));
  const order = byId("unsure-first").checked ? [...jobs].sort((first, second) => rank(first) - rank(second)) : jobs;
  const shown = byId("results").children, focused = document.activeElement;
  if (order.every((job, index) => job.item === shown[index])) return;
  byId("results").append(...order.map(({ item }) => item));
  if (focused && focused !== document.activeElement) focused.focus();
}

function tellVersion({ name, version }) { byId("version").textContent = `${name} ${version}`; }

// ---- where it looked

async function toggleHeat(job) {
  const on = job.toggle.getAttribute("aria-pressed") !== "true";
  job.toggle.disabled = true;
  try {
    if (on) await fetchHeat(job);
    job.toggle.setAttribute("aria-pressed", String(on));
    showHeat(job, on);
  } catch (error) {
    job.words.append(element("p", "error", error.message));
  } finally {
    job.toggle.disabled = false;
    job.toggle.textContent = "Where it looked";
    job.toggle.focus({ preventScroll: true });
  }
}

async function fetchHeat(job) {
  const say = (text) => { job.toggle.textContent = text; }, seen = job.frame && job.frame.isConnected;
  if (job.map || job.picture) return;
  say("looking ...");
  const response = await send(explainUrl, job, seen ? "application/json" : "image/png", stop.signal, say);
  if (seen) job.map = (await response.json()).explanation.map;
  else job.picture = URL.createObjectURL(await response.blob());  // the browser cannot show the photo, the server can
}

function showHeat(job, on) {
  if (job.picture) return showPicture(job);
  job.stage.querySelectorAll(".heat, canvas").forEach((node) => node.remove());
  job.frame.classList.toggle("warm", on);
  if (on) lay(job, job.frame, job.stage);
}

function showPicture(job) {
  job.frame = framed(job.picture, () => {});
  job.frame.setAttribute("aria-label", `Enlarge ${job.name}`);
  job.frame.addEventListener("click", () => enlarge(job));
  job.stage.replaceChildren(job.frame, element("span", "", `Bright where it speaks for ${job.answer.label}`));
  job.toggle.hidden = true;
}

/** Lay the map over the frame, and under it a legend and a slider. */
function lay(job, frame, stage) {
  const canvas = element("canvas"), heat = element("div", "heat"), slider = element("input"), name = element("label", "", "Strength");
  paint(canvas, job.map);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Heat map: strongest ${hottest(job.map)}`);
  frame.append(canvas);
  Object.assign(slider, { type: "range", min: 0, max: 100, value: job.strength ?? 80 });
  const set = () => { job.strength = slider.value; canvas.style.opacity = slider.value / 100; };
  slider.addEventListener("input", set);
  set();
  name.append(slider);
  heat.append(legend(job.answer.label), name);
  stage.append(heat);
}

function legend(label) {
  const made = element("div", "legend");
  made.append(element("span", "", "against"), element("span", "", `for ${label}`));
  return made;
}

/** Draw the map, warm for the label and blue against it; the canvas is small, and the browser smooths what it scales up.
 *  A network that pads its photos alike on all sides draws its map too far right and down, by facts.shift places. */
function paint(canvas, map) {
  const most = Math.max(...map.flat().map(Math.abs), 1e-6), pen = canvas.getContext("2d");
  canvas.height = map.length * FINE;
  canvas.width = map[0].length * FINE;
  const pixels = pen.createImageData(canvas.width, canvas.height);
  for (let y = 0; y < canvas.height; y += 1) {
    for (let x = 0; x < canvas.width; x += 1) {
      const value = between(map, (x + 0.5) / FINE - 0.5 + shift, (y + 0.5) / FINE - 0.5 + shift) / most, strength = Math.abs(value);
      pixels.data.set(value > 0 ? [255 - 35 * strength, 200 * (1 - strength), 0, 255 * strength ** 0.8] : [0, 100, 220, 255 * strength], 4 * (y * canvas.width + x));
    }
  }
  pen.putImageData(pixels, 0, 0);
}

/** The map's value between its places, by how near each of the four neighbours is. */
function between(map, x, y) {
  const at = (column, row) => map[Math.min(map.length - 1, Math.max(0, row))][Math.min(map[0].length - 1, Math.max(0, column))];
  const left = Math.floor(x), top = Math.floor(y), right = x - left, down = y - top;
  const across = (row) => at(left, row) * (1 - right) + at(left + 1, row) * right;
  return across(top) * (1 - down) + across(top + 1) * down;
}

function hottest(map) {
  const most = Math.max(...map.flat()), row = map.findIndex((values) => values.includes(most)), column = map[row].indexOf(most);
  const third = (place, count, names) => names[Math.max(0, Math.floor((3 * (place + 0.5 - shift)) / count))];
  const down = third(row, map.length, ["at the top", "in the middle", "at the bottom"]), across = third(column, map[0].length, [" left", "", " right"]);
  return down + across;
}

function enlarge(job) {
  const stage = byId("large-stage"), frame = framed(job.picture || job.address, () => {}, "div");
  byId("large-name").textContent = job.answer ? `${headline(job.answer)} (${job.name})` : job.name;
  stage.replaceChildren(frame);
  if (job.frame.classList.contains("warm")) {
    frame.classList.add("warm");
    lay(job, frame, stage);
  }
  byId("large").showModal();
}

// ---- taking it away

const finishedJobs = () => jobs.filter(({ answer, error }) => answer || error);

function cell(value) {
  const text = FORMULA.test(value) && typeof value !== "number" ? `'${value}` : String(value ?? "");
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** The columns are those of scripts/predict.py --csv. */
function asCsv() {
  const done = finishedJobs(), names = [...new Set(done.flatMap(({ answer }) => (answer ? Object.keys(answer.probabilities) : [])))];
  const head = ["photo", "label", "confidence", ...names.map((name) => `probability_${name}`), "unsure_because", "version", "error", "code"];
  const row = ({ name, answer, error }) => (answer
    ? [name, answer.label, answer.confidence, ...names.map((label) => answer.probabilities[label]), answer.unsure_because, answer.model.version, "", ""]
    : [name, "", "", ...names.map(() => ""), "", "", error.message, error.code]);
  return "\ufeff" + [head, ...done.map(row)].map((cells) => cells.map(cell).join(",") + "\r\n").join("");  // the mark tells Excel that it is UTF-8
}

function asJson() {
  const refusal = ({ code, message, id }) => ({ error: { code, message, request_id: id } });
  return JSON.stringify(finishedJobs().map(({ name, answer, error }) => ({ photo: name, ...(answer || refusal(error)) })), null, 1);
}

function save(text, type, name) {
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function clear() {
  stop.abort();
  stop = new AbortController();
  for (const { address, picture } of jobs.splice(0)) for (const one of [address, picture]) if (one) URL.revokeObjectURL(one);
  round = leftOut = 0;
  byId("results").replaceChildren();
  byId("answers").hidden = true;
  document.body.classList.remove("asked");
  tell("");
  byId("drop").focus();
}

// ---- the camera

let stream = null;

async function openCamera() {
  if (!(navigator.mediaDevices && navigator.mediaDevices.getUserMedia)) return byId("shot").click();  // only on https or localhost
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch {
    return byId("shot").click();
  }
  byId("video").srcObject = stream;
  byId("camera").hidden = false;
  await byId("video").play();
  byId("snap").focus();
}

function closeCamera() {
  if (stream) for (const track of stream.getTracks()) track.stop();
  stream = null;
  byId("camera").hidden = true;
  byId("take").focus();
}

function snap() {
  const video = byId("video"), canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob((blob) => { add([new File([blob], "camera.jpg", { type: "image/jpeg" })]); closeCamera(); }, "image/jpeg", 0.92);
}

// ---- what the page says of itself

function introduce() {
  const few = labels.length <= FEW, question = few ? `${one.format(labels)}?` : `which of ${labels.length} labels?`;
  if (!labels.length) return;  // web/page.html opened as it is
  byId("question").textContent = capital(question);
  document.title = `${modelName}: ${question}`;
  const known = few ? all.format(labels) : `its ${labels.length} labels`;
  byId("limits").textContent = `The model knows only ${known}: ${LIMITS}`;
}

function offerExamples() {
  for (const example of facts.examples || []) {
    const item = element("li"), choice = element("button"), image = element("img");
    choice.type = "button";
    choice.title = `Photo: ${example.author}, ${example.licence}`;
    choice.addEventListener("click", () => addExample(example));
    Object.assign(image, { src: example.photo, alt: "" });
    choice.append(image, element("span", "", example.name));
    item.append(choice);
    byId("thumbs").append(item);
  }
  byId("examples").hidden = !(facts.examples || []).length;
}

function addExample({ photo, file }) {
  const bytes = Uint8Array.from(atob(photo.split(",")[1]), (letter) => letter.charCodeAt(0));
  add([new File([bytes], file, { type: "image/jpeg" })]);
}

function showSamples() {
  const url = location.origin + predictUrl, explain = location.origin + explainUrl;
  const samples = {
    "curl": `curl -T photo.jpg ${url}`,
    "Where it looked, as a picture": `curl -T photo.jpg -H 'Accept: image/png' -o why.png ${explain}`,
    "Python": [
      "import requests\n",
      'with open("photo.jpg", "rb") as photo:',
      `    answer = requests.post("${url}", data=photo, timeout=30).json()`,
      'print(answer["label"], answer["confidence"], answer["unsure"])',
    ].join("\n"),
    "JavaScript": [
      `const response = await fetch("${url}", { method: "POST", body: file });`,
      "const { label, confidence, unsure } = await response.json();",
    ].join("\n"),
  };
  byId("samples").append(...Object.entries(samples).map(([name, text]) => sample(name, text)));
}

function sample(name, text) {
  const made = element("div", "sample"), bar = element("div", "bar"), code = element("pre", "", text);
  code.tabIndex = 0;  // it scrolls sideways, with the keyboard too
  code.setAttribute("role", "region");
  code.setAttribute("aria-label", name);
  const copying = button("Copy", () => copy(code, copying));
  copying.setAttribute("aria-label", `Copy: ${name}`);
  bar.append(element("h3", "", name), copying);
  made.append(bar, code);
  return made;
}

async function copy(code, copying) {
  getSelection().selectAllChildren(code);
  const copied = navigator.clipboard ? await navigator.clipboard.writeText(code.textContent).then(() => true, () => false) : document.execCommand("copy");
  copying.textContent = copied ? "Copied" : "Press Ctrl+C";
  setTimeout(() => { copying.textContent = "Copy"; }, 2000);
}

function describeModel() {
  const rows = {
    Version: `${modelName} ${facts.version || ""}`,
    Labels: labels.join(", "),
    Trained: facts.trained,
    "Trained by commit": facts.commit,
    Parameters: facts.parameters && facts.parameters.toLocaleString("en"),
  };
  for (const [form, { accuracy, photos, others_refused: others }] of Object.entries(facts.measured || {})) {
    if (accuracy) rows[`Test accuracy in ${form}`] = `${percent(accuracy)} of ${photos.toLocaleString("en")} held-out photos`;
    if (others) rows[`Other things noticed in ${form}`] = `${percent(others)} of photos that show none of the labels`;
  }
  for (const [name, value] of Object.entries(rows)) {
    if (!value) continue;
    const told = element("dd", "", value);
    if (name === "Version") told.id = "version";
    byId("model").append(element("dt", "", name), told);
  }
  const credits = (facts.examples || []).map(({ name, author, licence }) => `${name}: ${author} (${licence})`);
  if (credits.length) byId("credits").textContent = `Example photos: ${credits.join("; ")}.`;
}

/** The gateway has pages about the API; TorchServe's own port has only TorchServe's description of itself. */
async function linkDocs() {
  const gateway = !asked || await fetch(predictUrl, { headers: { Accept: "application/json" } })
    .then((response) => response.headers.has("Cross-Origin-Resource-Policy"), () => false);
  const links = gateway ? { "API documentation": "/docs", "OpenAPI": "/openapi.json" } : { "TorchServe's API as OpenAPI": "/api-description" };
  for (const [text, href] of Object.entries(links)) {
    const link = element("a", "", text);
    link.href = href;
    byId("links").append(link, " ");
  }
}

// ---- what people do

function listen() {
  const drop = byId("drop"), large = byId("large");
  const click = (id, act) => byId(id).addEventListener("click", act);
  click("drop", () => byId("files").click());
  click("choose-folder", () => byId("folder").click());
  click("take", openCamera);
  click("close", closeCamera);
  click("snap", snap);
  click("clear", clear);
  click("csv", () => save(asCsv(), "text/csv", `${modelName}.csv`));
  click("json", () => save(asJson(), "application/json", `${modelName}.json`));
  click("large-close", () => large.close());
  large.addEventListener("click", (event) => { if (event.target === large) large.close(); });  // beside the picture
  byId("unsure-first").addEventListener("change", sort);
  for (const id of ["files", "shot"]) byId(id).addEventListener("change", (event) => { add(event.target.files); event.target.value = ""; });
  byId("folder").addEventListener("change", (event) => { addFolder([...event.target.files]); event.target.value = ""; });
  byId("from").addEventListener("submit", askAddress);
  document.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
  document.addEventListener("drop", (event) => { event.preventDefault(); drop.classList.remove("over"); dropped(event.dataTransfer); });
  document.addEventListener("paste", pasted);
  if (matchMedia("(pointer: coarse)").matches) forFingers();
}

/** Phones have no folders to choose from, and nothing to drop. */
function forFingers() {
  byId("choose-folder").hidden = true;
  byId("drop").querySelector("strong").textContent = "Choose photos";
}

function askAddress(event) {
  event.preventDefault();
  const field = byId("address"), text = field.value.trim();
  if (!ADDRESS.test(text)) return tell("Give the address of a picture; it begins with https://");
  field.value = "";
  addAddress(text);
}

function pasted(event) {
  const { clipboardData: data, target } = event;
  if (data.files.length) return add(data.files);
  if (target instanceof HTMLInputElement) return;
  const address = addressIn(data);
  if (address) addAddress(address);
}

introduce();
offerExamples();
showSamples();
describeModel();
linkDocs();
listen();
