/** The only door to the server: every request of the page goes through here, with the token, and nowhere else. */

import { remembered, tell } from "./bus.js";

/** What the server refused, in its own words. */
export class Refused extends Error {
  constructor(status, body) {
    super(body.what);
    this.status = status;
    this.code = body.code ?? "";
    this.what = body.what ?? "The server could not do this.";
    this.why = body.why ?? "";
    this.fix = body.fix ?? "";
  }
}

/** The server does not answer at all. */
export class Lost extends Error {
  constructor() {
    super("The server does not answer.");
    this.code = "";
    this.what = "The server does not answer.";
    this.why = "It was stopped, or this computer was asleep. Your drawing is kept in this page.";
    this.fix = "Start `neuromend review` again, or wait: the page tries again by itself.";
  }
}

/** The token stands in the address that `neuromend review` printed; it moves to this tab's own storage. */
function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    remembered.set("token", given);
    history.replaceState(null, "", location.pathname);
  }
  return remembered.get("token") ?? "";
}

const token = takeToken();

// A new address pasted into the same tab changes only what stands behind the #: begin again with that.
window.addEventListener("hashchange", () => location.reload());

async function ask(method, path, body, type) {
  const headers = { "X-Neuromend-Token": token };
  if (body !== undefined) headers["Content-Type"] = type;
  let answer;
  try {
    answer = await fetch(path, { method, headers, body, cache: "no-store", credentials: "omit", redirect: "error" });
  } catch {
    tell("connection", "lost");
    throw new Lost();
  }
  tell("connection", "there");
  if (!answer.ok) throw new Refused(answer.status, await plainWords(answer));
  return answer;
}

async function plainWords(answer) {
  if (answer.status === 401) {
    return {
      code: "WE-04",
      what: "This page does not hold the key of the running server.",
      why: "The server was started again, or the address was opened without its #token part.",
      fix: "Open the address that `neuromend review` printed when it started.",
    };
  }
  try {
    return await answer.json();
  } catch {
    return { what: `The server answered with status ${answer.status}.`, fix: "Look at the terminal where it runs." };
  }
}

const json = (value) => JSON.stringify(value ?? {});
const JSON_TYPE = "application/json";

export const get = async (path) => (await ask("GET", path)).json();
export const post = async (path, value) => (await ask("POST", path, json(value), JSON_TYPE)).json();
export const put = async (path, value) => (await ask("PUT", path, json(value), JSON_TYPE)).json();
export const upload = async (path, bytes) => (await ask("POST", path, bytes, "application/octet-stream")).json();
export const remove = async (path) => {
  await ask("DELETE", path);
};

/** The bytes of a volume, unpacked while they arrive: volumes travel as .nii.gz. */
export async function volumeBytes(id) {
  const answer = await ask("GET", `/api/files/${encodeURIComponent(id)}`);
  try {
    const bytes = await new Response(answer.body.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
    performance.mark("unpacked");
    return bytes;
  } catch {
    throw new Refused(200, {
      what: "The volume did not arrive whole.",
      why: "The connection broke off, or the file is damaged.",
      fix: "Choose the scan again.",
    });
  }
}

export async function blob(path) {
  return (await ask("GET", path)).blob();
}

export async function packed(bytes) {
  return new Response(new Blob([bytes]).stream().pipeThrough(new CompressionStream("gzip"))).arrayBuffer();
}
