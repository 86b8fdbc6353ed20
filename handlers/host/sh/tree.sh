# Functions for the scripts that handle a git tree ($tree) and a revision ($sha). The caller defines `git_here`, git with
# all our options.

say() { printf '%s\n' "$*"; }

# stop STATUS SENTENCE: 65 the operator must act, 69 a retry may work, 80 a hook failed, 81 not verified, 82 a unit failed
stop() {
    status=$1
    shift
    say "$*"
    exit "$status"
}

write() { printf '%s\n' "$2" >"$1.tmp" && mv -f "$1.tmp" "$1"; }

open_repository() {
    [ -d "$tree" ] || stop 65 "there is no folder $tree: deploy.directory must name the checkout on the host"
    git_folder=$(git_here rev-parse --absolute-git-dir 2>&1) || stop 65 "$tree is no git repository: $git_folder"
}

# Does a git process run in this tree? One whose folder cannot be read counts too. Uses only shell built-ins until it
# finds a git process: there may be thousands of processes.
git_is_running() {
    if [ ! -d /proc/self ]; then
        ps -A -o comm= | grep -q '^git'
        return
    fi
    for process in /proc/[0-9]*; do
        { read -r name <"$process/comm"; } 2>/dev/null || continue
        case $name in git | git-*) ;; *) continue ;; esac
        where=$(readlink "$process/cwd" 2>/dev/null) || where=''
        { read -r line <"$process/stat"; } 2>/dev/null || continue
        case ${line##*) } in [ZXx]*) continue ;; esac
        case $where/ in / | "$real"/* | "$git_folder"/*) return 0 ;; esac
    done
    return 1
}

# A killed git leaves its lock files behind, and every later git refuses to run. They are removed only under the host's
# lock and while no git process runs in the tree.
clear_locks() {
    locks() { find "$git_folder" -maxdepth 1 -name '*.lock'; find "$git_folder/refs/remotes" -name '*.lock' 2>/dev/null; }
    [ -n "$(locks)" ] || return 0
    real=$(cd "$tree" && pwd -P)
    tries=0
    while git_is_running; do
        tries=$((tries + 1))
        [ "$tries" -lt 50 ] || stop 69 "another git process runs in $tree: wait for its end, or stop it"
        sleep 0.2
    done
    locks | while read -r lock; do
        say "removing $lock, left by a git process that is gone"
        rm -f "$lock"
    done
}

fetch() {
    git_here fetch --quiet "$remote" "+refs/heads/$branch:refs/remotes/$remote/$branch" ||
        stop 69 "cannot fetch $branch from $remote in $tree (see above)"
}

on_branch() {
    git_here cat-file -e "$sha^{commit}" 2>/dev/null ||
        stop 65 "revision $sha is not on $remote/$branch: push it first, or use another revision"
    git_here merge-base --is-ancestor "$sha" "refs/remotes/$remote/$branch" ||
        stop 65 "revision $sha exists but is not on $remote/$branch: merge it first, or use another revision"
}

# Compare the tree with a revision, file by file. It uses a new index: after a checkout that was killed or ran out of
# disk space `git status` is wrong, and files may be marked as assume-unchanged.
same_as() {
    index=$RUNBOOK_STATE/index
    rm -f "$index" "$index.lock"
    GIT_INDEX_FILE=$index git_here read-tree "$1" && GIT_INDEX_FILE=$index git_here update-index --refresh
    same=$?
    rm -f "$index"
    return "$same"
}

check_free_space() {
    needed=$(git_here ls-tree -r -l "$sha" | awk '{ bytes += $4 } END { print int(bytes / 512) + 1024 }')
    free=$(df -Pk "$tree" | awk 'NR == 2 { print $4 }')
    [ "$free" -ge "$needed" ] ||
        stop 65 "only $free KiB are free in $tree and the switch needs $needed (twice the tree): free some space first"
}

# Without a pipe, which would lose the exit status of git archive.
export_to() {
    rm -rf "$1" "$1.tar" && mkdir -p "$1" && git_here archive -o "$1.tar" "$sha" && tar -xf "$1.tar" -C "$1" &&
        rm -f "$1.tar" || stop 81 "cannot write the tree of $sha to $1"
}

# hooks FOLDER COMMAND…
hooks() {
    folder=$1
    shift
    for hook; do
        say "hook: $hook"
        (cd "$folder" && REVISION=$sha RUNBOOK_DIRECTION=$direction sh -c "$hook") ||
            stop 80 "the hook failed with status $?: $hook"
    done
}
