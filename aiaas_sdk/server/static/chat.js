// A conversation with a language model, streamed.

import { chatPython, codeBlock, curl } from "./code.js";
import { field, h } from "./dom.js";
import { events } from "./events.js";
import { write } from "./json.js";
import { timingNode, troubleNode } from "./results.js";
import { call, Refused } from "./server.js";

const PATH = "v1/chat/completions";

/** The panel of a model: {name, verbs}. */
export function chatPanel(model) {
  const streams = model.verbs.includes("stream");
  const code = codeBlock();
  const log = h("div", { class: "talk", role: "log", "aria-label": "Conversation", tabIndex: 0 });
  const hint = h("p", { class: "empty" }, "Say something to the model. The conversation stays in this tab.");
  const status = h("div", { class: "said-status", role: "status" });
  const area = h("textarea", {
    rows: 2, oninput: refresh,
    onkeydown: (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); }
    },
  });
  const system = h("textarea", { rows: 2, oninput: refresh });
  const temperature = h("input", { type: "text", inputMode: "decimal", autocomplete: "off", placeholder: "the model’s own", oninput: refresh });
  const most = h("input", { type: "text", inputMode: "numeric", autocomplete: "off", placeholder: "the model’s own", oninput: refresh });
  const sendButton = h("button", { type: "submit", class: "main" }, "Send");
  const stopButton = h("button", { type: "button", onclick: () => running?.abort(), hidden: true }, "Stop");
  const again = h("button", { type: "button", class: "plain", onclick: clear, hidden: true }, "New conversation");
  let said = [];
  let running = null;

  const sampling = () => {
    const found = {};
    if (temperature.value.trim()) found.temperature = numberOf(temperature, "The temperature", false);
    if (most.value.trim()) found.max_tokens = numberOf(most, "The most tokens", true);
    return found;
  };
  const messages = (next) => [...(system.value.trim() ? [{ role: "system", content: system.value }] : []), ...said, ...(next ? [{ role: "user", content: next }] : [])];
  const request = (next) => ({ model: model.name, messages: messages(next), ...sampling(), ...(streams ? { stream: true, stream_options: { include_usage: true } } : {}) });

  function refresh() {
    try {
      tell(area.value.trim() || (said.length ? "" : "Hello!"));
    } catch { /* `send` says why */ }
  }
  function tell(next) {
    // a conversation ends with the user's words
    const told = messages(next);
    if (told.at(-1)?.role === "assistant") told.pop();
    code.set({
      python: chatPython({ name: model.name, messages: told, sampling: sampling(), streams }),
      curl: curl(PATH, { ...request(""), messages: told }, { streams }),
    });
  }

  function clear() {
    running?.abort();
    said = [];
    log.replaceChildren(hint);
    status.replaceChildren();
    again.hidden = true;
    area.focus();
    refresh();
  }

  async function send() {
    const text = area.value.trim();
    if (running || !text) return area.focus();
    let body;
    try {
      body = request(text);
    } catch (error) {
      return status.replaceChildren(troubleNode(error));
    }
    hint.remove();
    said.push({ role: "user", content: text });
    area.value = "";
    log.append(bubble("user", "You", text).node);
    const answer = bubble("assistant", model.name, "");
    log.append(answer.node);
    await spoken(body, answer);
    again.hidden = false;
    refresh();
  }

  async function spoken(body, answer) {
    running = new AbortController();
    busy(true);
    const begun = performance.now();
    const told = { first: null, tokens: null, reason: null };
    let stopped = false;
    try {
      for await (const delta of deltas(body, running.signal)) {
        if ((delta.text || delta.reasoning) && told.first === null) told.first = performance.now() - begun;
        answer.add(delta);
        if (delta.tokens) told.tokens = delta.tokens;
        if (delta.reason) told.reason = delta.reason;
        log.scrollTop = log.scrollHeight;
      }
    } catch (error) {
      stopped = error.name === "AbortError";
      if (!stopped) answer.fail(error);
    }
    const took = performance.now() - begun;
    answer.end(stopped ? "Stopped." : null);
    said.push({ role: "assistant", content: answer.text });
    if (!answer.text) said.splice(-2); // what wasn't answered isn't said again
    status.replaceChildren(timingNode([
      ["First text", told.first], ["Whole answer", took], ["Tokens", told.tokens && String(told.tokens)], ["Ended by", stopped ? "you" : told.reason],
    ]));
    running = null;
    busy(false);
  }

  /** {text, reasoning, reason, tokens} as they come. */
  async function* deltas(body, signal) {
    const reply = await call(PATH, { method: "POST", body: write(body), signal });
    if (!streams) return yield piece(await reply.json());
    let done = false;
    try {
      for await (const data of events(reply)) {
        if ((done = data === "[DONE]")) break;
        const told = JSON.parse(data);
        if (told.error) throw new Refused(500, String(told.error.message ?? told.error));
        yield piece(told);
      }
    } catch (error) {
      if (error instanceof TypeError) throw new Refused(0, "The connection broke in the middle of the answer.");
      throw error;
    }
    if (!done) throw new Refused(0, "The stream ended before the answer was whole.");
  }

  function busy(yes) {
    sendButton.hidden = yes;
    stopButton.hidden = !yes;
    log.setAttribute("aria-busy", String(yes));
    if (yes) stopButton.focus();
    else area.focus();
  }

  log.append(hint);
  refresh();
  return h("div", { class: "work chat" },
    h("section", { class: "card", "aria-label": "Chat" },
      log, status,
      h("form", { class: "say", onsubmit: (event) => { event.preventDefault(); send(); } },
        field("Message", area, "Enter sends, Shift + Enter begins a new line."),
        h("div", { class: "actions" }, sendButton, stopButton, again)),
      h("details", { class: "more" }, h("summary", {}, "Instructions and sampling"),
        field("System message", system), h("div", { class: "fields" }, field("Temperature", temperature), field("Most tokens", most))),
    ),
    code.node,
  );
}

function piece(told) {
  const choice = told.choices?.[0];
  const part = choice?.delta ?? choice?.message ?? {};
  const calls = (part.tool_calls ?? []).map((one) => `\n${one.function?.name}(${one.function?.arguments ?? ""})`).join("");
  return { text: (part.content ?? "") + calls, reasoning: part.reasoning_content ?? "", reason: choice?.finish_reason, tokens: told.usage?.completion_tokens };
}

function bubble(role, name, text) {
  const body = h("div", { class: "said" }, text);
  const thought = h("details", { class: "thought", hidden: true }, h("summary", {}, "What it thought before"), h("div", { class: "said" }));
  const node = h("article", { class: `bubble ${role}` }, h("header", {}, name), thought, body);
  if (!text) node.classList.add("waiting");
  return {
    node,
    text,
    add({ text: more, reasoning }) {
      if (reasoning) { thought.hidden = false; thought.lastChild.append(reasoning); }
      if (more) { this.text += more; body.append(more); node.classList.remove("waiting"); }
    },
    fail(error) { node.append(troubleNode(error)); },
    end(note) {
      node.classList.remove("waiting");
      if (note) node.append(h("p", { class: "quiet small" }, note));
      else if (!this.text && !node.querySelector(".trouble")) node.append(h("p", { class: "quiet small" }, "The answer is empty."));
    },
  };
}

function numberOf(control, name, whole) {
  const value = Number(control.value);
  if (!Number.isFinite(value) || (whole && !Number.isInteger(value))) throw new Error(`${name}: “${control.value}” is no ${whole ? "whole " : ""}number.`);
  return value;
}
