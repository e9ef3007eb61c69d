// The session, and the stream of events: it is opened again until the dashboard has ended for good.

const KEY = "equabot-page-key";
const SILENCE = 30000; // the server sends every five seconds
const RENDER = { broker: [renderCredentials, renderAgents, renderFindings], traffic: [renderTraffic], audit: [renderAudit], changes: [renderChanges] };
let following = false;
let away = null; // the last status event

// The token is in the fragment, which browsers send to no server. It is spent here, and leaves the address at once.
async function exchange() {
  const token = location.hash.slice(1);
  if (!/^[\w-]{20,}$/.test(token)) return;
  history.replaceState(null, "", "/");
  try {
    const answer = await fetch("/session", { headers: { "Equabot-Token": token }, cache: "no-store" });
    if (answer.ok) localStorage.setItem(KEY, (await answer.json()).key);
  } catch {
    // The stream says what is wrong.
  }
}

function status(kind, text, banner = "", quiet = false) {
  byId("status").className = `status ${kind}`;
  write("status-text", text);
  write("banner-text", banner);
  byId("banner").hidden = !banner;
  byId("banner").className = quiet ? "banner quiet" : "banner";
  byId("main").classList.toggle("stale", kind !== "good");
}

function sentence(text) {
  return `${text.charAt(0).toUpperCase()}${text.slice(1).replace(/\.$/, "")}.`;
}

function renderStatus() {
  if (away === null) status("wait", "Reading the broker");
  else if (away.ok) status("good", "Live");
  else status("bad", "No broker", `${latest.broker ? `The broker stopped answering ${relative(away.since)}. The page shows its last answers. ` : ""}${sentence(away.words)} This page goes on by itself once a broker answers.`);
}

function receive(section, data) {
  if (section === "status") {
    away = data;
  } else {
    if (section === "traffic") setClock(data.now);
    latest[section] = data;
    for (const render of RENDER[section] ?? []) render(data);
    renderTiles();
  }
  renderStatus();
}

// Events of text/event-stream: blank lines end them.
async function* events(body, alive) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    alive();
    buffer += value;
    const parts = buffer.split("\n\n");
    buffer = parts.pop();
    for (const part of parts) {
      const fields = Object.fromEntries(part.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]));
      if (fields.event && fields.data) yield [fields.event, JSON.parse(fields.data)];
    }
  }
}

async function stream() {
  const abort = new AbortController();
  let timer = setTimeout(() => abort.abort(), SILENCE);
  const alive = () => {
    clearTimeout(timer);
    timer = setTimeout(() => abort.abort(), SILENCE);
  };
  try {
    const answer = await fetch("/events", { headers: { "Equabot-Page-Key": localStorage.getItem(KEY) ?? "" }, cache: "no-store", signal: abort.signal });
    if (answer.status === 401) return false;
    if (!answer.ok) return true;
    renderStatus();
    for await (const [section, data] of events(answer.body, alive)) receive(section, data);
  } catch {
    // It is opened again.
  } finally {
    clearTimeout(timer);
  }
  return true;
}

async function follow() {
  if (following) return;
  following = true;
  for (let pause = 500; await stream(); pause = Math.min(pause * 1.5, 5000)) {
    away = null;
    status("bad", "Dashboard ended", "The dashboard does not answer. If you ended it, run equabot dashboard and open the new link; this page tries again by itself.");
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
  following = false;
  status("bad", "Locked", "Open the link that equabot dashboard printed. Each link works once, in one browser; run the command again for a new one.", true);
}

addEventListener("hashchange", () => exchange().then(follow));
setInterval(() => { tick(); if (away && !away.ok) renderStatus(); }, 1000);
exchange().then(follow);
