# Export a revision to a folder of its own, beside the running one. A folder is whole exactly when it has REVISION.
# $1 folder of the releases strategy, $2 revision, $3 remote, $4 branch, $5 forward or back, then the hooks
tree=$1/repository sha=$2 remote=$3 branch=$4 way=$5 base=$1
shift 5
target=$base/releases/$sha
if [ "$way" = back ] && [ "$(cat "$target/REVISION" 2>/dev/null)" = "$sha" ]; then
    say "$sha is present"
    exit 0
fi
open_repository
clear_locks
if [ "$way" = forward ] || ! git_here cat-file -e "$sha^{commit}" 2>/dev/null; then
    fetch
    on_branch
fi
if [ "$(cat "$target/REVISION" 2>/dev/null)" != "$sha" ]; then
    [ "$(readlink "$base/current")" != "releases/$sha" ] ||
        stop 65 "$base/current points to $target, which has no REVISION: say what it is by writing that file"
    [ "$way" = back ] || room
    rm -rf "$target" "$base"/releases/.new.*
    export_to "$base/releases/.new.$sha"
    mv "$base/releases/.new.$sha" "$target" || stop 81 "cannot give $target its name"
    hooks "$target" "$@"
    sync -f "$base/releases" 2>/dev/null || sync
    write "$target/REVISION" "$sha" || stop 81 "cannot write $target/REVISION"
fi
say "$sha is present"
