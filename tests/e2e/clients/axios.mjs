import axios from "axios";

// a text is the answer as it came, and no status is an exception
const options = { responseType: "text", transformResponse: (text) => text, validateStatus: () => true };

export async function send(url, { body, type }) {
  const headers = type ? { "Content-Type": type } : {};
  const { status, data } = await axios.post(url, body, { ...options, headers });
  return { status, text: data };
}
