# Export a revision to a separate folder, next to the running one. The file REVISION is written last: a folder with it
# is complete.
# $1 folder of the releases strategy, $2 revision, $3 remote, $4 branch, $5 forward or back, then the hooks
tree=$1/repository sha=$2 remote=$3 branch=$4 direction=$5 base=$1
shift 5
target=$base/releases/$sha
if [ "$direction" = back ] && [ "$(cat "$target/REVISION" 2>/dev/null)" = "$sha" ]; then
    say "$sha is present"
    exit 0
fi
open_repository
clear_locks
if [ "$direction" = forward ] || ! git_here cat-file -e "$sha^{commit}" 2>/dev/null; then
    fetch
    on_branch
fi
if [ "$direction" = forward ]; then
    refuse_no_link
    refuse_changed_release
    # What runs was compared just now. A copy from an earlier release may have been edited since.
    if [ "$current" != "$sha" ] && [ -f "$target/REVISION" ] && ! same_as "$target" "$sha" "$RUNBOOK_STATE/index"; then
        say "files in $target were changed on this host (above): it is exported again"
        rm -f "$target/REVISION"
    fi
fi
if [ "$(cat "$target/REVISION" 2>/dev/null)" != "$sha" ]; then
    [ "$(readlink "$base/current")" != "releases/$sha" ] ||
        stop 65 "$base/current points to $target, which has no file REVISION: write its commit id into that file"
    [ "$direction" = back ] || {
        refuse_submodules
        check_free_space
    }
    rm -rf "$target" "$base"/releases/.new.*
    export_to "$base/releases/.new.$sha"
    mv "$base/releases/.new.$sha" "$target" || stop 81 "cannot rename the new folder to $target"
    hooks "$target" "$@"
    [ "$direction" = back ] || [ "$#" = 0 ] || same_as "$target" "$sha" "$RUNBOOK_STATE/index" ||
        stop 65 "a hook changed files of the revision in $target (above): let before_activate write only files that git \
does not track, or use after_activate"
    sync -f "$base/releases" 2>/dev/null || sync
    write "$target/REVISION" "$sha" || stop 81 "cannot write $target/REVISION"
fi
if [ "$direction" = forward ]; then
    # What runs when a release begins has been verified: the clean-up keeps it, whatever is tried after it.
    running=$(basename "$(readlink "$base/current" 2>/dev/null)")
    [ -z "$running" ] || note verified "$running"
fi
say "$sha is present"
