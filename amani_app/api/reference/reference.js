// Renders the OpenAPI document. Sends no request to another host, stores nothing, and inserts text
// as text nodes only, never as HTML.
"use strict";

const people = new Map();   // address -> token
const known = new Map();    // name of a path's parameter -> the latest id in a response
const versions = new Map(); // id of an escrow -> its latest ETag
let description;

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function resolve(schema) {
  const name = schema.$ref?.split("/").pop();
  return name ? { ...description.components.schemas[name], ...schema, $ref: undefined } : schema;
}

// A first value for a field: the example of the schema, else the smallest value that it allows.
function sample(given) {
  const schema = resolve(given);
  if (schema.examples) return schema.examples[0];
  if ("default" in schema) return schema.default;
  if ("const" in schema) return schema.const;
  if (schema.enum) return schema.enum[0];
  const either = schema.anyOf || schema.oneOf;
  if (either) return sample(either[0]);
  if (schema.type === "object") {
    const wanted = Object.entries(schema.properties || {});
    return Object.fromEntries(wanted.map(([name, each]) => [name, sample(each)]));
  }
  if (schema.type === "array") return [sample(schema.items)];
  if (schema.type === "integer") return schema.minimum ?? 0;
  return schema.type === "null" ? null : "";
}

function randomKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// A value for a parameter: the latest id of its kind, the latest version, or a new key.
function suggest(parameter, form) {
  if (parameter.name === "Idempotency-Key") return randomKey();
  if (parameter.name === "If-Match") {
    const escrow = form.elements.escrow || form.elements.dispute;
    return versions.get((escrow?.value || "").split(".")[0]) || "";
  }
  return known.get(parameter.name) || "";
}

function fillIn(form, parameters) {
  for (const parameter of parameters) {
    const input = form.elements[parameter.name];
    const own = parameter.in === "header" || !input.value;
    if (own) input.value = suggest(parameter, form) || input.value;
  }
}

function remember(path, body, etag) {
  if (body?.token && body.user) {
    people.set(body.user.email, body.token);
    const as = document.getElementById("as");
    const names = ["", ...people.keys()].map((each) =>
      element("option", { value: each, textContent: each || "no user" }));
    as.replaceChildren(...names);
    as.value = body.user.email;
  }
  for (const each of body?.items ? [...body.items].reverse() : [body]) {
    if (!each?.id) continue;
    const kind = path.split("/").pop().replace(/[{}]/g, "").replace(/s$/, "");
    const name = each.milestones ? "escrow" : kind;
    known.set(name, each.id);
    if (!each.milestones) continue;
    versions.set(each.id, etag || `"${each.version}"`);
    const open = each.milestones.find((one) => !["released", "refunded", "split"].includes(one.state));
    known.set("milestone", (open || each.milestones[0]).id);
    const disputed = each.milestones.find((one) => one.dispute_id);
    if (disputed) known.set("dispute", disputed.dispute_id);
  }
}

async function send(method, path, parameters, form, answers) {
  const headers = {}, query = new URLSearchParams();
  let target = path;
  for (const { name, in: where } of parameters) {
    const value = form.elements[name].value;
    if (where === "path") target = target.replace(`{${name}}`, encodeURIComponent(value));
    else if (value && where === "query") query.set(name, value);
    else if (value) headers[name] = value;
  }
  const token = people.get(document.getElementById("as").value);
  if (token) headers.Authorization = `Bearer ${token}`;
  const body = form.elements.body?.value;
  if (body) headers["Content-Type"] = "application/json";
  const answer = await fetch(query.size ? `${target}?${query}` : target, { method, headers, body });
  const text = await answer.text();
  let shown = text;
  try {
    const parsed = JSON.parse(text);
    shown = JSON.stringify(parsed, null, 2);
    if (answer.ok) remember(path, parsed, answer.headers.get("ETag"));
  } catch { /* not JSON: shown as it is */ }
  const headerLines = [...answer.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
  answers.replaceChildren(
    element("span", { className: `status ${answer.ok ? "good" : "bad"}`,
      textContent: `${answer.status} ${answer.statusText}` }),
    element("pre", { className: "body", textContent: shown }),
    element("pre", { className: "headers", textContent: headerLines }));
}

function field(name, words, input) {
  const title = element("span", {}, element("code", { textContent: name }));
  if (words) title.append(element("small", { textContent: words }));
  input.name = name;
  return element("label", { className: "field" }, title, input);
}

function parameterField(parameter) {
  const choices = parameter.schema.enum;
  const input = choices
    ? element("select", {}, ...["", ...choices].map((each) => element("option", { value: each, textContent: each })))
    : element("input", { required: parameter.required, autocomplete: "off" });
  return field(parameter.name, parameter.description || parameter.in, input);
}

function operationForm(method, path, operation, answers) {
  const parameters = operation.parameters || [];
  const form = element("form", {}, ...parameters.map(parameterField));
  const schema = operation.requestBody?.content["application/json"]?.schema;
  if (schema) {
    const value = JSON.stringify(sample(schema), null, 2);
    form.append(field("body", "JSON", element("textarea", { value, spellcheck: false })));
  }
  const button = element("button", { textContent: "Send" });
  form.append(button);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    answers.replaceChildren();
    try {
      await send(method, path, parameters, form, answers);
    } catch (error) {
      answers.replaceChildren(element("span", { className: "status bad", textContent: String(error) }));
    } finally {
      button.disabled = false;
      fillIn(form, parameters);
    }
  });
  return { form, fill: () => fillIn(form, parameters) };
}

function render(method, path, operation) {
  const answers = element("div", { className: "answers" });
  const { form, fill } = operationForm(method, path, operation, answers);
  const summary = element("summary", {},
    element("span", { className: `method ${method}`, textContent: method }),
    element("code", { textContent: path }),
    element("span", { className: "words", textContent: operation.summary }));
  const made = element("details", { id: operation.operationId }, summary, form, answers);
  made.addEventListener("toggle", () => made.open && fill());
  return made;
}

async function main() {
  description = await (await fetch("openapi.json")).json();
  const groups = new Map();
  for (const [path, methods] of Object.entries(description.paths)) {
    const group = path.split("/")[3];
    if (!groups.has(group)) groups.set(group, []);
    for (const [method, operation] of Object.entries(methods)) {
      groups.get(group).push([method.toUpperCase(), path, operation]);
    }
  }
  const shown = [], listed = [];
  for (const [group, operations] of groups) {
    shown.push(element("h2", { textContent: group }));
    listed.push(element("h2", { textContent: group }));
    for (const each of operations) {
      shown.push(render(...each));
      const link = element("a", { href: `#${each[2].operationId}`, textContent: each[2].summary });
      link.addEventListener("click", () => { document.getElementById(each[2].operationId).open = true; });
      listed.push(link);
    }
  }
  document.getElementById("operations").replaceChildren(...shown);
  document.getElementById("index").replaceChildren(...listed);
}

main().catch((error) => { document.getElementById("operations").textContent = String(error); });
