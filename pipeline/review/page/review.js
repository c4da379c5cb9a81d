"use strict";
// The review page. Text from documents and models reaches the page by createTextNode and `value` only, never as markup.
//
// A draft is a tree beside the form: each node has d (none, value, nothing, unknown), and v (a leaf's text), items (a
// list) or props (an object). Values that are no strings are JSON text from the server to gold, so that no digit is lost.
(() => {
const $ = (id) => document.getElementById(id);
const token = location.hash.slice(1);
const KEYS = [["j k", "next, previous document"], ["↓ ↑ Tab", "next, previous field"], ["a", "accept the field"],
  ["A", "accept the rest"], ["n", "not in the text"], ["u", "cannot tell"], ["Enter", "edit"], ["Esc", "leave"],
  ["Ctrl Enter", "save and next"], ["/", "search the text"], ["g", "next highlight"], ["z", "undo"], ["?", "these keys"]];
const STATES = {none: "not judged", value: "accepted", nothing: "not in the text", unknown: "cannot tell"};
const UNSEEN = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;
const NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;
let session, doc, draft, at = -1, keysOn = true, counter = 0, opened = null, textIndex = null, found = [], foundAt = -1;
let undone = [], typed = null, markAt = 0, isSaving = false;

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

async function api(path, body) {
  const options = {headers: {"X-Review-Token": token}};
  if (body !== undefined) {
    Object.assign(options, {method: "POST", body});
    options.headers["Content-Type"] = "application/json";
  }
  let reply;
  try {
    reply = await fetch("/api/" + path, options);
  } catch (error) {
    throw new Error("The review has ended or cannot be reached. Your draft is kept in this tab.");
  }
  const data = await reply.json().catch(() => ({}));
  if (reply.ok) return data;
  throw new Error(data.error || `The server answered ${reply.status}.`);
}

// ── drafts ──

const isLeaf = (form) => form.kind !== "object" && form.kind !== "list";
const step = (name) => "/" + name.replace(/~/g, "~0").replace(/\//g, "~1");

function nodeOf(form, shown, pointer) {
  const node = {d: "none", p: pointer, k: counter++};
  if (form.kind === "object") {
    node.props = {};
    for (const [name, inner] of Object.entries(form.properties)) {
      node.props[name] = nodeOf(inner, shown ? shown[name] : null, pointer + step(name));
    }
  } else if (form.kind === "list") {
    node.items = (shown || []).map((value, number) => nodeOf(form.item, value, `${pointer}/${number}`));
    node.size = node.items.length;
    node.partial = false;
  } else {
    node.v = node.o = shown === null || shown === undefined ? "" : shown;
  }
  return node;
}

function isNothing(form, node) {
  if (form.kind === "object") {
    return Object.entries(form.properties).every(([name, inner]) => isNothing(inner, node.props[name]));
  }
  return form.kind === "list" ? node.items.length === 0 : node.v.trim() === "" || node.v === "null" && form.kind !== "string";
}

function accept(form, node, isForced) {
  if (form.off && !isForced || node.d === "nothing" || node.d === "unknown") return;
  if (node.d === "none" && isNothing(form, node)) { node.d = "nothing"; return; }
  node.d = "value";
  if (form.kind === "object") {
    for (const [name, inner] of Object.entries(form.properties)) accept(inner, node.props[name], false);
  } else if (form.kind === "list" && form.item.kind === "object") {
    for (const item of node.items) accept(form.item, item, false);
  }
}

function clear(form, node) {
  node.d = "none";
  if (form.kind === "object") {
    for (const [name, inner] of Object.entries(form.properties)) clear(inner, node.props[name]);
  } else if (form.kind === "list") {
    for (const item of node.items) clear(form.item, item);
  }
}

function isChanged(form, node) {
  if (form.kind === "object") {
    return Object.entries(form.properties).some(([name, inner]) => isChanged(inner, node.props[name]));
  }
  if (form.kind === "list") return node.items.length !== node.size || node.items.some((item) => isChanged(form.item, item));
  return node.v !== node.o || node.d === "nothing" && node.o.trim() !== "";
}

function leafText(form, node, where, problems) {
  if (form.kind === "string") return JSON.stringify(node.v);
  const text = node.v.trim();
  let isGood = form.kind === "choice" ? form.values.includes(text) : form.kind === "json" || NUMBER.test(text);
  try { JSON.parse(text); } catch (error) { isGood = false; }
  if (!isGood) problems.push([node, `${where}: need ${form.kind === "json" ? "JSON" : "a " + form.kind}`]);
  return text;
}

function goldText(form, node, where, problems) {
  if (node.d === "none" || node.d === "unknown") return undefined;
  if (node.d === "nothing") return form.kind === "list" ? "[]" : form.kind === "string" && !form.nullable ? '""' : "null";
  if (form.kind === "object") {
    const parts = [];
    for (const [name, inner] of Object.entries(form.properties)) {
      const text = goldText(inner, node.props[name], where ? `${where}.${name}` : name, problems);
      if (text !== undefined) parts.push(`${JSON.stringify(name)}:${text}`);
    }
    return `{${parts.join(",")}}`;
  }
  if (form.kind === "list") {
    const parts = [];
    node.items.forEach((item, number) => {
      if (form.item.kind !== "object") {
        if (item.v.trim() !== "") parts.push(leafText(form.item, item, where, problems));
        return;
      }
      const text = goldText(form.item, {...item, d: "value"}, `${where} ${number + 1}`, problems);
      if (text === "{}") problems.push([item, `${where} ${number + 1}: accept this row, edit it, or remove it`]);
      parts.push(text);
    });
    return `[${parts.join(",")}]`;
  }
  return leafText(form, node, where, problems);
}

function paths(form, node, wanted, into) {
  if (wanted === "unknown" && node.d === "unknown") into.add(form.path);
  if (wanted === "partial" && node.partial && (node.d === "value" || node.d === "nothing")) into.add(form.path);
  if (node.d === "unknown" || node.d === "nothing") return into;
  if (form.kind === "object") {
    for (const [name, inner] of Object.entries(form.properties)) paths(inner, node.props[name], wanted, into);
  } else if (form.kind === "list" && form.item.kind === "object") {
    for (const item of node.items) paths(form.item, item, wanted, into);
  }
  return into;
}

function remember() {
  undone.push(JSON.stringify(draft));
  if (undone.length > 100) undone.shift();
}

function keep() {
  try {
    sessionStorage.setItem("draft" + doc.key, JSON.stringify(draft));
  } catch (error) {
    say("This browser keeps no draft: a reload loses what is not saved.", true);
  }
}

function touch(parents) {
  for (const parent of parents) if (parent.d !== "value") parent.d = "value";
}

// ── the form ──

function stateText(form, node) {
  if (node.d === "value" && isChanged(form, node)) return "corrected";
  return node.d === "value" && !doc.answer ? "typed" : STATES[node.d];
}

function field(form, node, name, parents, isInner) {
  const id = "f" + node.k;
  const mark = doc.marks[node.p];
  const head = make("div", {class: "head", id}, make("b", {}, name));
  if (mark && mark[1]) {
    head.append(make("button", {type: "button", class: "number", "aria-label": `show highlight ${mark[0]}`,
      click: () => showMark(mark[0])}, `▸ ${mark[0]}`));
  } else if (mark) head.append(make("span", {class: "wrong"}, "not found in the text"));
  head.append(make("span", {class: "state"}));
  if (form.about) head.append(make("span", {class: "soft"}, form.about));
  const element = make("div", {class: isInner ? "field inner" : "field", tabindex: "0", role: "group",
    "aria-labelledby": id, "data-key": node.k}, head);
  element.review = {form, node, parents, isInner};
  const sides = isInner ? null : doc.sides[name];
  if (sides) element.append(sidesOf(form, name, sides));
  const inside = make("div", {}, editor(form, node, name, [...parents, node]));
  if (isInner && isLeaf(form)) head.append(decisionMenu(element, name));
  else inside.append(decisionButtons(element, name));
  element.append(form.off ? make("details", {open: node.d !== "none"},
    make("summary", {tabindex: "-1"}, form.quote ? "quote, not graded" : "free text, not graded"), inside) : inside);
  return element;
}

function decisionButtons(element, name) {
  const row = make("div", {class: "decide", role: "group", "aria-label": `decision on ${name}`});
  const choices = [["value", "Accept", "a"], ["nothing", "Not in the text", "n"], ["unknown", "Cannot tell", "u"],
    ["none", "Not judged", ""]];
  for (const [d, label, key] of choices) {
    row.append(make("button", {type: "button", "data-d": d, click: () => decide(element, d)}, label,
      ...(key ? [" ", make("kbd", {}, key)] : [])));
  }
  return row;
}

function decisionMenu(element, name) {
  const menu = make("select", {"aria-label": `decision on ${name}`, change: () => decide(element, menu.value)});
  for (const [d, label] of Object.entries({...STATES, value: "the value below"})) {
    menu.append(make("option", {value: d}, label));
  }
  return make("span", {class: "decide menu"}, menu);
}

function editor(form, node, name, parents) {
  if (form.kind === "object") {
    const box = make("fieldset", {}, make("legend", {class: "soft"}, ""));
    for (const [inner, sub] of Object.entries(form.properties)) box.append(field(sub, node.props[inner], inner, parents, true));
    return box;
  }
  return form.kind === "list" ? listEditor(form, node, name, parents) : leafEditor(form, node, name, parents);
}

function listEditor(form, node, name, parents) {
  const box = make("div", {});
  node.items.forEach((item, number) => {
    const label = `${name} ${number + 1}`;
    const remove = make("button", {type: "button", "aria-label": `remove ${label}`, click: () => {
      remember();
      node.items.splice(number, 1);
      touch(parents);
      if (!node.items.length) node.d = "nothing";
      refresh(node.k);
    }}, "Remove");
    if (form.item.kind === "object") {
      const row = make("fieldset", {class: "row"}, make("legend", {}, label));
      for (const [inner, sub] of Object.entries(form.item.properties)) {
        row.append(field(sub, item.props[inner], inner, [...parents, item], true));
      }
      row.append(remove);
      box.append(row);
    } else {
      const mark = doc.marks[item.p];
      const badge = mark && (mark[1] ? make("button", {type: "button", class: "number",
        "aria-label": `show highlight ${mark[0]}`, click: () => showMark(mark[0])}, `▸ ${mark[0]}`)
        : make("span", {class: "wrong"}, "not found"));
      box.append(make("div", {class: "item"}, badge || null, leafEditor(form.item, item, label, parents), remove));
    }
  });
  box.append(make("button", {type: "button", click: () => {
    remember();
    const item = nodeOf(form.item, null, "");
    node.items.push(item);
    touch(parents);
    refresh(node.k);
    const fresh = form.item.kind === "object" ? elementOf(Object.values(item.props)[0].k) : elementOf(node.k);
    if (fresh) open(fresh, form.item.kind !== "object");
  }}, `Add to ${name}`));
  const partial = make("input", {type: "checkbox", change: () => { remember(); node.partial = partial.checked; changed(); }});
  partial.checked = node.partial;
  box.append(make("label", {class: "choice"}, partial, "the list is not complete"));
  return box;
}

function leafEditor(form, node, name, parents) {
  const change = (value) => {
    if (typed !== node) { remember(); typed = node; }
    node.v = value;
    node.d = isNothing(form, node) ? "nothing" : "value";
    touch(parents.filter((parent) => parent !== node));
    changed();
  };
  if (form.kind === "choice" && form.few) {
    const box = make("fieldset", {role: "radiogroup", "aria-label": name});
    for (const value of form.values) {
      const radio = make("input", {type: "radio", name: "r" + node.k, value, change: () => change(value)});
      radio.checked = node.v === value;
      box.append(make("label", {class: "choice"}, radio, plain(value)));
    }
    return box;
  }
  if (form.kind === "choice") {
    const menu = make("select", {"aria-label": name, change: () => change(menu.value)}, make("option", {value: ""}, "–"));
    for (const value of form.values) menu.append(make("option", {value}, plain(value)));
    menu.value = node.v;
    return menu;
  }
  const isLong = form.kind === "json" || form.long || node.v.includes("\n") || node.v.length > 120;
  const input = make(isLong ? "textarea" : "input", {"aria-label": name, dir: "auto", spellcheck: "false",
    ...(isLong ? {rows: Math.min(8, 2 + Math.floor(node.v.length / 60))} : {type: "text"}),
    ...(form.kind === "number" ? {inputmode: "decimal"} : {}), input: () => change(input.value)});
  input.value = node.v;
  const unseen = [...new Set(node.v.match(UNSEEN) || [])].map((one) => "\\u" + one.charCodeAt(0).toString(16).padStart(4, "0"));
  return unseen.length ? make("div", {}, input, make("span", {class: "wrong"}, `holds ${unseen.join(" ")}`)) : input;
}

function plain(json) {
  const value = JSON.parse(json);
  return typeof value === "string" ? value : json;
}

function words(form, value) {
  if (value === null || value === undefined || value === "" || Array.isArray(value) && !value.length) return "nothing";
  if (form.kind === "list") return value.map((item) => words(form.item, item)).join("\n");
  if (form.kind === "object") {
    return Object.entries(form.properties).filter(([, inner]) => !inner.off)
      .map(([name, inner]) => `${name}: ${words(inner, value[name])}`).join(" · ");
  }
  return form.kind === "choice" ? plain(value) : value;
}

function sidesOf(form, name, sides) {
  const box = make("div", {class: "sides", role: "group", "aria-label": `two answers for ${name}`});
  sides.values.forEach((value, number) => {
    const from = sides.names ? ` (${sides.names[number]})` : "";
    const isChosen = draft.sides[name] === number;
    box.append(make("button", {type: "button", "aria-pressed": String(isChosen), click: () => {
      remember();
      const fresh = nodeOf(form, value, step(name));
      fresh.k = draft.root.props[name].k;
      accept(form, fresh, true);
      draft.root.props[name] = fresh;
      draft.sides[name] = number;
      draft.root.d = "value";
      refresh(fresh.k);
    }}, `Answer ${number + 1}${from}: ${words(form, value)}`));
  });
  return box;
}

function render() {
  const box = $("form");
  box.replaceChildren();
  for (const [name, form] of Object.entries(session.form.properties)) {
    box.append(field(form, draft.root.props[name], name, [draft.root], false));
  }
  opened = null;
  typed = null;
  for (const control of box.querySelectorAll("button, input, select, textarea")) control.tabIndex = -1;
  paint();
}

function paint() {
  for (const element of document.querySelectorAll(".field")) {
    const {form, node} = element.review;
    element.dataset.d = node.d;
    element.querySelector(":scope > .head .state").textContent = stateText(form, node);
    const decisions = element.querySelector(":scope > div > .decide, :scope > details > div > .decide, :scope > .head > .decide");
    for (const button of decisions.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(button.dataset.d === node.d));
    }
    const menu = decisions.querySelector("select");
    if (menu) menu.value = node.d;
  }
}

function changed() { paint(); keep(); }

function refresh(key) {
  render();
  keep();
  const element = elementOf(key);
  if (element) element.focus();
}

const elementOf = (key) => document.querySelector(`.field[data-key="${key}"]`);
const current = () => document.activeElement ? document.activeElement.closest(".field") : null;
const visibleFields = () => [...document.querySelectorAll(".field")].filter((each) => each.offsetParent !== null);

function decide(element, d) {
  const {form, node, parents, isInner} = element.review;
  const name = form.label;
  if (d === "value" && !isInner && doc.sides[name] && draft.sides[name] === undefined) {
    say(`${name}: the two answers differ; choose one of them (Enter).`, true);
    return;
  }
  if (d === "value" && !doc.answer && isNothing(form, node)) {
    say(`${name}: there is no answer to accept: type a value (Enter), or press n.`, true);
    return;
  }
  remember();
  if (d === "none") clear(form, node);
  else if (d === "value") { if (node.d !== "value") node.d = "none"; accept(form, node, true); }
  else node.d = d;
  if (d !== "none") touch(parents);
  changed();
}

function move(by, from, isTopOnly) {
  const fields = visibleFields().filter((each) => !isTopOnly || !each.review.isInner || each === from);
  const place = from ? fields.indexOf(from) : -1;
  const next = fields[place < 0 && by < 0 ? fields.length - 1 : place + by];
  if (next) next.focus();
}

function open(element, isLast) {
  if (opened && opened !== element) shut(opened);
  opened = element;
  const details = element.querySelector(":scope > details");
  if (details) details.open = true;
  const own = [...element.querySelectorAll("button, input, select, textarea")].filter((each) => each.closest(".field") === element);
  for (const control of own) control.tabIndex = 0;
  const inputs = own.filter((each) => !each.closest(".decide") && each.matches("input:not([type=radio]):not([type=checkbox]), textarea, select, input:checked"));
  const first = (isLast ? inputs.filter((each) => each.type !== "checkbox").at(-1) : inputs[0]) || own.find((each) => !each.matches(".number")) || own[0];
  if (first && !element.contains(document.activeElement) || document.activeElement === element || isLast) {
    first.focus();
    if (first.type === "text") first.select();
  }
}

function shut(element) {
  for (const control of element.querySelectorAll("button, input, select, textarea")) control.tabIndex = -1;
  if (opened === element) opened = null;
}

// ── the text ──

function showText() {
  const box = $("text");
  box.replaceChildren();
  for (const [text, numbers, proves] of doc.pieces) {
    box.append(numbers.length ? make("mark", {"data-numbers": numbers.join(","), "data-proves": proves.join(","), "aria-label": `highlight ${numbers.join(", ")}`},
      text) : document.createTextNode(text));
  }
  textIndex = null;
  found = [];
  const shown = doc.shown_characters < doc.characters
    ? `The first ${doc.shown_characters.toLocaleString("en")} of ${doc.characters.toLocaleString("en")} characters` : "";
  $("text-about").textContent = [doc.id, shown, doc.notes.join(", ")].filter((part) => part).join(" · ");
  $("text-pane").scrollTop = 0;
}

function indexText() {
  if (textIndex) return textIndex;
  const nodes = [], places = [], letters = [];
  const walker = document.createTreeWalker($("text"), NodeFilter.SHOW_TEXT);
  let wasSpace = true;
  while (walker.nextNode()) {
    const text = walker.currentNode.data;
    nodes.push(walker.currentNode);
    for (let place = 0; place < text.length; place++) {
      const isSpace = /\s/.test(text[place]);
      if (isSpace && wasSpace) continue;
      const letter = text[place].toLowerCase();
      letters.push(isSpace ? " " : letter.length === 1 ? letter : text[place]);
      places.push([nodes.length - 1, place]);
      wasSpace = isSpace;
    }
  }
  return textIndex = {nodes, places, text: letters.join("")};
}

function rangesOf(needle) {
  const wanted = needle.trim().replace(/\s+/g, " ").toLowerCase();
  if (!wanted) return [];
  const {nodes, places, text} = indexText();
  const ranges = [];
  for (let start = text.indexOf(wanted); start >= 0 && ranges.length < 500; start = text.indexOf(wanted, start + wanted.length)) {
    const range = document.createRange();
    const [first, last] = [places[start], places[start + wanted.length - 1]];
    range.setStart(nodes[first[0]], first[1]);
    range.setEnd(nodes[last[0]], last[1] + 1);
    ranges.push(range);
  }
  return ranges;
}

function highlight(name, ranges) {
  if (typeof Highlight !== "function" || !CSS.highlights) return;
  if (ranges.length) CSS.highlights.set(name, new Highlight(...ranges));
  else CSS.highlights.delete(name);
}

function search(isNext) {
  if (!isNext) { found = rangesOf($("search").value); foundAt = -1; }
  highlight("found", found);
  foundAt = found.length ? (foundAt + 1) % found.length : -1;
  highlight("here", foundAt >= 0 ? [found[foundAt]] : []);
  $("found").textContent = !$("search").value.trim() ? "" : found.length ? `${foundAt + 1} of ${found.length}` : "not found";
  if (foundAt >= 0) into(found[foundAt]);
}

function into(range) {
  const pane = $("text-pane");
  const place = range.getBoundingClientRect(), frame = pane.getBoundingClientRect();
  if (place.top < frame.top || place.bottom > frame.bottom) pane.scrollTop += place.top - frame.top - frame.height / 3;
}

function showMark(number) {
  markAt = number;
  const marks = [...document.querySelectorAll("#text mark")];
  const of = marks.filter((mark) => mark.dataset.numbers.split(",").includes(String(number)));
  const proof = of.filter((mark) => mark.dataset.proves.split(",").includes(String(number)));
  for (const mark of marks) {
    mark.classList.toggle("current", of.includes(mark));
    mark.classList.toggle("proof", proof.includes(mark));
  }
  if (of.length) into(proof[0] ?? of[0]);
}

function nextMark() {
  const numbers = Object.values(doc.marks).filter(([, places]) => places).map(([number]) => number);
  if (!numbers.length) return say("This document has no highlights.");
  markAt = numbers[(numbers.indexOf(markAt) + 1) % numbers.length];
  showMark(markAt);
  say(`Highlight ${markAt}`);
}

function pointOut(element) {
  const {form, node} = element.review;
  const mark = doc.marks[node.p];
  if (mark && mark[1]) return showMark(mark[0]);
  if (document.activeElement === $("search")) return;
  const ranges = isLeaf(form) && form.kind === "string" && node.v.length < 1000 ? rangesOf(node.v) : [];
  highlight("found", ranges);
  highlight("here", []);
  if (ranges.length) into(ranges[0]);
}

// ── documents ──

function say(text, isWrong) {
  $("status").textContent = text;
  $("status").className = isWrong ? "grow wrong" : "grow";
}

function boxes() {
  const messages = [];
  if (doc.set === "holdout") messages.push(["sealed", "This document is in the holdout: no answer is shown. Fill in what it says."]);
  if (doc.reason) messages.push(["sealed", `This document failed (${doc.reason}): there is no answer. Fill in what it says.`]);
  if (doc.judged_by.length) messages.push(["sealed", `Judged by ${doc.judged_by.join(", ")}. A later judgement replaces what it names.`]);
  if (doc.misfits.length) messages.push(["box", `Answered under an older schema, so not shown: ${doc.misfits.join(", ")}.`]);
  $("messages").replaceChildren(...messages.map(([kind, text]) => make("p", {class: kind}, text)));
}

function progress() {
  const saved = session.documents.filter((each) => each.saved).length;
  $("progress").textContent = `${saved} of ${session.documents.length} judged · document ${at + 1}`;
  document.title = `${saved}/${session.documents.length} review`;
  $("withdraw").hidden = !session.documents[at].saved;
}

async function show(number) {
  if (number < 0 || number >= session.documents.length) return say("There is no further document.");
  try {
    doc = await api("documents/" + number);
  } catch (error) {
    return say(error.message, true);
  }
  at = number;
  sessionStorage.setItem("at" + token, String(at));
  undone = [];
  markAt = 0;
  const kept = sessionStorage.getItem("draft" + doc.key);
  draft = kept ? JSON.parse(kept) : {root: nodeOf(session.form, doc.answer, ""), sides: {}, note: ""};
  if (kept) renumber(draft.root);
  draft.root.d = "value";
  $("note").value = draft.note;
  $("search").value = "";
  showText();
  boxes();
  render();
  progress();
  highlight("found", []);
  highlight("here", []);
  $("form-pane").scrollTop = 0;
  const first = visibleFields().find((element) => !element.review.form.off) || visibleFields()[0];
  if (first) first.focus();
}

function renumber(node) {
  counter = Math.max(counter, node.k + 1);
  for (const inner of [...Object.values(node.props || {}), ...(node.items || [])]) renumber(inner);
}

async function save() {
  if (isSaving) return;
  const problems = [];
  const gold = goldText(session.form, draft.root, "", problems);
  if (problems.length) {
    const [node, text] = problems[0];
    const element = elementOf(node.k) || (node.props && elementOf(Object.values(node.props)[0].k));
    if (element) element.focus();
    return say(text, true);
  }
  const unknown = [...paths(session.form, draft.root, "unknown", new Set())];
  const partial = [...paths(session.form, draft.root, "partial", new Set())];
  const body = `{"gold":${gold},"unknown":${JSON.stringify(unknown)},"partial":${JSON.stringify(partial)},"note":${JSON.stringify($("note").value)}}`;
  isSaving = true;
  say("saving …");
  try {
    await api(`documents/${at}/judgement`, body);
  } catch (error) {
    return say(`Not saved: ${error.message}`, true);
  } finally {
    isSaving = false;
  }
  session.documents[at].saved = true;
  const saved = session.documents.filter((each) => each.saved).length;
  const places = session.documents.map((each, number) => number);
  const next = [...places.slice(at + 1), ...places.slice(0, at + 1)].find((number) => !session.documents[number].saved);
  if (next === undefined) {
    await show(at);
    $("messages").append(make("p", {class: "sealed"}, `All ${saved} documents are judged. Next: pipeline eval ${session.output} --gold ${session.gold}`));
  } else await show(next);
  say(`saved, ${saved} judged`);
}

async function withdraw() {
  try {
    await api(`documents/${at}/withdrawal`, "{}");
  } catch (error) {
    return say(`Not withdrawn: ${error.message}`, true);
  }
  session.documents[at].saved = false;
  progress();
  say("withdrawn: every judgement of this document up to now");
}

function undo() {
  if (!undone.length) return say("There is nothing to undo in this document.");
  draft = JSON.parse(undone.pop());
  $("note").value = draft.note;
  const element = current();
  refresh(element ? element.dataset.key : -1);
  say("undone");
}

function acceptRest() {
  if (!doc.answer) return say("No answer is shown, so there is none to accept: type values, or press n.", true);
  remember();
  let open = 0;
  for (const [name, form] of Object.entries(session.form.properties)) {
    if (doc.sides[name] && draft.sides[name] === undefined) { open += draft.root.props[name].d === "none"; continue; }
    accept(form, draft.root.props[name], false);
  }
  changed();
  say(open ? `accepted; ${open} with two answers left` : "accepted");
}

// ── keys ──

function help(isOpen) {
  if (isOpen) $("help").showModal();
  else $("help").close();
}

function act(key) {
  const element = current();
  const d = {a: "value", n: "nothing", u: "unknown"}[key];
  if (d) {
    if (!element) return say("No field has the focus: press ↓ first.");
    const before = element.review.node.d;
    decide(element, d);
    if (element.review.node.d !== "none" || before !== "none") move(1, element, !element.review.isInner);
    return;
  }
  ({j: () => show(at + 1), k: () => show(at - 1), A: acceptRest, g: nextMark, z: undo, "?": () => help(true),
    "/": () => $("search").focus()}[key] || (() => {}))();
}

function onKey(event) {
  if (event.isComposing || $("help").open || !doc) return;
  const active = document.activeElement;
  const isRadio = active.matches("input[type=radio], input[type=checkbox]");
  const isTyping = active.matches("input, textarea, select") && !isRadio;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); save(); return; }
  if (event.key === "Escape") {
    const element = current();
    if (active === $("search")) { const first = visibleFields()[0]; if (first) first.focus(); }
    else if (element) { shut(element); element.focus(); }
    else active.blur();
    return;
  }
  if (active === $("search") && event.key === "Enter") { event.preventDefault(); search(true); return; }
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey) {
    // a form without a button to submit it would still be sent by Enter in its only input
    if (event.key === "Enter" && active.matches("input")) event.preventDefault();
    return;
  }
  if ((event.key === "ArrowDown" || event.key === "ArrowUp") && !isRadio && active !== $("text-pane")) {
    event.preventDefault();
    move(event.key === "ArrowDown" ? 1 : -1, current(), false);
  } else if (event.key === "Enter" && active.matches(".field")) {
    event.preventDefault();
    open(active, false);
  } else if (keysOn && "jkaAnugz/?".includes(event.key)) {
    event.preventDefault();
    act(event.key);
  }
}

