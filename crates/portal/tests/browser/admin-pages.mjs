// Walks the admin pages as an administrator would, in a real browser. The test in Rust that
// starts this plays the gateway and the device: a line on standard output asks it to.
import { createRequire } from "node:module";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import assert from "node:assert/strict";
import { crawl, signIn, walk } from "./auditor.mjs";

const require = createRequire(join(process.env.ADIT_NODE_MODULES, "x.js"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const { ADIT_URL: base, ADIT_COOKIE: cookie, ADIT_SHOTS: shots } = process.env;
mkdirSync(shots, { recursive: true });

const MARKUP = `<b id="injected">"'&`;
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium-headless-shell", args: ["--no-sandbox"] });
const faults = [];

async function open(options = {}, isAdmin = true) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, ...options });
  const [name, value] = cookie.split("=", 2);
  if (isAdmin) await context.addCookies([{ name, value, url: base.replace("http:", "https:"), secure: true, httpOnly: true, sameSite: "Lax" }]);
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  page.on("console", (message) => {
    if (message.type() === "error" && !message.text().includes("status of 4")) faults.push(message.text());
  });
  page.on("pageerror", (error) => faults.push(String(error)));
  return page;
}

const page = await open();
const go = async (path) => {
  const answer = await page.goto(base + path, { waitUntil: "load" });
  assert.equal(answer.status(), 200, path);
};
const title = (text) => page.getByRole("heading", { level: 1, name: text, exact: true }).waitFor();
const shot = (name, of = page) => of.screenshot({ path: join(shots, `${name}.png`), fullPage: true });
const press = (name) => page.locator("main").getByRole("button", { name, exact: true }).click();
const follow = (name) => page.locator("main .head").getByRole("link", { name, exact: true }).click();

// The first visit says what to do.
await go("/admin");
await page.getByRole("heading", { name: "First steps" }).waitFor();
await shot("overview-empty");

// The keyboard: the skip link comes first, and leads to the content.
await page.keyboard.press("Tab");
assert.equal(await page.evaluate(() => document.activeElement.className), "skip");
await shot("skip-link");
await page.keyboard.press("Enter");
await page.keyboard.press("Tab");
assert.ok(await page.evaluate(() => document.querySelector("main").contains(document.activeElement)), "skipped to the content");

// A site, and a gateway that turns the page green by itself.
await go("/admin/sites/new");
await page.getByLabel("Name").fill(`Berlin ${MARKUP}`);
await page.keyboard.press("Enter");
await title(`Berlin ${MARKUP}`);
const site = new URL(page.url()).pathname;
await shot("site-empty");
await page.locator("main .head").getByRole("button", { name: "Deploy a gateway" }).click();
await title("Deploy a gateway");
const command = await page.locator(".copy code").textContent();
const token = /ADIT_TOKEN=(\S+)/.exec(command)[1];
await page.evaluate(() => { window.sameDocument = true; });
await shot("deploy-waiting");
console.log(`GATEWAY ${token}`);
await page.locator("#blocks .note.good").waitFor();
assert.ok(await page.evaluate(() => window.sameDocument), "turned green without a reload");
assert.ok((await page.locator(".copy code").textContent()).includes(token), "the command stays");
await shot("deploy-connected");

// A resource, refused first for what is wrong with it.
await go(`/admin/resources/new?site=${site.split("/").pop()}`);
await page.getByLabel("Name", { exact: true }).fill(`Wiki ${MARKUP}`);
await page.getByLabel("Address").fill("not an address");
await press("Create resource");
await page.getByRole("alert").waitFor();
await shot("resource-wrong");
await page.getByLabel("Address").fill("wiki.corp.example");
await page.getByLabel("Lets through").fill("tcp/443 tcp/8000-8080 icmp");
await press("Create resource");
await title(`Wiki ${MARKUP}`);
const resource = new URL(page.url()).pathname;

