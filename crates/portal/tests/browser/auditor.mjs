// An auditor sees every page and changes nothing: not with what the pages offer, and not with any form
// that an administrator's pages offer, sent with the auditor's own cookie and CSRF value.
import { createHmac } from "node:crypto";
import assert from "node:assert/strict";

const PASSWORD = "correct horse battery staple";

// What an authenticator app shows (RFC 6238), so many steps from now.
function code(secret, steps) {
  const bits = [...secret].map((letter) => "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".indexOf(letter).toString(2).padStart(5, "0")).join("");
  const key = Buffer.from(bits.match(/.{8}/g).map((byte) => parseInt(byte, 2)));
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30_000) + steps));
  const tag = createHmac("sha1", key).update(counter).digest();
  const number = tag.readUInt32BE(tag[19] & 0xf) & 0x7fffffff;
  return String(number % 1_000_000).padStart(6, "0");
}

// Takes the link that an administrator made, then signs in elsewhere with password and authenticator.
export async function signIn(open, base, link, name) {
  const first = await open();
  const { pathname, search } = new URL(link);
  await first.goto(base + pathname + search);
  const secret = await first.locator("code").textContent();
  await first.getByLabel("Password, at least").fill(PASSWORD);
  await first.getByLabel("The same password again").fill(PASSWORD);
  await first.getByLabel("The code that the app shows now").fill(code(secret, 0));
  await first.getByRole("button", { name: "Continue" }).click();
  await first.getByRole("heading", { name: "Recovery codes" }).waitFor();
  const page = await open();
  await page.goto(`${base}/sign-in?next=/admin`);
  await page.getByLabel("Name").fill(name);
  await page.getByLabel("Password").fill(PASSWORD);
  await page.getByLabel("Code of your authenticator").fill(code(secret, 1));
  await page.getByRole("button", { name: "Sign in", exact: true }).click();
  await page.getByRole("heading", { level: 1, name: "Overview" }).waitFor();
  await first.context().close();
  return page;
}

// Every page that can be found by links from the start pages, with its status, and every form there that is sent:
// where to, with which fields, from which page.
export async function crawl(page, base) {
  const [pages, forms, todo] = [new Map(), new Map(), ["/", "/admin"]];
  while (todo.length > 0) {
    const path = todo.pop();
    if (pages.has(path)) continue;
    pages.set(path, (await page.goto(base + path)).status());
    const found = await page.evaluate(() => ({
      links: [...document.links].map((link) => link.href),
      forms: [...document.forms].filter((form) => form.method === "post")
        .map((form) => [new URL(form.action).pathname, [...new FormData(form)]]),
    }));
    for (const [action, fields] of found.forms) forms.set(action, { fields, from: path });
    for (const link of found.links) {
      const { origin, pathname, search } = new URL(link);
      if (origin === base && /^\/(admin(\/|$)|$)/.test(pathname)) todo.push(pathname + search);
    }
  }
  return { pages, forms };
}

// Sends a form from the page that is open; the status, which is 0 when the answer leads to another page.
const send = (page, action, fields) => page.evaluate(async ([action, fields]) => {
  const body = new URLSearchParams(fields);
  return (await fetch(action, { method: "POST", body, redirect: "manual" })).status;
}, [action, fields]);

// `tried` are the forms of the administrator's walk, `log` tells what the audit log says now.
export async function walk(page, base, { pages, tried, log }) {
  const own = await crawl(page, base);
  for (const [path, status] of own.pages) assert.equal(status, 200, `${path}, which a page offers an auditor`);
  assert.ok(own.pages.size >= 20, `an auditor finds ${own.pages.size} pages`);
  for (const [action, { from }] of own.forms) {
    const isOwn = action === "/sign-out" || (from === "/" && /^\/(sessions|devices)\/[^/]+\/end$/.test(action));
    assert.ok(isOwn, `${from} offers an auditor ${action}`);
  }
  // The pages of a change, found by an administrator only.
  for (const path of pages.keys()) {
    if (own.pages.has(path)) continue;
    const status = (await page.goto(base + path)).status();
    const posts = await page.locator("form[method=post]:not([action='/sign-out'])").count();
    assert.ok(status === 403 || (status === 200 && posts === 0), `${path}: ${status}, ${posts} forms`);
  }
  await page.goto(`${base}/admin`);
  const csrf = await page.locator("input[name=csrf]").first().inputValue();
  const before = await log();
  for (const [action, fields] of tried) {
    const status = await send(page, action, fields.map(([name, value]) => [name, name === "csrf" ? csrf : value]));
    assert.equal(status, 403, `an auditor sends ${action}`);
  }
  assert.equal(await log(), before, "an auditor changes nothing");
  // The CSRF value was good: the same one signs out.
  assert.equal(await send(page, "/sign-out", [["csrf", csrf]]), 0);
  assert.ok((await page.goto(`${base}/admin`)).url().includes("/sign-in"), "signed out");
}