function listen() {
  document.addEventListener("keydown", onKey);
  document.addEventListener("focusin", (event) => {
    const element = event.target.closest(".field");
    typed = null;
    if (!element) return;
    if (event.target !== element && opened !== element) open(element, false);
    if (event.target === element && opened && opened !== element) shut(opened);
    pointOut(element);
  });
  $("form").addEventListener("submit", (event) => event.preventDefault());
  $("search").addEventListener("input", () => search(false));
  $("note").addEventListener("input", () => { draft.note = $("note").value; keep(); });
  $("save").addEventListener("click", save);
  $("accept-rest").addEventListener("click", acceptRest);
  $("previous").addEventListener("click", () => show(at - 1));
  $("next").addEventListener("click", () => show(at + 1));
  $("undo").addEventListener("click", undo);
  $("withdraw").addEventListener("click", withdraw);
  $("help-button").addEventListener("click", () => help(true));
  $("help-close").addEventListener("click", () => help(false));
  $("keys-on").addEventListener("change", () => {
    keysOn = $("keys-on").checked;
    try { localStorage.setItem("keys", keysOn ? "on" : "off"); } catch (error) { /* this tab only */ }
  });
  for (const [key, meaning] of KEYS) {
    $("keys").append(make("dt", {}, ...key.split(" ").flatMap((one) => [make("kbd", {}, one), " "])), make("dd", {}, meaning));
  }
}

async function start() {
  listen();
  keysOn = localStorage.getItem("keys") !== "off";
  $("keys-on").checked = keysOn;
  try {
    session = await api("session");
  } catch (error) {
    return say(error.message, true);
  }
  $("title").textContent = `Review of ${session.output}`;
  $("about").textContent = `${session.agent || ""} · saved to ${session.gold} as ${session.by}`;
  const kept = Number(sessionStorage.getItem("at" + token) || -1);
  const first = session.documents.findIndex((each) => !each.saved);
  await show(kept >= 0 && kept < session.documents.length ? kept : Math.max(first, 0));
}

start();
})();
