// Ask for every photo in every way, one request after the other: node ask.mjs fetch|axios URL PHOTOS.json > answers.json
import { readFile } from "node:fs/promises";
import process from "node:process";

const [client, url, list] = process.argv.slice(2);
const { send } = client === "axios" ? await import("./axios.mjs") : { send: withFetch };

async function withFetch(url, { body, type }) {
  const headers = type ? { "Content-Type": type } : {};
  const response = await fetch(url, { method: "POST", body, headers });
  return { status: response.status, text: await response.text() };
}

function form(photo) {
  const filled = new FormData();
  filled.append("file", new Blob([photo], { type: "image/jpeg" }), "photo.jpg");
  return { body: filled };
}

const ways = {
  raw: (photo) => ({ body: photo, type: "image/jpeg" }),
  form,
  json: (photo) => ({ body: JSON.stringify({ image: photo.toString("base64") }), type: "application/json" }),
};

const answers = [];
for (const { size, path } of JSON.parse(await readFile(list))) {
  const photo = await readFile(path);
  for (const [way, make] of Object.entries(ways)) {
    const hungUp = (error) => ({ status: 0, text: String(error) });
    answers.push({ way, size, ...(await send(url, make(photo)).catch(hungUp)) });
  }
}
console.log(JSON.stringify(answers));
