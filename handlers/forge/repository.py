"""The questions and changes of the repository on the forge, each one call or one list."""

from __future__ import annotations

from handlers.errors import Refused
from handlers.forge import answers
from handlers.forge.answers import (
    CheckRun,
    CommitStatus,
    Comparison,
    Merged,
    Pull,
    Ref,
    Repository,
    Review,
    Tree,
    WorkflowRun,
    parse,
)
from handlers.forge.calls import Calls, json_of
from handlers.forge.failures import Missing

READ_PULLS, WRITE_PULLS = "pull_requests: read", "pull_requests: write"
READ_CODE, WRITE_CODE = "contents: read", "contents: write"


async def look_at_repository(calls: Calls) -> Repository:
    """The repository itself: whether it is there, and what the token may do. Raises Missing."""
    response = await calls.call(
        calls.rest.repos.async_get, what="show the repository", needs="metadata: read"
    )
    return parse(Repository, json_of(response, calls.settings.host), calls.settings.host)


async def tip_of(calls: Calls, branch: str) -> str:
    """The commit that a branch points to; empty where there is no such branch. Raises Missing without a repository."""
    try:
        response = await calls.call(
            calls.rest.git.async_get_ref, f"heads/{branch}", what=f"show the branch {branch}", needs=READ_CODE
        )
    except Missing:
        # The same answer as for a repository that the token may not see: this call tells them apart.
        await look_at_repository(calls)
        return ""
    return parse(Ref, json_of(response, calls.settings.host), calls.settings.host).object.sha


async def tree_of(calls: Calls, commit: str) -> str:
    """The tree of a commit: two commits with one tree have the same files."""
    response = await calls.call(
        calls.rest.git.async_get_commit, commit, what=f"show the commit {commit[:7]}", needs=READ_CODE
    )
    return parse(Tree, json_of(response, calls.settings.host), calls.settings.host).tree.sha


async def compare(calls: Calls, base: str, head: str) -> Comparison:
    """What *head* has that *base* has not; all commits, and the first 300 files."""
    what = f"compare {base} with {head[:7]}"
    commits: list[answers.ComparedCommit] = []
    found: Comparison | None = None
    for page in range(1, 31):
        response = await calls.call(
            calls.rest.repos.async_compare_commits,
            f"{base}...{head}",
            what=what,
            needs=READ_CODE,
            page=page,
            per_page=100,
        )
        part = parse(Comparison, json_of(response, calls.settings.host), calls.settings.host)
        commits += part.commits
        # Only the first page has the files.
        found = found or part
        if 'rel="next"' not in response.headers.get("link", ""):
            return found.model_copy(update={"commits": tuple(commits)})
    raise Refused(f"{base} and {head[:7]} are more than 3000 commits apart: this is no pull request")


async def pulls_of_branch(calls: Calls) -> list[Pull]:
    """All pull requests from the head branch, open, closed and merged, newest first. Not those of forks."""
    found = await calls.pages(
        calls.rest.pulls.async_list,
        what="list the pull requests",
        needs=READ_PULLS,
        state="all",
        head=f"{calls.settings.owner}:{calls.settings.head_branch}",
        sort="created",
        direction="desc",
    )
    return list(parse(tuple[Pull, ...], found, calls.settings.host))


async def pulls_of_commit(calls: Calls, commit: str) -> list[Pull]:
    """The pull requests that brought a commit onto a branch, or contain it. None where the commit is unknown."""
    try:
        found = await calls.pages(
            calls.rest.repos.async_list_pull_requests_associated_with_commit,
            commit,
            what=f"list the pull requests of {commit[:7]}",
            needs=READ_PULLS,
        )
    except (Missing, Refused) as error:
        if isinstance(error, Missing) or "No commit found" in str(error):
            return []
        raise
    return list(parse(tuple[Pull, ...], found, calls.settings.host))


async def pull(calls: Calls, number: int) -> Pull:
    """A pull request with what is known about its merge."""
    response = await calls.call(
        calls.rest.pulls.async_get, number, what=f"show pull request {number}", needs=READ_PULLS
    )
    return parse(Pull, json_of(response, calls.settings.host), calls.settings.host)


async def create_pull(calls: Calls, base: str, title: str, body: str) -> Pull:
    """Open a pull request. Raises Exists where there is one already, and Unanswered."""
    response = await calls.call(
        calls.rest.pulls.async_create,
        what="open a pull request",
        needs=WRITE_PULLS,
        changes=True,
        title=title,
        head=calls.settings.head_branch,
        base=base,
        body=body,
    )
    return parse(Pull, json_of(response, calls.settings.host), calls.settings.host)


async def describe_pull(calls: Calls, number: int, title: str, body: str) -> None:
    """Write title and description anew. Doing it twice is harmless."""
    await calls.call(
        calls.rest.pulls.async_update,
        number,
        what=f"describe pull request {number}",
        needs=WRITE_PULLS,
        title=title,
        body=body,
    )


async def merge_pull(calls: Calls, number: int, head: str, title: str) -> Merged:
    """Merge a pull request, provided that its head is still this commit. Raises Conflict, and Unanswered."""
    response = await calls.call(
        calls.rest.pulls.async_merge,
        number,
        what=f"merge pull request {number}",
        needs=WRITE_CODE,
        changes=True,
        sha=head,
        merge_method=calls.settings.merge_method,
        **({} if calls.settings.merge_method == "rebase" else {"commit_title": title}),
    )
    return parse(Merged, json_of(response, calls.settings.host), calls.settings.host)


async def reviews(calls: Calls, number: int) -> list[Review]:
    """The reviews of a pull request, oldest first."""
    found = await calls.pages(
        calls.rest.pulls.async_list_reviews, number, what="list the reviews", needs=READ_PULLS
    )
    return list(parse(tuple[Review, ...], found, calls.settings.host))


async def check_runs(calls: Calls, commit: str) -> list[CheckRun]:
    """The newest run of each check of a commit."""
    found = await calls.pages(
        calls.rest.checks.async_list_for_ref,
        commit,
        what="list the checks",
        needs="checks: read",
        key="check_runs",
        filter_="latest",
    )
    return list(parse(tuple[CheckRun, ...], found, calls.settings.host))


async def statuses(calls: Calls, commit: str) -> list[CommitStatus]:
    """The newest status of each context of a commit."""
    found = await calls.pages(
        calls.rest.repos.async_get_combined_status_for_ref,
        commit,
        what="list the statuses",
        needs="commit statuses: read",
        key="statuses",
    )
    return list(parse(tuple[CommitStatus, ...], found, calls.settings.host))


async def workflow_runs(calls: Calls, commit: str) -> list[WorkflowRun]:
    """The runs of all workflows for a commit."""
    found = await calls.pages(
        calls.rest.actions.async_list_workflow_runs_for_repo,
        what="list the workflow runs",
        needs="actions: read",
        key="workflow_runs",
        head_sha=commit,
    )
    return list(parse(tuple[WorkflowRun, ...], found, calls.settings.host))
