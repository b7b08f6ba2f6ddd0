"""What a person does on the page, in a real Chromium. Run by the python of .peers/browser; see test_page.py.

Reads a line of JSON for each visit ({"flow", "url", "arguments", "context"}) and answers with one: what the flow gives,
or its traceback; and what no visit may bring: errors of scripts, violations of the policy, requests to elsewhere.
"""

# ruff: noqa: RUF001  (the page has typographic quotes)

from __future__ import annotations

import json
import sys
import traceback
from typing import Any
from urllib.parse import quote, urlsplit

from playwright.sync_api import Browser, Page, sync_playwright

VIOLATIONS = "addEventListener('securitypolicyviolation', e => console.error('policy: ' + e.violatedDirective))"


def model(page: Page, url: str, name: str) -> None:
    page.goto(f"{url}/#model={quote(name)}")
    page.get_by_role("heading", level=1, name=name, exact=True).wait_for()


def strokes(page: Page, points: list[list[float]]) -> None:
    """Draw with the pointer; points are parts of the board's width and height."""
    page.locator(".board").scroll_into_view_if_needed()
    box = page.locator(".board").bounding_box()
    assert box is not None
    at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*at[0])
    page.mouse.down()
    for x, y in at[1:]:
        page.mouse.move(x, y, steps=8)
    page.mouse.up()


def bars(page: Page) -> list[list[Any]]:
    """Each bar's label, its length on the screen and its percentage, from the top."""
    page.locator(".bars li").first.wait_for()
    page.wait_for_timeout(350)  # bars grow
    found = []
    for row in page.locator(".bars li").all():
        box = row.locator(".fill").bounding_box()
        found.append(
            [row.locator(".label").inner_text(), box["width"] if box else 0, row.locator(".percent").inner_text()]
        )
    return found


def copied(page: Page) -> dict[str, str]:
    """The code of the last call, as its buttons copy it."""
    texts = {}
    for language, button in (("Python", "Copy the Python"), ("curl", "Copy the curl command")):
        card = page.get_by_role("region", name="The same call as code").locator("visible=true")
        card.get_by_role("tab", name=language, exact=True).click()
        card.get_by_role("button", name=button).click()
        card.get_by_text("Copied").locator("visible=true").wait_for()
        texts[language] = page.evaluate("navigator.clipboard.readText()")
    return texts


