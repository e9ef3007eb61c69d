// What each section of the page shows of the broker's answers.

const CONDITIONS = {
  reauth_required: ["bad", "✕", "login needed"], rejected: ["bad", "✕", "rejected"], expired: ["bad", "✕", "expired"],
  missing: ["bad", "✕", "missing"], invalid: ["bad", "✕", "invalid"], cooldown: ["warn", "◔", "cooldown"],
  expiring: ["warn", "▲", "expiring"], ok: ["good", "✓", "ok"], static: ["good", "✓", "ok"],
};
const OUTCOMES = {
  ok: "ok", refreshed: "ok", adopted: "ok", rate_limit: "limited", transient: "client", timeout: "client", format: "client", uncertain: "client",
};
const latest = { broker: null, traffic: null, audit: null };

function badge(kind, text, sign = "") {
  return h("span", { class: `badge ${kind}` }, sign && h("span", { "aria-hidden": "true" }, sign), text);
}

// --- credentials

const FARTHEST = 400 * 86400;
const MARKS = [[0, "now"], [3600, "1 h"], [86400, "1 day"], [7 * 86400, "1 week"], [30 * 86400, "1 month"], [FARTHEST, "1 year"]];
function place(seconds) {
  const scaled = Math.log1p(Math.max(seconds, 0) / 300) / Math.log1p(FARTHEST / 300);
  return `${Math.min(scaled, 1) * 100}%`;
}

function axis() {
  return h("div", { class: "axis", "aria-hidden": "true" }, h("div", { class: "marks" }, MARKS.map(([at, text]) => {
    const mark = h("span", {}, text);
    mark.style.left = place(at);
    return mark;
  })));
}

const fresh = new Map(); // a profile's id: until when its row is marked
const versions = new Map();

const NAMED = 3;
function named(agents, all) {
  if (all > 1 && agents.length === all) return `all ${all} agents`;
  const more = agents.length - NAMED;
  return more > 1 ? `${agents.slice(0, NAMED).join(", ")} and ${more} more agents` : agents.join(", ");
}

function credential(one, suspended, agentCount) {
  const [kind, sign, text] = CONDITIONS[one.condition] ?? ["bad", "?", one.condition];
  const blocked = Math.max(one.cooldownUntil ?? 0, one.disabledUntil ?? 0);
  const ended = one.condition !== "missing" && one.expiresAt !== null && one.expiresAt <= now();
  const track = timed("div", { class: `track ${one.expiresAt === null ? "none" : ""} ${kind}` }, (node) => {
    if (one.expiresAt === null) return;
    if (!node.firstChild) node.append(h("div", { class: "fill" }));
    node.firstChild.style.width = place(one.expiresAt - now());
  });
  const end = one.expiresAt === null ? h("span", { class: "dim" }, "no end known") : when(one.expiresAt, ended ? "ended " : "ends ", { class: kind });
  const withheld = one.withheld.filter(({ agent, reason }) => reason !== one.reason && !suspended.has(agent));
  const why = [one.reason === "ok" ? "" : one.reason, one.condition === "cooldown" ? one.disabledReason : ""].filter(Boolean).join(" · ");
  const about = [one.provider, one.mode, one.source].filter(Boolean).join(" · ");
  return h("li", { class: `cred ${(fresh.get(one.id) ?? 0) > Date.now() ? "fresh" : ""}`, "data-id": one.id, "data-version": one.version },
    h("div", { class: "who" },
      h("p", {}, h("span", { class: "name" }, one.id), badge(kind, text, sign), one.next.length > 0 && badge("info", "serves next")),
      h("p", { class: "dim" }, about),
      one.agents.length > 0 && h("p", { class: "dim" }, `for ${named(one.agents, agentCount)}`)),
    h("div", { class: "bar" }, track),
    h("p", { class: "when" }, end),
    (why || blocked > now() || one.retryAt) && h("p", { class: `why ${kind === "good" ? "dim" : kind}` },
      why, blocked > now() && when(blocked, `${why ? " · " : ""}ready `), one.retryAt > now() && blocked <= now() && when(one.retryAt, `${why ? " · " : ""}tried again `)),
    withheld.map(({ agent, reason }) => h("p", { class: "why dim" }, `not for ${agent}: ${reason}`)));
}

function renderCredentials(broker) {
  for (const one of broker.profiles) {
    if (versions.has(one.id) && versions.get(one.id) !== one.version) fresh.set(one.id, Date.now() + 15000);
    versions.set(one.id, one.version);
  }
  const more = broker.profileCount - broker.profiles.length;
  write("credentials-note", broker.profileCount ? `${count(broker.profileCount, "profile")}, worst first${more > 0 ? `; ${more} more are not shown` : ""}` : "");
  if (!broker.profiles.length) {
    show("credentials-body", h("p", { class: "empty" }, "The broker has no credential yet. Add one: ", h("code", {}, "equabot onboard")));
    return;
  }
  const suspended = new Set(broker.agents.filter((agent) => agent.suspended).map((agent) => agent.agent));
  show("credentials-body", axis(), h("ul", { class: "live", id: "credential-list" }, broker.profiles.map((one) => credential(one, suspended, broker.agentCount))));
}

