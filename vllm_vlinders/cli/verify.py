"""``vlinders verify URL``: a live server really asks for a credential everywhere.

It sends requests that change nothing, even on a server that is open: GET, HEAD and OPTIONS alone. A
guarded server answers those with 401 before it looks for a route; an open one answers otherwise.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from vllm_vlinders.cli.output import print_json, print_table
from vllm_vlinders.settings import AuthSettings, load_settings, reveal
from vllm_vlinders.settings.auth import MODEL_PATHS

_TIMEOUT_SECONDS = 10
_OK, _UNAUTHORIZED, _FORBIDDEN, _SWITCHING = 200, 401, 403, 101
_METHODS = ("GET", "HEAD", "OPTIONS")
_OTHER_PATHS = (
    *("/", "/docs", "/redoc", "/openapi.json", "/metrics", "/version", "/load", "/ping", "/health"),
    *("/vlinders/status", "/vlinders/keys", "/vlinders/usage", "/vlinders/route"),
    *("/v1/load_lora_adapter", "/adapters"),
    *("/v1/unload_lora_adapter", "/inference/v1/generate", "/abort_requests", "/server_info", "/sleep"),
    *("/wake_up", "/is_sleeping", "/reset_prefix_cache", "/collective_rpc", "/scale_elastic_ep"),
    *("/tokenizer_info", "/start_profile", "/pause", "/resume", "/update_weights", "/no/such/route"),
)
_WRONG = (
    {"Authorization": "Bearer wrong"},
    {"Authorization": "Bearer vk_000000000000_" + "0" * 64},
    {"Authorization": "Bearer "},
    {"X-API-Key": "wrong"},
    {"Authorization": "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9."},
)
_WEB_SOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dmxpbmRlcnMtdmVyaWZ5IQ==",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be."""

    request: str
    found: str
    expected: str


class Server:
    """The server to verify, asked by requests whose paths go out as they are written."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise argparse.ArgumentTypeError(f"{url!r} is not a URL such as http://127.0.0.1:8000")
        self.prefix = parts.path.rstrip("/")
        self._address = parts.hostname, parts.port
        secure = parts.scheme == "https"
        self._kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection

    def ask(self, method: str, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, bytes, Any]:
        """Return status, body and headers of the answer.

        Raises:
            OSError: there is no answer.
        """
        connection = self._kind(*self._address, timeout=_TIMEOUT_SECONDS)
        try:
            connection.putrequest(method, self.prefix + path)
            for name, value in (headers or {}).items():
                connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
            upgraded = answer.status == _SWITCHING
            return answer.status, b"" if upgraded else answer.read(2**22), answer.headers
        except http.client.HTTPException as error:
            raise OSError(f"{type(error).__name__}") from None
        finally:
            connection.close()


def add_to(commands: Any) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser("verify", help="prove that a live server is closed")
    parser.add_argument("server", type=Server, metavar="URL", help="such as http://127.0.0.1:8000")
    parser.add_argument(
        "--key",
        metavar="REFERENCE",
        help="env:NAME or file:/path of an admin's key: then every route the server lists is tried, and its "
        "status is looked at",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Verify; 1 if anything is open, or the server does not answer."""
    open_paths = (load_settings().auth or AuthSettings()).open_paths
    key = None if arguments.key is None else reveal(arguments.key, "--key")
    if key is not None and key == arguments.key:
        print("vlinders: --key: give env:NAME or file:/path, not the key itself", file=sys.stderr)
        return 2
    server: Server = arguments.server
    asked: list[str] = []
    try:
        findings = list(examine(server, open_paths, key, asked))
    except OSError as error:
        findings = [Finding("any", f"no answer: {error}", "an answer")]
    if arguments.json:
        rows = [{"request": f.request, "found": f.found, "expected": f.expected} for f in findings]
        print_json({"closed": not findings, "requests": len(asked), "findings": rows})
    elif findings:
        print_table(
            [{"request": f.request, "found": f.found, "expected": f.expected} for f in findings],
            ("request", "found", "expected"),
        )
    else:
        print(f"closed: {len(asked)} requests without a good credential were all refused")
    return 1 if findings else 0


def examine(
    server: Server, open_paths: Iterable[str], key: str | None, asked: list[str]
) -> Iterator[Finding]:
    """Yield what is not as it should be; `asked` gets a line for each request."""
    opened = set(open_paths)
    paths = [*MODEL_PATHS, *_OTHER_PATHS]
    if key is not None:
        yield from _with_key(server, key, paths)
    for path in dict.fromkeys(path.replace("*", "x") for path in paths):
        for form in _forms(path):
            for method in _METHODS if form == path else ("GET",):
                if unquote(form.partition("?")[0]) not in opened:
                    yield from _refused(server, method, form, {}, asked)
    for headers in _WRONG:
        yield from _refused(server, "GET", "/v1/models", headers, asked)
    yield from _refused(server, "GET", "/v1/realtime", _WEB_SOCKET, asked)


def _forms(path: str) -> tuple[str, ...]:
    """Return ways to write `path` that a careless check takes for another, or for an open one."""
    encoded = "/%" + format(ord(path[1]), "02x") + path[2:] if len(path) > 1 else path
    return path, f"{path}/", f"/{path}", f"{path}?/health", f"/health/..{path}", f"{path};/health", encoded


def _refused(
    server: Server, method: str, path: str, headers: Mapping[str, str], asked: list[str]
) -> Iterator[Finding]:
    asked.append(path)
    status, _, _ = server.ask(method, path, headers)
    web_socket = "Upgrade" in headers
    if status != _UNAUTHORIZED and not (web_socket and status == _FORBIDDEN):
        what = "WEBSOCKET" if web_socket else method
        shown = f"{what} {path}" + (" with a wrong credential" if headers and not web_socket else "")
        yield Finding(shown, str(status), "401" if not web_socket else "401 or 403")


def _with_key(server: Server, key: str, paths: list[str]) -> Iterator[Finding]:
    """Yield what an admin finds; add the routes that the server lists to `paths`."""
    headers = {"Authorization": f"Bearer {key}"}
    status, body, _ = server.ask("GET", "/vlinders/status", headers)
    if status != _OK:
        yield Finding("GET /vlinders/status with --key", str(status), "200: the key of an admin")
        return
    report = json.loads(body)
    for name, found in report.get("auth", {"auth": "not configured"}).items():
        if isinstance(found, str) and found != "ok":
            yield Finding(f"status: {name}", found, "ok")
    for process in report["processes"]:
        for patch in process["patches"]:
            if patch["state"] in ("failed", "drifted", "off") and patch["required"]:
                yield Finding(f"patch {patch['patch']} in {process['name']}", patch["state"], "applied")
    status, body, _ = server.ask("GET", "/openapi.json", headers)
    if status == _OK:
        paths += [path.replace("{", "").replace("}", "") for path in json.loads(body)["paths"]]
