"""A stand-in of GitHub on loopback: stateful, over a real bare repository, and judged by the published description.

A path that is not described, and a request or an answer that differs from the description, is a problem; the fixture
fails the test for each.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.integration.forge import openapi
from tests.integration.forge.bare import Bare

TOKEN = "a-token-of-the-tests"
REPOSITORY = "example-org/erp"
Reply = tuple[int, Any, dict[str, str]]


@dataclass(kw_only=True)
class Fault:
    """What happens instead of, or after, the right answer to the next calls of a kind."""

    method: str
    path: str
    """A pattern that is found in the path."""
    status: int = 0
    """0: the connection is cut, or never answered."""
    message: str = "no"
    headers: dict[str, str] = field(default_factory=dict)
    times: int = 1
    done: bool = False
    """Whether the call takes effect before its answer is lost."""
    silent_seconds: float = 0.0


@dataclass(kw_only=True)
class PullState:
    """A pull request of the stand-in."""

    number: int
    title: str
    body: str
    base: str
    branch: str
    head: str
    state: str = "open"
    draft: bool = False
    merged: str = ""
    """The commit of the merge."""
    unknown: int = 0
    """So many looks until it is known whether it can be merged."""
    blocked: bool = False


@dataclass
class StandIn:
    """The state of one repository on the forge."""

    bare: Bare
    pulls: list[PullState] = field(default_factory=list)
    reviews: list[dict[str, Any]] = field(default_factory=list)
    checks: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    statuses: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    hooks: list[tuple[str, str, int, Callable[[], None]]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    """`GET /path?query` of each request."""
    problems: list[str] = field(default_factory=list)
    page_size: int = 100
    """No page is longer, whatever is asked for."""
    lock: threading.RLock = field(default_factory=threading.RLock)
    url: str = ""
    served_304: int = 0
    archived: bool = False
    """Nothing can be merged any more."""

    # What a test does to it.

    def after(self, times: int, method: str, path: str, action: Callable[[], None]) -> None:
        """Let *action* happen before the answer to the call that follows so many of this kind."""
        self.hooks.append((method, path, self.count(method, path) + times, action))

    def count(self, method: str, path: str) -> int:
        """The calls of a kind."""
        return sum(1 for each in self.asked if each.startswith(f"{method} ") and re.search(path, each))

    def review(self, login: str, state: str, commit: str, association: str = "MEMBER") -> None:
        """A person reviews the newest pull request."""
        number = self.pulls[-1].number if self.pulls else 1
        self.reviews.append(
            {"number": number, "login": login, "state": state, "commit": commit, "association": association}
        )

    def run(self, commit: str, status: str, conclusion: str | None = None, **values: Any) -> None:
        """A run of the workflow `ci.yml`, or a change of the one with this id."""
        id_ = values.get("id", len(self.runs) + 100)
        self.runs = [each for each in self.runs if each["id"] != id_]
        found = {
            "id": id_,
            "name": "CI",
            "path": ".github/workflows/ci.yml",
            "event": "push",
            "run_number": id_,
        }
        self.runs.append({**found, "head_sha": commit, "status": status, "conclusion": conclusion, **values})

    def check(self, commit: str, name: str, conclusion: str | None) -> None:
        """A check of a commit; without a conclusion it runs."""
        kept = [each for each in self.checks.get(commit, []) if each["name"] != name]
        self.checks[commit] = [*kept, {"name": name, "conclusion": conclusion}]

    # What it answers.

    def answer(
        self, method: str, template: str, values: dict[str, str], query: dict[str, str], body: Any
    ) -> Reply:
        """The right answer."""
        if f"{values['owner']}/{values['repo']}" != REPOSITORY:
            return _error(404, "Not Found")
        name = f"{method} {template.removeprefix('/repos/{owner}/{repo}')}"
        match name:
            case "GET ":
                return (
                    200,
                    openapi.filled("full-repository", full_name=REPOSITORY, archived=self.archived),
                    {},
                )
            case "GET /git/ref/{ref}":
                return self._ref(values["ref"])
            case "GET /git/commits/{commit_sha}":
                return self._commit(values["commit_sha"])
            case "GET /compare/{basehead}":
                return self._compare(values["basehead"], query)
            case "GET /pulls":
                return self._page([self._pull(each, simple=True) for each in self._listed(query)], query)
            case "GET /commits/{commit_sha}/pulls":
                sha = values["commit_sha"]
                if not self.bare.has(sha):
                    return _error(422, f"No commit found for SHA: {sha}")
                found = [each for each in self.pulls if sha in (each.merged, each.head)]
                return self._page([self._pull(each, simple=True) for each in found], query)
            case "POST /pulls":
                return self._create(body)
            case "GET /commits/{ref}/check-runs":
                return self._page(
                    [_check_run(each) for each in self.checks.get(values["ref"], [])], query, "check_runs"
                )
            case "GET /commits/{ref}/status":
                return self._combined(values["ref"], query)
            case "GET /actions/runs":
                found = [_run(each) for each in self.runs if each["head_sha"] == query.get("head_sha")]
                return self._page(found, query, "workflow_runs")
        pull = next((each for each in self.pulls if str(each.number) == values.get("pull_number")), None)
        if pull is None:
            return _error(404, "Not Found")
        match name:
            case "GET /pulls/{pull_number}":
                return 200, self._pull(pull), {}
            case "PATCH /pulls/{pull_number}":
                pull.title, pull.body = body.get("title", pull.title), body.get("body", pull.body)
                return 200, self._pull(pull), {}
            case "GET /pulls/{pull_number}/reviews":
                found = [_review(each) for each in self.reviews if each["number"] == pull.number]
                return self._page(found, query)
            case _:
                return self._merge(pull, body)

    def _ref(self, ref: str) -> Reply:
        tip = self.bare.tip(ref.removeprefix("heads/"))
        if not tip:
            return _error(404, "Not Found")
        found = openapi.filled("git-ref", ref=f"refs/{ref}")
        found["object"] = {"type": "commit", "sha": tip, "url": "https://forge.example/x"}
        return 200, found, {}

    def _commit(self, sha: str) -> Reply:
        if not self.bare.has(sha):
            return _error(404, "Not Found")
        tree = {"sha": self.bare.tree(sha), "url": "https://forge.example/x"}
        return 200, openapi.filled("git-commit", sha=sha, tree=tree), {}

    def _compare(self, basehead: str, query: dict[str, str]) -> Reply:
        base, head = basehead.split("...")
        if not (self.bare.has(base) and self.bare.has(head)):
            return _error(404, "Not Found")
        ahead, behind = self.bare.count(base, head), self.bare.count(head, base)
        commits = []
        for sha, author, message in self.bare.log(base, head):
            commit = openapi.filled("commit", sha=sha)
            commit["commit"] = {**commit["commit"], "message": message, "author": {"name": author}}
            commits.append(commit)
        files = []
        for name, status, patch in self.bare.files(base, head):
            files.append(openapi.filled("diff-entry", filename=name, status=status, patch=patch, sha=head))
        status = (
            "identical"
            if not ahead + behind
            else "diverged"
            if ahead and behind
            else "ahead"
            if ahead
            else "behind"
        )
        _, page, headers = self._page(commits, query)
        found = openapi.filled(
            "commit-comparison", status=status, ahead_by=ahead, behind_by=behind, total_commits=ahead,
            commits=page, files=files,
        )  # fmt: skip
        return 200, found, headers

    def _listed(self, query: dict[str, str]) -> list[PullState]:
        branch = query.get("head", "").partition(":")[2]
        state = query.get("state", "open")
        found = [each for each in self.pulls if branch in ("", each.branch) and state in ("all", each.state)]
        return sorted(found, key=lambda each: -each.number)

    def _page(self, items: list[Any], query: dict[str, str], key: str = "") -> Reply:
        size = min(int(query.get("per_page", 30)), self.page_size)
        page = int(query.get("page", 1))
        part = items[(page - 1) * size : page * size]
        headers = {}
        if page * size < len(items):
            headers["link"] = f'<{self.url}/next?page={page + 1}>; rel="next", <{self.url}/last>; rel="last"'
        return 200, {"total_count": len(items), key: part} if key else part, headers

    def _combined(self, sha: str, query: dict[str, str]) -> Reply:
        found = [
            openapi.filled(
                "simple-commit-status", context=each["context"], state=each["state"], target_url=None
            )
            for each in self.statuses.get(sha, [])
        ]
        _, page, headers = self._page(found, query)
        body = openapi.filled(
            "combined-commit-status", sha=sha, state="pending", statuses=page, total_count=len(found)
        )
        return 200, body, headers

    def _create(self, body: dict[str, Any]) -> Reply:
        branch, base = body["head"].rpartition(":")[2], body["base"]
        if any(each.state == "open" and (each.branch, each.base) == (branch, base) for each in self.pulls):
            said = f"A pull request already exists for {REPOSITORY.partition('/')[0]}:{branch}."
            return _error(422, "Validation Failed", [said])
        head = self.bare.tip(branch)
        if not head or not self.bare.count(self.bare.tip(base), head):
            return _error(422, "Validation Failed", [f"No commits between {base} and {branch}"])
        number = len(self.pulls) + 1
        self.pulls.append(
            PullState(
                number=number,
                title=body["title"],
                body=body.get("body", ""),
                base=base,
                branch=branch,
                head=head,
            )
        )
        return 201, self._pull(self.pulls[-1]), {}

    def _merge(self, pull: PullState, body: dict[str, Any]) -> Reply:
        self._follow(pull)
        if pull.merged or pull.state != "open" or pull.draft or pull.blocked:
            return _error(405, "Pull Request is not mergeable")
        if body.get("sha", pull.head) != pull.head:
            return _error(409, "Head branch was modified. Review and try the merge again.")
        if not self.bare.trial(self.bare.tip(pull.base), pull.head):
            return _error(405, "Pull Request is not mergeable")
        assert body.get("merge_method") == "squash", body
        pull.merged = self.bare.squash(pull.base, pull.head, body["commit_title"])
        pull.state = "closed"
        return 200, {"sha": pull.merged, "merged": True, "message": "Pull Request successfully merged"}, {}

    def _follow(self, pull: PullState) -> None:
        if pull.state == "open":
            pull.head = self.bare.tip(pull.branch) or pull.head

    def _pull(self, pull: PullState, *, simple: bool = False) -> dict[str, Any]:
        self._follow(pull)
        kind = "pull-request-simple" if simple else "pull-request"
        page = f"https://forge.example/{REPOSITORY}/pull/{pull.number}"
        found = openapi.filled(
            kind, number=pull.number, html_url=page, state=pull.state, draft=pull.draft, title=pull.title,
            body=pull.body, merged_at="2026-11-01T09:00:00Z" if pull.merged else None,
        )  # fmt: skip
        found["head"] = {**found["head"], "ref": pull.branch, "sha": pull.head}
        base = self.bare.tip(pull.base)
        found["base"] = {**found["base"], "ref": pull.base, "sha": base}
        trial = "" if pull.merged else self.bare.trial(base, pull.head)
        found["merge_commit_sha"] = pull.merged or trial or None
        if simple:
            return found
        found["merged"] = bool(pull.merged)
        found["merged_by"] = openapi.filled("simple-user", login="merger") if pull.merged else None
        state = "blocked" if pull.blocked else "clean" if trial else "dirty"
        found |= {"mergeable": bool(trial), "mergeable_state": state}
        if pull.unknown and not pull.merged:
            pull.unknown -= 1
            found |= {"mergeable": None, "mergeable_state": "unknown", "merge_commit_sha": None}
        return found


def _error(status: int, message: str, errors: list[str] | None = None) -> Reply:
    body: dict[str, Any] = {"message": message, "documentation_url": "https://forge.example/docs"}
    if status == 422 and errors is not None:
        body["errors"] = [{"code": "custom", "message": each} for each in errors]
    return status, body, {}


def _review(each: dict[str, Any]) -> dict[str, Any]:
    found = openapi.filled(
        "pull-request-review",
        state=each["state"],
        commit_id=each["commit"],
        author_association=each["association"],
    )
    found["user"] = openapi.filled("simple-user", login=each["login"])
    return found


def _check_run(each: dict[str, Any]) -> dict[str, Any]:
    status = "completed" if each["conclusion"] else "in_progress"
    return openapi.filled(
        "check-run", name=each["name"], status=status, conclusion=each["conclusion"],
        html_url=f"https://forge.example/check/{each['name']}",
    )  # fmt: skip


def _run(each: dict[str, Any]) -> dict[str, Any]:
    return openapi.filled("workflow-run", **each, html_url=f"https://forge.example/run/{each['id']}")


@contextmanager
def serving(state: StandIn) -> Iterator[StandIn]:
    """The stand-in on a port of loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join(30)