// --- agents

function renderAgents(broker) {
  const leases = Map.groupBy ? Map.groupBy(broker.leases, (lease) => lease.agent) : group(broker.leases);
  write("agents-note", `${count(broker.leaseCount, "active lease")}, ${count(broker.agentCount, "agent")}`);
  show("agents-body", h("ul", { class: "live" }, broker.agents.map((agent) => {
    const own = leases.get(agent.agent) ?? [];
    const state = agent.suspended ? badge("bad", "suspended", "✕") : agent.configured ? badge("good", "active", "✓") : badge("", "not configured");
    return h("li", { class: "agent", "data-agent": agent.agent },
      h("div", { class: "row" },
        h("p", { class: "whose" }, h("span", { class: "name" }, agent.agent), state),
        h("span", { class: "dim" }, h("meter", { min: 0, max: agent.maxLeases || 1, value: agent.leases, high: (agent.maxLeases || 1) * 0.9, "aria-label": `leases of ${agent.agent}` }),
          ` ${agent.leases}${agent.maxLeases ? ` of ${agent.maxLeases}` : ""}`)),
      agent.suspended && h("p", { class: "bad" }, agent.since && when(agent.since, "suspended "), agent.reason && `: ${agent.reason}`),
      own.length > 0 && h("details", { "data-key": agent.agent },
        h("summary", {}, `Show ${count(own.length, "lease")}`),
        h("ul", {}, own.map((lease) => h("li", { class: "lease" },
          h("span", {}, lease.profile, " ", badge(lease.delivery === "raw" ? "warn" : "info", lease.delivery), lease.session && ` session ${lease.session}`),
          h("span", { class: "dim" }, lease.streaming ? "held by a stream" : when(lease.expiresAt, "ends ")))))));
  })));
}
function group(leases) {
  const found = new Map();
  for (const lease of leases) found.set(lease.agent, [...(found.get(lease.agent) ?? []), lease]);
  return found;
}

// --- findings, sources, changes

const SEVERITIES = { error: ["bad", "✕"], warning: ["warn", "▲"], info: ["info", "i"] };

function renderFindings(broker) {
  const grave = broker.findings.filter((one) => one.severity !== "info").length;
  write("findings-note", `${grave ? count(grave, "finding needs", "findings need") + " attention" : "nothing needs attention"}`);
  const findings = broker.findings.map((one) => {
    const [kind, sign] = SEVERITIES[one.severity] ?? ["info", ""];
    return h("li", { class: "share" },
      h("p", {}, badge(kind, one.severity, sign), " ", h("span", { class: "name" }, one.subject)),
      h("p", {}, one.message),
      one.remedy && h("p", { class: "dim" }, "→ ", one.remedy));
  });
  const more = broker.findingCount - broker.findings.length;
  if (more > 0) findings.push(h("li", { class: "share dim" }, `${more} more are not shown`));
  const sources = broker.sources.map((one) => h("li", { class: "share" },
    h("p", { class: "row" }, h("span", { class: "name" }, one.name),
      badge(one.state === "synced" ? "good" : "warn", one.state, one.state === "synced" ? "✓" : "▲")),
    h("p", { class: "dim" }, count(one.profiles, "profile"), one.syncedAt && when(one.syncedAt, ", read ")),
    one.fault && h("p", { class: "warn" }, one.fault)));
  show("findings-body",
    findings.length > 0 && h("h3", {}, "Findings"), h("ul", { class: "live" }, findings),
    sources.length > 0 && h("h3", {}, "Sources"), h("ul", { class: "live" }, sources));
}

function renderChanges({ changes }) {
  if (!changes.length) return;
  show("changes-body", h("ul", {}, changes.map((one) => h("li", { class: "line" },
    when(one.at),
    h("span", {}, h("span", { class: "name" }, one.subject), " ", h("span", { class: one.kind }, one.text))))));
}

// --- traffic

function renderTraffic(traffic) {
  write("traffic-note", traffic.ok ? "gateway and leases, last 10 minutes" : traffic.words, traffic.ok ? "note" : "note warn");
  if (!traffic.times.length) {
    const waiting = () => h("p", { class: "empty" }, traffic.ok ? "The charts begin in a few seconds." : "Waiting for the metrics.");
    show("traffic-body", waiting());
    if (!traffic.ok) show("outcomes-body", waiting());
    if (!traffic.ok) return;
  } else {
    renderCharts(traffic);
  }
  renderOutcomes(traffic);
}