def overflow(page: Page) -> int:
    """Pixels by which the page is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


# ---------------------------------------------------------------- flows
def draws(page: Page, url: str, name: str, points: list[list[float]]) -> dict[str, Any]:
    model(page, url, name)
    strokes(page, points)
    told = {"bars": bars(page), "timing": page.locator(".timing").inner_text(), "overflow": overflow(page)}
    return {**told, **copied(page), "shown": page.locator(".code-card code").first.text_content()}


def chooses(page: Page, url: str, name: str, file: str) -> dict[str, Any]:
    """A picture from a file, by its button; and one that is none."""
    model(page, url, name)
    page.get_by_label("Choose a picture", exact=True).set_input_files(file)
    page.locator(".answer").wait_for()
    likeliest = bars(page)[0][0] if page.locator(".bars").count() else None
    told = {"likeliest": likeliest, "sent": page.get_by_text("Sent as").inner_text(), **copied(page)}
    page.get_by_label("Choose a picture", exact=True).set_input_files(
        {"name": "no.png", "mimeType": "image/png", "buffer": b"none"}
    )
    page.get_by_role("alert").filter(has_text="no.png").wait_for()
    return told


def fills(page: Page, url: str, name: str, values: dict[str, str], wrong: list[str]) -> dict[str, Any]:
    """A form: first with a value that is none."""
    model(page, url, name)
    for label, value in values.items():
        page.get_by_label(label, exact=True).fill(value)
    page.get_by_label(wrong[0], exact=True).fill(wrong[1])
    page.keyboard.press("Enter")
    refused = page.get_by_role("alert").locator("visible=true").inner_text()
    invalid = page.get_by_label(wrong[0], exact=True).get_attribute("aria-invalid")
    page.get_by_label(wrong[0], exact=True).fill(values[wrong[0]])
    page.keyboard.press("Enter")
    page.locator(".answer").wait_for()
    return {"refused": refused, "invalid": invalid, "answer": page.locator(".answer").inner_text(), **copied(page)}


def edits(page: Page, url: str, name: str, texts: list[str]) -> list[str]:
    """JSON in the editor, and what is said of each."""
    model(page, url, name)
    if page.get_by_role("tab", name="Predict").count():
        page.get_by_role("tab", name="Predict").click()
    if page.get_by_role("tab", name="JSON").count():
        page.get_by_role("tab", name="JSON").click()
    told = []
    for text in texts:
        if text:
            page.get_by_label("Inputs", exact=True).fill(text)
        page.get_by_role("button", name="Run", exact=True).click()
        found = page.locator(".answer, .trouble").locator("visible=true")
        found.first.wait_for()
        page.locator("[aria-busy=true]").wait_for(state="detached")
        told.append(found.first.inner_text())
    return told


def chats(page: Page, url: str, name: str, said: list[str]) -> dict[str, Any]:
    model(page, url, name)
    for text in said:
        page.get_by_label("Message", exact=True).fill(text)
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Send").wait_for()
    answers = [bubble.inner_text().strip() for bubble in page.locator(".bubble.assistant").all()]
    return {"answers": answers, "status": page.locator(".said-status").inner_text(), **copied(page)}


def stops(page: Page, url: str, name: str, said: str) -> dict[str, Any]:
    """Stop in the middle of an answer, by the keyboard: the button has the focus. Then go on."""
    model(page, url, name)
    page.get_by_label("Message", exact=True).fill(said)
    page.keyboard.press("Enter")
    page.locator(".bubble.assistant .said").filter(has_text="on on on on on on on").wait_for()
    early = page.get_by_role("button", name="Stop").is_visible()
    page.keyboard.press("Enter")
    page.get_by_text("Stopped.").wait_for()
    length = len(page.locator(".bubble.assistant .said").last.inner_text())
    page.wait_for_timeout(300)
    told = {"streamed": early, "grew": len(page.locator(".bubble.assistant .said").last.inner_text()) - length}
    page.get_by_label("Message", exact=True).fill("and on")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Send").wait_for()
    return {**told, "next": page.locator(".bubble.assistant .said").last.inner_text().strip()}


def embeds(page: Page, url: str, name: str, texts: str) -> dict[str, Any]:
    model(page, url, name)
    page.get_by_role("tab", name="Embed").click()
    page.get_by_label("One text a line").fill(texts)
    page.get_by_role("button", name="Embed").click()
    page.locator(".vectors").wait_for()
    return {"answer": page.get_by_role("region", name="Vectors").inner_text(), **copied(page)}


def keyboard(page: Page, url: str) -> dict[str, Any]:
    """Nothing but keys: to the model, a character, its answer, the other language of the code."""
    page.goto(url)
    page.get_by_role("heading", level=1).wait_for()
    page.keyboard.press("Tab")
    skip = page.evaluate("document.activeElement.textContent")
    unseen, seen = [], []

    def until(name: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            on = page.evaluate(
                "e => { e = document.activeElement; const s = getComputedStyle(e.type === 'file' ? e.nextSibling : e);"
                "const name = e.labels?.[0]?.textContent || e.getAttribute('aria-label') || e.textContent;"
                "return [name, s.outlineStyle] }"
            )
            seen.append(on[0])
            if on[1] == "none":
                unseen.append(on[0])
            if on[0].strip() == name:
                return
        raise AssertionError(f"no way to {name}: {seen}")

    until("digits")
    page.keyboard.press("Enter")
    page.get_by_role("heading", level=1, name="digits").wait_for()
    until("Type a character")
    page.keyboard.type("1")
    first = bars(page)[0][0]
    until("Python")
    page.keyboard.press("ArrowRight")
    tab = page.evaluate(
        "document.activeElement.textContent + ' ' + document.activeElement.getAttribute('aria-selected')"
    )
    return {"skip": skip, "unseen": unseen, "first": first, "tab": tab, "seen": seen}


def versions(page: Page, url: str, name: str, other: str) -> dict[str, Any]:
    model(page, url, name)
    page.get_by_label("Version").select_option(other)
    page.get_by_role("button", name="Run", exact=True).click()
    page.locator(".answer").wait_for()
    return {
        "timing": page.locator(".timing").inner_text(),
        "cautions": page.locator(".caution").all_inner_texts(),
        **copied(page),
    }


def waits(page: Page, url: str, name: str) -> str:
    """A model that isn't ready; what is said of it."""
    model(page, url, name)
    page.locator(".notice.bad").wait_for()
    return page.locator("main").inner_text()


def loses(page: Page, url: str, name: str) -> dict[str, Any]:
    """The network goes and comes back."""
    model(page, url, name)
    page.context.set_offline(True)
    page.get_by_role("button", name="Run", exact=True).click()
    page.locator(".result .trouble").wait_for()
    trouble = page.locator(".result .trouble").inner_text()
    page.locator("#banner").wait_for(timeout=20_000)
    banner = page.locator("#banner").inner_text()
    page.context.set_offline(False)
    page.locator("#banner").wait_for(state="hidden", timeout=20_000)
    return {"trouble": trouble, "banner": banner}


