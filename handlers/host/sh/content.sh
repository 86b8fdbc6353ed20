# Functions: does a folder hold exactly the files of a revision? The caller defines $tree and `git_here`.

# with_index INDEX FOLDER GIT_WORDS…: git with an index of its own, and this folder as its work tree
with_index() {
    index=$1 folder=$2
    shift 2
    GIT_INDEX_FILE=$index git_here --work-tree="$folder" "$@"
}

# same_as FOLDER REVISION INDEX: compare the files, and print those that differ. The index is new: after a checkout that
# was killed or ran out of disk space `git status` is wrong, and files may be marked as assume-unchanged. In a release
# folder the file REVISION is ours. Status 2: it could not be compared; mostly there is no space for the index.
same_as() {
    rm -f "$3" "$3.lock"
    folder=$(cd "$1" && pwd -P) && with_index "$3" "$folder" read-tree --no-sparse-checkout "$2" || return 2
    changed=$(with_index "$3" "$folder" update-index --refresh)
    status=$?
    rm -f "$3" "$3.lock"
    if [ "$folder" != "$(cd "$tree" && pwd -P)" ] && [ "$status" = 1 ]; then
        changed=$(printf '%s\n' "$changed" | grep -v '^REVISION: needs update$')
        [ -n "$changed" ] || status=0
    fi
    [ -z "$changed" ] || printf '%s\n' "$changed"
    return "$status"
}