// A person in a group.
await go("/admin/people/new");
await page.getByLabel("Name").fill(`Ana ${MARKUP}`);
await press("Create");
await title(`Ana ${MARKUP}`);
const person = new URL(page.url()).pathname;
await go("/admin/groups/new");
await page.getByLabel("Name").fill(`Staff ${MARKUP}`);
await press("Create group");
await title(`Staff ${MARKUP}`);
const group = new URL(page.url()).pathname;
const field = page.getByLabel("Add a member");
await field.pressSequentially("ana");
await page.waitForFunction((name) => {
  const options = [...document.querySelectorAll("datalist option")];
  return options.length === 1 && options[0].value === name;
}, `Ana ${MARKUP}`);
await field.fill(`Ana ${MARKUP}`);
await press("Add");
await page.getByRole("link", { name: `Ana ${MARKUP}`, exact: true }).waitFor();

// A policy from the page of the resource; why is it not granted before, why is it after.
const explain = async () => {
  await go(`/admin/explain?${new URLSearchParams({ person: `Ana ${MARKUP}`, resource: `Wiki ${MARKUP}` })}`);
};
await explain();
await page.locator(".note.bad", { hasText: "no policy names the resource" }).waitFor();
await go(resource);
await follow("Let a group reach it");
await page.getByLabel("Group").selectOption({ label: `Staff ${MARKUP}` });
await page.getByLabel("Only on devices that an administrator has verified").check();
await press("Create policy");
await title(`Staff ${MARKUP} → Wiki ${MARKUP}`);
const policy = new URL(page.url()).pathname;
await explain();
await page.locator(".note.bad").waitFor();
await page.locator("td", { hasText: "the device is not verified" }).waitFor();
await shot("explain-refused");
await go(`${policy}/edit`);
assert.ok(await page.getByLabel("Only on devices that an administrator has verified").isChecked());
await page.getByLabel("Only on devices that an administrator has verified").uncheck();
for (const day of ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]) {
  await page.getByLabel(day).check();
}
await page.getByLabel("Time zone").fill("Europe/Berlin");
await shot("policy-edit");
await press("Save conditions");
// It may take something away: the page says from whom, and changes nothing before it is confirmed.
await page.getByText("1 permission will change and 0 live connections will end at once.").waitFor();
await page.getByRole("cell", { name: "under other conditions" }).waitFor();
await shot("policy-rehearsal");
await press("Change the conditions");
await title(`Staff ${MARKUP} → Wiki ${MARKUP}`);
await explain();
await page.locator(".note.good").waitFor();

// A token, shown once; the device that has it connects, and its access appears by itself.
await go(`/admin/tokens/new?${new URLSearchParams({ person: `Ana ${MARKUP}` })}`);
await page.getByLabel("Name").fill(`Laptop ${MARKUP}`);
await press("Create token");
const client = await page.locator(".copy code").textContent();
await shot("token-new");
await go("/admin/authorizations");
await page.evaluate(() => { window.sameDocument = true; });
await page.getByText("Nobody is connected").waitFor();
console.log(`CLIENT ${client}`);
const revoke = page.getByRole("link", { name: /^Revoke/ });
await revoke.waitFor();
assert.ok(await page.evaluate(() => window.sameDocument), "appeared without a reload");