def _handler(state: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *words: Any) -> None:
            """Nothing: pytest shows what a test needs."""

        def _serve(self) -> None:
            text = self.rfile.read(int(self.headers.get("content-length") or 0))
            parts = urlsplit(self.path)
            path, query = unquote(parts.path), dict(parse_qsl(parts.query))
            body = json.loads(text) if text else None
            with state.lock:
                state.asked.append(f"{self.command} {path}" + (f"?{parts.query}" if parts.query else ""))
                _run_hooks(state)
                fault = _fault(state, self.command, path)
                reply = None
                if fault is None or fault.done:
                    reply = self._judged(path, query, body)
            if fault is not None:
                self._fail(fault)
            elif reply is not None:
                self._send(*reply)

        def _judged(self, path: str, query: dict[str, str], body: Any) -> Reply:
            described = openapi.operation(self.command, path)
            if described is None:
                state.problems.append(f"{self.command} {path} is not described")
                return _error(404, "Not Found")
            template, operation, values = described
            where = f"{self.command} {path}"
            state.problems.extend(
                f"request {where}: {fault}"
                for fault in openapi.request_faults(operation, values, query, body)
            )
            if self.headers.get("x-github-api-version") != "2022-11-28":
                state.problems.append(f"request {where}: no version of the API")
            if self.headers.get("authorization") not in (f"Bearer {TOKEN}", f"token {TOKEN}"):
                return _error(401, "Bad credentials")
            try:
                status, answer, headers = state.answer(self.command, template, values, query, body)
            except Exception as error:
                state.problems.append(f"the stand-in failed at {where}: {error!r}")
                raise
            state.problems.extend(
                f"answer {status} to {where}: {fault}"
                for fault in openapi.answer_faults(operation, status, answer)
            )
            return status, answer, headers

        def _send(self, status: int, answer: Any, headers: dict[str, str]) -> None:
            text = json.dumps(answer).encode()
            tag = f'"{hashlib.sha256(text).hexdigest()}"'
            if status == 200 and self.headers.get("if-none-match", "") == tag:
                state.served_304 += 1
                self.send_response(304)
                self.send_header("etag", tag)
                self.end_headers()
                return
            (self.send_response_only if "date" in headers else self.send_response)(status)
            for name, value in {"content-type": "application/json; charset=utf-8", **headers}.items():
                self.send_header(name, value)
            if status == 200 and self.command == "GET":
                self.send_header("etag", tag)
                self.send_header("cache-control", "private, max-age=60, s-maxage=60")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def _fail(self, fault: Fault) -> None:
            if fault.silent_seconds:
                time.sleep(fault.silent_seconds)
            if not fault.status:
                # Reset, as a middlebox does it.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                self.connection.close()
                return
            self._send(*_error(fault.status, fault.message)[:2], fault.headers)

    for method in ("GET", "POST", "PUT", "PATCH"):
        setattr(Handler, f"do_{method}", Handler._serve)
    return Handler


def _run_hooks(state: StandIn) -> None:
    due = [each for each in state.hooks if state.count(each[0], each[1]) > each[2]]
    state.hooks = [each for each in state.hooks if each not in due]
    for _, _, _, action in due:
        action()


def _fault(state: StandIn, method: str, path: str) -> Fault | None:
    for fault in state.faults:
        if fault.method == method and re.search(fault.path, path):
            fault.times -= 1
            if not fault.times:
                state.faults.remove(fault)
            return fault
    return None


def reset_in(seconds: int) -> dict[str, str]:
    """The headers of a primary limit that ends in so many seconds of the forge's clock, which is an hour wrong."""
    now = time.time() + 3600
    return {
        "x-ratelimit-remaining": "0",
        "x-ratelimit-reset": str(int(now) + seconds),
        "date": formatdate(now, usegmt=True),
    }