function renderCharts(traffic) {
  show("traffic-body",
    bars("Requests through the gateway", [
      ["ok", "answered", traffic.requests.ok], ["limited", "429", traffic.requests.limited],
      ["client", "4xx or refused", traffic.requests.client.map((value, i) => value + traffic.refused[i])],
      ["server", "5xx or no answer", traffic.requests.server]], "in 5 s"),
    traffic.latency.p50.some((value) => value !== null)
      ? lines("Latency through the gateway", [["ok", "half within", traffic.latency.p50], ["client", "95 % within", traffic.latency.p95]])
      : lines("Latency of lease requests", [["ok", "half within", traffic.acquire.p50], ["client", "95 % within", traffic.acquire.p95]]),
    bars("Leases", [["ok", "granted", traffic.granted], ["server", "denied", traffic.denied]], "in 5 s"));
}

function renderOutcomes(traffic) {
  const tables = [["Provider answers", traffic.outcomes, "outcome"], ["Login refreshes", traffic.refreshes, "outcome"],
    ["Refused by the gateway", traffic.refusals, "reason"]];
  const shown = tables.flatMap(([title, rows, key]) => {
    if (!rows.length) return [];
    const providers = [...new Set(rows.map((row) => row.provider))];
    return [h("h3", {}, title), ...providers.map((provider) => shares(provider || "unknown", rows.filter((row) => row.provider === provider)
      .map((row) => [key === "reason" ? "client" : OUTCOMES[row[key]] ?? "server", row[key], row.count])))];
  });
  show("outcomes-body", shown.length ? shown : h("p", { class: "empty" }, "No provider has answered yet."));
}

// --- audit

function renderAudit(audit) {
  const kind = audit.ok === true ? "good" : audit.ok === false ? "bad" : "dim";
  const sign = audit.ok === true ? "✓ " : audit.ok === false ? "✕ " : "";
  write("audit-note", audit.where);
  write("audit-verdict", sign + audit.words, `verdict ${kind}`);
  if (!audit.records.length) {
    show("audit-body");
    return;
  }
  const row = (one) => h("tr", {},
    h("td", { class: "num" }, one.seq), h("td", { class: "at" }, one.at.slice(0, 19).replace("T", " ")),
    h("td", { class: "name" }, one.kind), h("td", {}, one.agent), h("td", {}, one.profile || one.provider), h("td", { class: "dim" }, one.detail));
  show("audit-body", h("table", {},
    h("thead", {}, h("tr", {}, ["record", "time (UTC)", "event", "agent", "profile", "details"].map((text) => h("th", { scope: "col" }, text)))),
    h("tbody", {}, audit.records.map(row))));
}

// --- summary

function tile(name, value, below, kind = "") {
  return h("dl", { class: "tile" }, h("dt", {}, name), h("dd", {}, value), h("dd", { class: `sub ${kind}` }, below));
}

function renderTiles() {
  const { broker, traffic, audit } = latest;
  const tiles = [];
  if (broker) {
    const grave = broker.profiles.filter((one) => (CONDITIONS[one.condition] ?? ["bad"])[0] === "bad").length;
    const ends = broker.profiles.map((one) => one.expiresAt).filter((at) => at !== null && at > now());
    const streams = broker.agents.reduce((sum, agent) => sum + agent.streams, 0);
    const suspended = broker.agents.filter((agent) => agent.suspended).length;
    tiles.push(
      tile("Credentials", broker.profileCount, !broker.profileCount ? "none yet" : grave ? `${grave} cannot be used` : "all can be used", grave ? "bad" : ""),
      tile("Next end", ends.length ? span(Math.min(...ends) - now()).split(" ")[0] : "–", ends.length ? "until a credential ends" : "no end is known"),
      tile("Active leases", broker.leaseCount, `${count(streams, "stream")}`),
      tile("Agents", broker.agentCount, suspended ? `${suspended} suspended` : "none suspended", suspended ? "bad" : ""));
  }
  if (traffic?.times.length) {
    const last = (values) => values.slice(-12).reduce((sum, value) => sum + value, 0);
    const total = last(traffic.requests.ok) + last(traffic.requests.client) + last(traffic.requests.limited) + last(traffic.requests.server);
    const failed = total - last(traffic.requests.ok);
    tiles.push(tile("Requests, last minute", total.toLocaleString("en"), failed ? `${failed} refused or failed` : "through the gateway", failed ? "warn" : ""));
  }
  if (audit && tiles.length) {
    const verdict = audit.ok === true ? ["whole", "good"] : audit.ok === false ? ["not whole", "bad"] : ["–", ""];
    tiles.push(tile("Audit log", verdict[0], audit.ok === false ? "see below" : audit.ok === null ? "not verified here" : count(audit.records[0]?.seq ?? 0, "record"), verdict[1]));
  }
  show("tiles", tiles);
}