// An identity provider, refused first; its secret is on no page. And where flows are sent.
await go("/admin/settings");
await follow("New identity provider");
await page.getByLabel("Name", { exact: true }).fill("corp");
await page.getByLabel("Issuer").fill("http://login.corp.example");
await page.getByLabel("Client id").fill("adit");
await page.getByLabel("Client secret").fill("a-secret-that-nobody-sees");
await page.getByLabel("Claim with groups").fill("groups");
await press("Create provider");
await page.getByRole("alert").waitFor();
assert.equal(await page.getByLabel("Client secret").inputValue(), "", "a secret does not come back");
await page.getByLabel("Issuer").fill("https://login.corp.example");
await page.getByLabel("Client secret").fill("a-secret-that-nobody-sees");
await press("Create provider");
await title("corp");
const provider = new URL(page.url()).pathname;
await page.getByText("set, and never shown").waitFor();
await follow("Change");
await page.getByLabel("Email domains").fill("corp.example");
await press("Save");
await title("corp");
await page.getByText("set, and never shown").waitFor();
assert.ok(!(await page.content()).includes("a-secret"), "the secret is not on the page");
await follow("Disable");
await page.getByText("Nobody has signed in with it.").waitFor();
await press("Disable the provider");
await title("corp");
await press("Enable");
await page.getByText("enabled", { exact: true }).waitFor();
await go("/admin/flows/sink");
await page.getByLabel("Address").fill("https://127.0.0.1:9/adit");
await page.getByLabel("Secret", { exact: true }).fill("Bearer a-secret-that-nobody-sees");
await press("Send flows there");
await page.getByText("set, and never shown").waitFor();

// What every page of a portal in use looks like: in light and dark, wide and narrow, for axe too.
const pages = {
  overview: "/admin", access: "/admin/authorizations", sites: "/admin/sites", site, resources: "/admin/resources",
  resource, "resource-new": "/admin/resources/new", "resource-edit": `${resource}/edit`, policies: "/admin/policies",
  policy, "policy-new": "/admin/policies/new", "policy-disable": `${policy}/disable`,
  explain: `/admin/explain?${new URLSearchParams({ person: `Ana ${MARKUP}`, resource: `Wiki ${MARKUP}` })}`,
  people: "/admin/people", person, "person-delete": `${person}/delete`, groups: "/admin/groups", group,
  "group-delete": `${group}/delete`, devices: "/admin/devices", sessions: "/admin/sessions",
  relays: "/admin/relays", tokens: "/admin/tokens", "token-form": "/admin/tokens/new", audit: "/admin/audit", flows: "/admin/flows",
  settings: "/admin/settings", "settings-edit": "/admin/settings/edit", provider, "provider-new": "/admin/providers/new",
  "provider-edit": `${provider}/edit`, "provider-delete": `${provider}/delete`, sink: "/admin/flows/sink",
};
for (const scheme of ["light", "dark"]) {
  const look = await open({ colorScheme: scheme });
  for (const [name, path] of Object.entries(pages)) {
    await look.setViewportSize({ width: 1280, height: 860 });
    const answer = await look.goto(base + path);
    assert.equal(answer.status(), 200, path);
    assert.equal(await look.locator("#injected").count(), 0, `${name}: a name became markup`);
    await shot(`${name}-${scheme}`, look);
    await look.setViewportSize({ width: 360, height: 740 });
    const width = await look.evaluate(() => document.scrollingElement.scrollWidth);
    assert.ok(width <= 360, `${name}: ${width} px wide on a phone`);
    await shot(`${name}-${scheme}-phone`, look);
    // By the debugger, since the pages' policy lets no other script in.
    await look.evaluate(axe);
    for (const width of [1280, 360]) {
      await look.setViewportSize({ width, height: 860 });
      const found = await look.evaluate(() => window.axe.run(document));
      const bad = found.violations.filter((one) => ["serious", "critical"].includes(one.impact));
      const text = bad.map((one) => `${one.id}: ${one.nodes.map((node) => node.html.slice(0, 200)).join(" | ")}`);
      if (text.length) faults.push(`${name} (${scheme}, ${width} px): ${text.join("; ")}`);
    }
  }
  await look.context().close();
}

// An auditor, who signs in with a link, a password and an authenticator.
await go("/admin/people/new");
await page.getByLabel("Name").fill("Olga");
await page.getByLabel("Role").selectOption("auditor");
await press("Create");
await title("Olga");
await page.getByRole("button", { name: "Sign-in link" }).click();
await title("A link for Olga");
const link = await page.locator(".copy code").textContent();
const auditor = await signIn(() => open({}, false), base, link, "Olga");