def unlocks(page: Page, url: str, key: str) -> dict[str, Any]:
    """A server that wants a key: none, a wrong one, the right one."""
    page.goto(url)
    page.get_by_role("heading", name="This server wants an API key").wait_for()
    page.get_by_label("API key", exact=True).fill("wrong")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="This key isn’t accepted").wait_for()
    page.get_by_label("API key", exact=True).fill(key)
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Run", exact=True).click()
    page.locator(".answer").wait_for()
    kept = page.evaluate(
        "[document.cookie, JSON.stringify(localStorage), JSON.stringify(sessionStorage), location.href]"
    )
    held = key in page.content()
    return {"kept": kept, "held": held, **copied(page)}


def attacked(page: Page, url: str, name: str, said: str) -> dict[str, Any]:
    """Names, labels and words that are HTML."""
    model(page, url, name)
    page.get_by_role("button", name="Run", exact=True).click()
    labels = [row[0] for row in bars(page)]
    fields = page.locator(".fields label").all_inner_texts()
    page.goto(f"{url}/#model=talker")
    page.get_by_label("Message", exact=True).fill(said)
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Send").wait_for()
    page.wait_for_timeout(200)
    foreign = page.evaluate("document.querySelectorAll('img:not(.brand img), script:not([src]), b, i').length")
    answer = page.locator(".bubble.assistant .said").last.inner_text().strip()
    return {"labels": labels, "fields": fields, "title": page.title(), "foreign": foreign, "answer": answer}


CONTRAST = """
() => {
  const parse = (text) => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return { r, g, b, a } };
  const over = (top, under) => ({ r: top.r * top.a + under.r * (1 - top.a), g: top.g * top.a + under.g * (1 - top.a),
    b: top.b * top.a + under.b * (1 - top.a), a: 1 });
  const part = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = ({ r, g, b }) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05) };
  const ground = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.push(parse(getComputedStyle(e).backgroundColor));
    return layers.reverse().reduce((under, top) => over(top, under), { r: 255, g: 255, b: 255, a: 1 });
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    if (!element.checkVisibility() || element.closest(".unseen, .skip, canvas")) continue;
    const style = getComputedStyle(element);
    const written = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    const what = `${element.tagName}.${element.className} ${element.textContent.slice(0, 30)}`;
    if (written || element.matches("input, textarea, select")) {
      const size = parseFloat(style.fontSize);
      const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
      found.push([ratio(over(parse(style.color), ground(element)), ground(element)), large ? 3 : 4.5, what]);
    }
    if (element.matches("input, textarea, select, button:not(.plain, [role=tab], .main), .button")) {
      found.push([ratio(parse(style.borderTopColor), ground(element.parentElement)), 3, `edge of ${what}`]);
    }
  }
  return [found.length, found.filter(([is, wanted]) => is < wanted)];
}
"""


def contrast(page: Page, url: str, names: list[str]) -> list[Any]:
    """How many texts and edges were looked at, and those that are too faint."""
    count, faint = 0, []
    for name in names:
        model(page, url, name)
        page.locator(".body > *").first.wait_for()
        for control in page.get_by_role("button", name="Run", exact=True).all():
            control.click()
            page.locator(".result .answer, .result .trouble").first.wait_for()
        for summary in page.locator("summary").locator("visible=true").all():
            summary.click()
        looked, found = page.evaluate(CONTRAST)
        count, faint = count + looked, faint + found
    return [count, faint]


# ---------------------------------------------------------------- visits
FLOWS = {
    flow.__name__: flow
    for flow in (
        *(draws, chooses, fills, edits, chats, stops, embeds, keyboard, versions, waits, loses, unlocks),
        *(attacked, contrast),
    )
}


def visit(browser: Browser, asked: dict[str, Any]) -> dict[str, Any]:
    context = browser.new_context(**asked["context"], permissions=["clipboard-read", "clipboard-write"])
    context.set_default_timeout(15_000)
    context.add_init_script(VIOLATIONS)
    page, troubles = context.new_page(), []
    home = urlsplit(asked["url"]).netloc

    def request(url: str) -> None:
        if urlsplit(url).scheme not in ("data", "blob") and urlsplit(url).netloc != home:
            troubles.append(f"a request to {url}")

    page.on("console", lambda message: troubles.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
    page.on("request", lambda sent: request(sent.url))
    try:
        told: dict[str, Any] = {"value": FLOWS[asked["flow"]](page, asked["url"], **asked["arguments"])}
    except Exception:
        told = {"error": f"{traceback.format_exc()}\n{troubles}\n{page.locator('body').inner_text()[:2000]}"}
    context.close()
    return {**told, "troubles": troubles}


def main(chromium: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for line in sys.stdin:
            print(json.dumps(visit(browser, json.loads(line))), flush=True)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
