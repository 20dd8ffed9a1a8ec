// Reads requests as gateways on Express do: its query parsers, its body parsers, and the maps that authors make of them.
//
// One batch a line comes in on standard input, {"kind": ..., "inputs": [...]}, and one line of as many answers goes out. A kind
// is a function of `kinds`; its answers are what its inputs are compared with (see reader.rs).

import {createRequire} from "node:module";
import {createInterface} from "node:readline";
import {Readable} from "node:stream";

// The packages lie where they were installed, not beside this file.
const require = createRequire(process.argv[2]);
const express = require("express");
const qs = require("qs");
const querystring = require("node:querystring");

const bodies = [express.json({type: ["json", "+json"]}), express.urlencoded({extended: true}), express.urlencoded({extended: false})];

// One parser's body of a request; undefined where it does not read it, or refuses it.
const parsed = (parser, request) => new Promise((resolve) => {
  const body = Buffer.from(request.body, "base64");
  const message = Readable.from([body]);
  message.headers = {"content-length": String(body.length)};
  if (request.content_type !== null) message.headers["content-type"] = request.content_type;
  message.method = "POST";
  parser(message, {}, (error) => resolve(error ? undefined : message.body));
});

// Half a surrogate pair is no text outside of JavaScript.
const text = (value) => (typeof value === "string" ? value : JSON.stringify(value)).replace(/\p{Surrogate}/gu, "\ufffd");

const at = (document, pointer) => pointer.reduce(
  (value, token) => (value !== null && typeof value === "object" && Object.hasOwn(value, token) ? value[token] : undefined), document);

const values = (document, pointers) => pointers.map((pointer) => at(document, pointer)).filter((value) => value !== undefined && value !== null).map(text);

// A name with brackets is a path in an extended map.
const paths = (names) => names.flatMap((name) => [[name], name.split(/[[\].]+/).filter((part) => part !== "")]);

const fields = async (request) => {
  const encoded = Buffer.from(request.query, "base64").toString("latin1");
  const query = {simple: querystring.parse(encoded), extended: qs.parse(encoded, {allowPrototypes: true})};
  const [json, extended, simple] = await Promise.all(bodies.map((parser) => parsed(parser, request)));
  const isJson = json !== undefined;
  const maps = {
    "express.query simple": [query.simple, "query"],
    "express.query extended": [query.extended, "query"],
    "express.json": [json, "json"],
    "express.urlencoded extended": [extended, "form"],
    "express.urlencoded simple": [simple, "form"],
    "express query over body": [{...(json ?? extended), ...query.extended}, "both"],
    "express body over query": [{...query.extended, ...(json ?? extended)}, "both"],
  };
  const read = {};
  for (const [name, [map, kind]] of Object.entries(maps)) {
    if (map === undefined || map === null) continue;
    read[name] = {};
    for (const [field, wanted] of Object.entries(request.wanted)) {
      const named = {query: paths(wanted.query), form: paths(wanted.form), json: wanted.json};
      named.both = [...paths(wanted.either), ...(isJson ? named.json : [])];
      read[name][field] = values(map, named[kind]);
    }
  }
  return read;
};

// The routes of routes.rs, by number, as a plain application has them.
const application = express();
for (const [number, path] of ["/v1/payments", "/v1/merchants/:m/payments"].entries()) {
  application.post(path, (request, response) => response.ran([number, request.params.m ?? ""]));
}

const routes = (request) => new Promise((resolve) => {
  const response = {ran: (route) => resolve({express: route}), setHeader() {}};
  application.handle({method: "POST", url: request.path, headers: {}}, response, () => resolve({express: null}));
});

const kinds = {fields, routes};

for await (const line of createInterface({input: process.stdin})) {
  const batch = JSON.parse(line);
  process.stdout.write(JSON.stringify(await Promise.all(batch.inputs.map(kinds[batch.kind]))) + "\n");
}
