# Fetch a revision to the host and check that the switch to it can work. The running tree is not changed.
# $1 tree, $2 revision, $3 remote, $4 branch, $5 forward or back, then the hooks
tree=$1 sha=$2 remote=$3 branch=$4 direction=$5
shift 5
open_repository
clear_locks
[ "$direction" = back ] || refuse_damaged_index
# A rollback must not depend on the remote.
if [ "$direction" = forward ] || ! git_here cat-file -e "$sha^{commit}" 2>/dev/null; then
    fetch
    on_branch
fi
# A tree that our interrupted switch left half-way is not refused: the next switch fixes it.
if [ "$direction" = forward ] && [ ! -f "$RUNBOOK_STATE/switching" ]; then
    refuse_submodules
    check_free_space
    git_here diff --stat HEAD
    git_here diff HEAD | head -c 4000
    refuse_changes "$tree" HEAD
    refuse_obstacles
fi
# Forward always, so that a revision whose files cannot be written exactly is refused before the workers stop.
if [ "$#" -gt 0 ] || [ "$direction" = forward ]; then
    export_to "$RUNBOOK_STATE/trees/$sha"
    (hooks "$RUNBOOK_STATE/trees/$sha" "$@")
    status=$?
    rm -rf "$RUNBOOK_STATE/trees"
    [ "$status" = 0 ] || exit "$status"
fi
say "$sha is present"
