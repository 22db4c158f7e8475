"""An administrator in a browser, from the link of the first run to a device that is signed in.

Nothing here knows more than the pages show: it follows links, fills in forms with the fields that they have, and copies
what they say is to be copied. It prints one JSON object a line, and reads where a device wants to be approved from its
standard input.
"""

import hashlib
import hmac
import http.cookiejar
import json
import re
import ssl
import struct
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from base64 import b32decode
from html.parser import HTMLParser


class Forms(HTMLParser):
    """The forms of a page, each with its action and the values that it has already; and what is to be copied."""

    def __init__(self, text):
        super().__init__()
        self.forms, self.codes, self._select, self._code = [], [], None, False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "form":
            self.forms.append((attributes.get("action", ""), {}))
        elif tag in ("code", "pre", "textarea"):
            self._code = True
            self.codes.append("")
        elif tag == "input" and self.forms and "name" in attributes:
            is_choice = attributes.get("type") in ("checkbox", "radio")
            if not is_choice or "checked" in attributes:
                self.forms[-1][1].setdefault(attributes["name"], attributes.get("value", ""))
        elif tag == "select" and self.forms:
            self._select = attributes.get("name")
        elif tag == "option" and self._select:
            fields = self.forms[-1][1]
            if "selected" in attributes or self._select not in fields:
                fields[self._select] = attributes.get("value", "")

    def handle_endtag(self, tag):
        if tag == "select":
            self._select = None
        elif tag in ("code", "pre", "textarea"):
            self._code = False

    def handle_data(self, data):
        if self._code:
            self.codes[-1] += data


class Browser:
    def __init__(self, base, ca):
        self.base, self.path, self.text = base, "/", ""
        context = ssl.create_default_context(cafile=ca)
        cookies = http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPSHandler(context=context),
            urllib.request.HTTPCookieProcessor(cookies),
        )

    def open(self, path, fields=None):
        address = urllib.parse.urljoin(self.base + self.path, path)
        body = None if fields is None else urllib.parse.urlencode(fields).encode()
        request = urllib.request.Request(address, body)
        if body is not None:
            request.add_header("Origin", self.base)
            request.add_header("Sec-Fetch-Site", "same-origin")
        try:
            with self.opener.open(request, timeout=20) as answer:
                self.text = answer.read().decode()
                self.path = urllib.parse.urlparse(answer.geturl()).path
        except urllib.error.HTTPError as error:
            page = re.sub(r"<[^>]+>", " ", error.read().decode())
            raise SystemExit(f"{address}: {error.code}: {' '.join(page.split())[:500]}")
        return self.text

    def submit(self, action, **fields):
        """Fills in the first form whose action holds `action`; the other fields stay as they are."""
        forms = Forms(self.text).forms
        found = [form for form in forms if action in form[0]]
        if not found:
            raise SystemExit(f"{self.path}: no form for {action}, only {[form[0] for form in forms]}")
        target, values = found[0]
        return self.open(target, {**values, **fields})


def code(secret):
    """RFC 6238, as an authenticator app does."""
    key = b32decode(secret.replace(" ", ""))
    digest = hmac.new(key, struct.pack(">Q", int(time.time()) // 30), hashlib.sha1).digest()
    start = digest[-1] & 15
    number = struct.unpack(">I", digest[start : start + 4])[0] & 0x7FFFFFFF
    return f"{number % 1_000_000:06}"


def say(**fields):
    print(json.dumps(fields), flush=True)


def main():
    link, ca, network = sys.argv[1:]
    parts = urllib.parse.urlparse(link)
    browser = Browser(f"{parts.scheme}://{parts.netloc}", ca)
    browser.open(f"{parts.path}?{parts.query}")
    secret = next(text for text in Forms(browser.text).codes if re.fullmatch(r"[A-Z2-7 ]{16,}", text))
    password = "a long password of the first run"
    browser.submit("/welcome", password=password, again=password, code=code(secret))
    browser.open("/admin")
    say(step="admin_page")

    browser.open("/admin/sites/new")
    browser.submit("/admin/sites/new", name="office")
    site = browser.path
    browser.open("/admin/resources/new")
    browser.submit("/admin/resources/new", name="office network", kind="cidr", address=network)
    browser.open("/admin/policies/new")
    browser.submit("/admin/policies/new", resource="office network")
    browser.open(site)
    browser.submit("/deploy")
    say(step="gateway", command=next(text for text in Forms(browser.text).codes if "ADIT_TOKEN" in text))
    browser.open("/")
    say(step="device", command=next(text for text in Forms(browser.text).codes if "adit login" in text))

    page = sys.stdin.readline().strip()
    browser.open(page)
    browser.submit("/device")
    browser.submit("/decide", decision="approve")
    say(step="approved")


main()
