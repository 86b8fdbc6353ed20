# Switch the tree that the units run from to a revision, and prove it by content.
# $1 tree, $2 revision, $3 forward or back, then the hooks
tree=$1 sha=$2 way=$3
shift 3
open_repository
clear_locks
from=$(git_here rev-parse HEAD) || stop 81 "cannot tell what $tree is on: $from"
switching=$RUNBOOK_STATE/switching
if [ -f "$switching" ]; then
    # Files that the interrupted switch brought and that nobody tracks now would stay and be imported.
    half=$(cat "$switching")
    if git_here cat-file -e "$half^{commit}" 2>/dev/null; then
        (cd "$tree" && git_here diff --no-renames --name-only -z --diff-filter=A "$sha" "$half" | xargs -0 rm -f --)
    fi
elif ! git_here diff --quiet HEAD; then
    git_here diff HEAD | head -c 4000
    [ "$way" = back ] || stop 65 "$tree has local changes (above): commit them at the origin or discard them"
    git_here diff HEAD >"$RUNBOOK_JOB/lost.diff" || stop 81 "cannot keep the local changes of $tree: nothing changed"
    say "local changes were in the way back; they are kept in $RUNBOOK_JOB/lost.diff"
fi
# Where this host can go back to, before the first change. Going back does not move it.
if [ "$way" = forward ] && [ "$from" != "$sha" ]; then
    write "$RUNBOOK_STATE/previous" "$from" || stop 81 "cannot write to $RUNBOOK_STATE: nothing changed"
fi
write "$switching" "$sha" || stop 81 "cannot write to $RUNBOOK_STATE: nothing changed"
git_here checkout --quiet --force --detach "$sha" || stop 81 "the switch of $tree to $sha failed (see above)"

same_as "$sha" && [ "$(git_here rev-parse HEAD)" = "$sha" ] && git_here diff --quiet HEAD ||
    stop 81 "$tree is not what $sha says it should be (see above)"
write "$RUNBOOK_STATE/current" "$sha" && rm -f "$switching" || stop 81 "cannot write to $RUNBOOK_STATE"
hooks "$tree" "$@"
say "switched from $from to $sha"