// Something of everything that an administrator may change, so that the pages offer every form.
await go("/admin/people/new");
await page.getByLabel("Name").fill("Ben");
await press("Create");
await title("Ben");
await go(`${new URL(page.url()).pathname}/disable`);
await press("Disable");
await title("Ben");
await go("/admin/groups/new");
await page.getByLabel("Name").fill("Guests");
await press("Create group");
await title("Guests");
await go(`/admin/policies/new?${new URLSearchParams({ resource: `Wiki ${MARKUP}` })}`);
await page.getByLabel("Group").selectOption({ label: "Guests" });
await press("Create policy");
await title(`Guests → Wiki ${MARKUP}`);
await go(`${new URL(page.url()).pathname}/disable`);
await press("Disable the policy");
await title(`Guests → Wiki ${MARKUP}`);
await go("/admin/providers/new");
await page.getByLabel("Name", { exact: true }).fill("other");
await page.getByLabel("Issuer").fill("https://login.other.example");
await page.getByLabel("Client id").fill("adit");
await press("Create provider");
await title("other");
await follow("Disable");
await press("Disable the provider");
await title("other");
const unverified = await crawl(page, base);
await go("/admin/devices");
await page.getByRole("button", { name: /^Verify/ }).click();
await page.getByText("verified", { exact: true }).waitFor();
const verified = await crawl(page, base);
const offered = new Map([...unverified.forms, ...verified.forms]);
offered.delete("/sign-out");
const tried = [...offered].map(([action, { fields }]) => [action, fields]);
await walk(auditor, base, {
  pages: new Map([...unverified.pages, ...verified.pages]),
  tried,
  log: async () => {
    await go("/admin/audit");
    return page.locator("main table").innerText();
  },
});
for (const [action] of tried) console.log(`REFUSED ${action}`);
await auditor.context().close();

// The menu on a phone, by keyboard alone.
const phone = await open({ viewport: { width: 360, height: 740 } });
await phone.goto(`${base}/admin`);
await phone.getByRole("button", { name: "Menu" }).focus();
await phone.keyboard.press("Enter");
await phone.getByRole("link", { name: "Policies", exact: true }).waitFor();
await shot("menu-phone", phone);
await phone.keyboard.press("Escape");
assert.equal(await phone.getByRole("link", { name: "Policies", exact: true }).isVisible(), false);
await phone.context().close();

// `/` searches while one types.
await go("/admin/resources");
await page.keyboard.press("/");
await page.keyboard.type("nothing like this");
await page.getByText("No resource has this in its name or address").waitFor();
assert.ok(page.url().includes("q=nothing"), "the address follows");
await page.getByRole("searchbox").fill("WIKI");
await page.getByRole("link", { name: `Wiki ${MARKUP}`, exact: true }).waitFor();

// A change that is not ours is refused.
const forged = await page.evaluate(async (path) => {
  const body = new URLSearchParams({ csrf: "made up", name: "forged" });
  return (await fetch(path, { method: "POST", body, redirect: "manual" })).status;
}, "/admin/sites/new");
assert.equal(forged, 403, "a made-up CSRF value");

// Revoking says what it takes away first, and the page loses the row by itself in another window.
await go("/admin/authorizations");
const watcher = await open();
await watcher.goto(`${base}/admin/authorizations`);
await watcher.getByRole("link", { name: /^Revoke/ }).waitFor();
await revoke.click();
await page.getByText("1 live connection will end at once").waitFor();
await shot("revoke");
await press("Revoke");
await title("Live access");
await watcher.getByText("Nobody is connected").waitFor();

// Deleting the group says who loses what.
await go(`${group}/delete`);
await page.getByText("This takes access away.").waitFor();
await page.getByRole("cell", { name: `Wiki ${MARKUP}` }).first().waitFor();
await press("Delete the group");
await title("Groups");

// A page whose session has ended says so.
console.log("END");
await watcher.locator("#connection", { hasText: "Your session has ended" }).waitFor();
await shot("session-ended", watcher);
await browser.close();
assert.equal(faults.join("\n"), "", "what the browser and axe complain of");
console.log("DONE");
