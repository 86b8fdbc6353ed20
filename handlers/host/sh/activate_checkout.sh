# Switch the checkout that the units run from to a revision, and verify its content.
# $1 tree, $2 revision, $3 forward or back, then the hooks
tree=$1 sha=$2 direction=$3
shift 3
open_repository
clear_locks
from=$(git_here rev-parse HEAD) || stop 81 "cannot read the current revision of $tree: $from"
switching=$RUNBOOK_STATE/switching
# What a rollback overwrites. Nobody else may have it, so it stays: the folder of the operation does not.
lost=$RUNBOOK_STATE/lost/${RUNBOOK_JOB##*/}
if [ "$direction" = back ] && ! git_here ls-files >/dev/null 2>&1; then
    say "the index of $tree is damaged: it is made anew"
    rm -f "$git_folder/index"
    git_here read-tree --no-sparse-checkout "$from"
fi
if [ -f "$switching" ]; then
    # Remove files that only the interrupted switch added: they are untracked now, and Python could import them.
    interrupted=$(cat "$switching")
    if git_here cat-file -e "$interrupted^{commit}" 2>/dev/null; then
        (cd "$tree" && git_here diff --no-renames --name-only -z --diff-filter=A "$sha" "$interrupted" | xargs -0 rm -f --)
    fi
elif ! git_here diff --quiet HEAD; then
    git_here diff HEAD | head -c 4000
    [ "$direction" = back ] || stop 65 "$tree has local changes (above): commit them at the origin or discard them"
    if mkdir -p "$lost" && git_here diff HEAD >"$lost/changes.diff"; then
        say "the rollback overwrites local changes; they are saved in $lost/changes.diff"
    else
        say "the rollback overwrites local changes (above), which could not be saved ($(free_space))"
    fi
fi
if [ "$direction" = back ] && [ ! -f "$switching" ]; then
    # A rename, which needs no space.
    in_the_way "$from" "$sha" | while IFS= read -r name; do
        if mkdir -p "$(dirname "$lost/$name")" && mv -f "$tree/$name" "$lost/$name"; then
            say "$name was in the way of the rollback; it is in $lost"
        else
            say "$name is in the way of the rollback and could not be kept ($(free_space)); going on"
        fi
    done
fi
# Record the revision for a rollback before the first change. A rollback itself does not change it.
if [ "$direction" = forward ] && [ "$from" != "$sha" ]; then
    note previous "$from"
fi
note switching "$sha"
switch() { git_here checkout --quiet --force --detach "$sha"; }
if ! switch && ! { [ "$direction" = back ] && rm -rf "$RUNBOOK_STATE/reserve" "$git_folder/index.lock" && switch; }; then
    # Where no file has changed, the workers may run again.
    ! same_as "$tree" "$from" "$RUNBOOK_STATE/index" || rm -f "$switching"
    stop 81 "the switch of $tree to $sha failed (see above; $(free_space))"
fi

same_as "$tree" "$sha" "$RUNBOOK_STATE/index"
same=$?
if [ "$same" = 1 ] && [ "$direction" = back ]; then
    # git was told not to look at some files, or to leave some out.
    with_index "$RUNBOOK_STATE/index" "$tree" read-tree --no-sparse-checkout "$sha"
    mkdir -p "$lost" && with_index "$RUNBOOK_STATE/index" "$tree" diff >>"$lost/changes.diff" &&
        say "the rollback overwrites these files; what was in them is saved in $lost/changes.diff"
    git_here read-tree --no-sparse-checkout "$sha" && git_here checkout-index --all --force --index
    same_as "$tree" "$sha" "$RUNBOOK_STATE/index"
    same=$?
fi
if [ "$same" = 2 ] && [ "$direction" = back ]; then
    say "the content of $tree could not be compared with $sha ($(free_space)); going on"
    same=0
fi
[ "$same" = 0 ] && [ "$(git_here rev-parse HEAD)" = "$sha" ] && git_here diff --quiet HEAD ||
    stop 81 "the content of $tree is not that of $sha (see above)"
note current "$sha"
rm -f "$switching" || stop 81 "cannot remove $switching"
hooks "$tree" "$@"
say "switched from $from to $sha"
