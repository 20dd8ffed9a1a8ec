"""Reads requests as gateways in Python do: Flask, Django, Django REST framework, Bottle and WebOb.

One batch a line comes in on standard input, {"kind": ..., "inputs": [...]}, and one line of as many answers goes out. A
kind is a function of KINDS; its answers are what its inputs are compared with (see reader.rs).
"""

import base64
import io
import json
import sys
import warnings
from urllib.parse import unquote_to_bytes

import bottle
import django
import flask
import webob
from django.conf import settings
from django.core.handlers.wsgi import WSGIRequest

warnings.simplefilter("ignore")
settings.configure(DEBUG=False, ALLOWED_HOSTS=["*"], INSTALLED_APPS=[], REST_FRAMEWORK={"UNAUTHENTICATED_USER": None})
django.setup()

from rest_framework.parsers import FormParser, JSONParser, MultiPartParser
from rest_framework.request import Request as RestRequest


from django.urls import Resolver404, URLResolver, path, re_path
from django.urls.resolvers import RegexPattern
from rest_framework.urlpatterns import format_suffix_patterns
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule


def environ(request):
    body = base64.b64decode(request["body"])
    made = {
        "REQUEST_METHOD": "POST", "SCRIPT_NAME": "", "PATH_INFO": "/pay", "SERVER_NAME": "gateway", "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.version": (1, 0), "wsgi.url_scheme": "http", "wsgi.errors": sys.stderr,
        "wsgi.multithread": False, "wsgi.multiprocess": False, "wsgi.run_once": False, "HTTP_HOST": "gateway",
        "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body)),
        # As servers hand it over: bytes as Latin-1 text.
        "QUERY_STRING": base64.b64decode(request["query"]).decode("latin-1"),
    }
    if request["content_type"] is not None:
        made["CONTENT_TYPE"] = request["content_type"]
    return made


def text(value):
    """A value as text, or None where there is none."""
    if value is None:
        return None
    # Half a surrogate pair is no text outside of Python.
    return (value if isinstance(value, str) else json.dumps(value)).encode("utf-8", "replace").decode()


def flat(pick, names):
    """The values under which a map of parameters has any of the names."""
    return [text(value) for value in map(pick, names) if value is not None]


def at(document, pointer):
    for token in pointer:
        if isinstance(document, dict):
            document = document.get(token)
        elif isinstance(document, list) and token.isdigit() and int(token) < len(document):
            document = document[int(token)]
        else:
            return None
    return document


def members(document, pointers):
    return [text(value) for value in (at(document, pointer) for pointer in pointers) if value is not None]


def body(document, wanted):
    """What Django REST framework's `data` is: a map of a form, or a JSON document."""
    if hasattr(document, "getlist"):
        return flat(document.get, wanted["form"])
    return members(document, wanted["json"])


def bottle_request(request):
    # Bottle takes every body that is not multipart for a form, JSON too. What it makes of that no rule means.
    if "json" in (request["content_type"] or ""):
        request = request | {"body": ""}
    return bottle.BaseRequest(environ(request))


# How each framework's request is made.
MAKE = {
    "flask": lambda request: flask.Request(environ(request)),
    "django": lambda request: WSGIRequest(environ(request)),
    "rest": lambda request: RestRequest(
        WSGIRequest(environ(request)), parsers=[JSONParser(), FormParser(), MultiPartParser()]
    ),
    "bottle": bottle_request,
    "webob": lambda request: webob.Request(environ(request)),
}

# Each accessor that a gateway's author may choose, and what is read from it for the wanted names.
ACCESSORS = {
    "flask.args": lambda request, wanted: flat(request.args.get, wanted["query"]),
    "flask.form": lambda request, wanted: flat(request.form.get, wanted["form"]),
    "flask.values": lambda request, wanted: flat(request.values.get, wanted["either"]),
    "flask.json": lambda request, wanted: members(request.get_json(silent=True), wanted["json"]),
    "django.GET": lambda request, wanted: flat(request.GET.get, wanted["query"]),
    "django.POST": lambda request, wanted: flat(request.POST.get, wanted["form"]),
    "rest.query_params": lambda request, wanted: flat(request.query_params.get, wanted["query"]),
    "rest.data": lambda request, wanted: body(request.data, wanted),
    "bottle.query": lambda request, wanted: flat(request.query.getunicode, wanted["query"]),
    "bottle.forms": lambda request, wanted: flat(request.forms.getunicode, wanted["form"]),
    "bottle.params": lambda request, wanted: flat(request.params.getunicode, wanted["either"]),
    "webob.params": lambda request, wanted: flat(request.params.get, wanted["either"]),
}


def fields(request):
    """For each accessor the values of each field; an accessor that refuses the request is left out."""
    read = {}
    made = {}
    for name, pick in ACCESSORS.items():
        framework = name.split(".")[0]
        try:
            if framework not in made:
                made[framework] = MAKE[framework](request)
            read[name] = {field: pick(made[framework], wanted) for field, wanted in request["wanted"].items()}
        except Exception:  # Whatever a framework raises is a 400 or a 500: no payment is made.
            pass
    return read


def handler(*_, **__):
    """Whatever a route runs."""


# The routes of routes.rs, by number.
FLASK = {
    "flask": Map([Rule("/v1/payments", endpoint=0), Rule("/v1/merchants/<m>/payments", endpoint=1)]),
    "flask not strict": Map(
        [Rule("/v1/payments", endpoint=0), Rule("/v1/merchants/<m>/payments", endpoint=1)], strict_slashes=False
    ),
}
PATHS = [path("v1/payments", handler, name="0"), path("v1/merchants/<str:m>/payments", handler, name="1")]
DJANGO = {
    "django": PATHS,
    "django re_path": [
        re_path(r"^v1/payments/?$", handler, name="0"), re_path(r"^v1/merchants/(?P<m>[^/]+)/payments/?$", handler, name="1")
    ],
    "rest format_suffix_patterns": format_suffix_patterns(PATHS),
}
DJANGO = {name: URLResolver(RegexPattern(r"^/"), patterns) for name, patterns in DJANGO.items()}


def routed(target):
    """The environment of a request, its path decoded by the server as WSGI wants it."""
    made = environ({"body": "", "query": "", "content_type": None})
    made["PATH_INFO"] = unquote_to_bytes(target.split("?")[0].split("#")[0]).decode("latin-1")
    return made


def routes(request):
    """For each router the number of the route that it runs and what that captured, or None."""
    run = {}
    for name, rules in FLASK.items():
        try:
            number, captured = rules.bind_to_environ(routed(request["path"])).match(method="POST")
            run[name] = [number, captured.get("m", "")]
        except HTTPException:  # Not found, or a redirect, which runs no handler.
            run[name] = None
    for name, resolver in DJANGO.items():
        try:
            match = resolver.resolve(WSGIRequest(routed(request["path"])).path_info)
            run[name] = [int(match.url_name), match.kwargs.get("m", "")]
        except Resolver404:
            run[name] = None
    return run


KINDS = {"fields": fields, "routes": routes}

for line in sys.stdin:
    batch = json.loads(line)
    kind = KINDS[batch["kind"]]
    print(json.dumps([kind(request) for request in batch["inputs"]]), flush=True)
