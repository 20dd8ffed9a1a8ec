"""Checks answers against the schemas that the API's document gives them: validate.py DOCUMENT ANSWERS."""

import json
import sys

import jsonschema_rs

document = json.load(open(sys.argv[1], encoding="utf-8"))
failures = 0
for answer in json.load(open(sys.argv[2], encoding="utf-8")):
    operation = document["paths"][answer["path"]][answer["method"]]
    where = f"{answer['method']} {answer['path']} {answer['status']}"
    described = operation["responses"].get(str(answer["status"]))
    if described is None:
        failures += 1
        print(f"{where}: the status is not described")
        continue
    content = described.get("content", {})
    if answer["content_type"] is None and not content:
        continue
    if answer["content_type"] not in content:
        failures += 1
        print(f"{where}: {answer['content_type']} is not described")
        continue
    schema = {**content[answer["content_type"]]["schema"], "components": document["components"]}
    validator = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
    for error in validator.iter_errors(answer["body"]):
        failures += 1
        print(f"{where}: {'/'.join(map(str, error.instance_path))}: {error.message}")
sys.exit(1 if failures else 0)
