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

# note NAME VALUE: write a file of the state directory. On the way back a full disk never stops the switch or the
# restart: the reserve is freed first, and what cannot be written is said.
note() {
    write "$RUNBOOK_STATE/$1" "$2" && return
    rm -rf "$RUNBOOK_STATE/reserve"
    write "$RUNBOOK_STATE/$1" "$2" && return
    [ "$direction" = back ] || stop 81 "cannot write to $RUNBOOK_STATE ($(free_space)): nothing changed"
    say "cannot write $1 to $RUNBOOK_STATE ($(free_space)); going on"
}

free_space() { df -Pk "$RUNBOOK_STATE" 2>/dev/null | awk 'NR == 2 { print $4 " KiB are free" }'; }

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
    [ -n "$(locks)" ] || return 0
    real=$(cd "$tree" && pwd -P)
    tries=0
    while git_is_running; do
        tries=$((tries + 1))
        [ "$tries" -lt 50 ] || stop 69 "another git process runs in $tree: wait for its end, or stop it"
        sleep 0.2
    done
    remove_locks
}

# Without the host's lock a new one may be of a git process that has just started: only old ones are removed.
clear_old_locks() {
    real=$(cd "$tree" && pwd -P)
    lock=$(locks | head -n 1)
    ! git_is_running || stop 69 "another git process runs in $tree and holds $lock: wait for its end, or stop it"
    lock=$(locks ! -mmin +1 | head -n 1)
    [ -z "$lock" ] ||
        stop 69 "a git process has left the lock $lock less than a minute ago: try again in a minute, or remove the file"
    remove_locks
}

# locks FIND_WORDS…: the lock files of git, which name a folder or a ref
locks() {
    find "$git_folder" -maxdepth 1 -name '*.lock' "$@"
    find "$git_folder/refs" -name '*.lock' "$@" 2>/dev/null
}

remove_locks() {
    locks | while read -r lock; do
        say "removing $lock, left by a git process that is gone"
        rm -f "$lock"
    done
}

# A shallow clone does not know which older commits are on the branch: it is completed.
fetch() {
    unshallow=''
    [ "$(git_here rev-parse --is-shallow-repository)" != true ] || unshallow=--unshallow
    for try in first second; do
        answer=$(git_here fetch --quiet $unshallow "$remote" "+refs/heads/$branch:refs/remotes/$remote/$branch" 2>&1)
        status=$?
        [ -z "$answer" ] || say "$answer"
        case $status-$try-$answer in
        0-*) return ;;
        124-*) stop 69 "cannot fetch $branch from $remote in $tree: the git server did not answer within $git_limit s" ;;
        *-first-*".lock': File exists"*) clear_old_locks ;;
        # Another fetch has just updated the branch.
        *-first-*"cannot lock ref"*) sleep 1 ;;
        *) stop 69 "cannot fetch $branch from $remote in $tree (see above)" ;;
        esac
    done
}

on_branch() {
    git_here cat-file -e "$sha^{commit}" 2>/dev/null ||
        stop 65 "revision $sha is not on $remote/$branch: push it first, or use another revision"
    git_here merge-base --is-ancestor "$sha" "refs/remotes/$remote/$branch" ||
        stop 65 "revision $sha exists but is not on $remote/$branch: merge it first, or use another revision"
}

check_free_space() {
    needed=$(git_here ls-tree -r -l "$sha" | awk '{ bytes += $4 } END { print int(bytes / 512) + 1024 }')
    free=$(df -Pk "$tree" | awk 'NR == 2 { print $4 }')
    [ "$free" -ge "$needed" ] ||
        stop 65 "only $free KiB are free in $tree and the switch needs $needed (twice the tree): free some space first"
    # Some file systems have no fixed number of inodes, and report none.
    inodes=$(df -Pi "$tree" 2>/dev/null | awk 'NR == 2 && $2 > 0 { print $4 }')
    files=$(git_here ls-tree -r -t "$sha" | awk 'END { print 2 * NR + 20 }')
    [ "${inodes:-$files}" -ge "$files" ] ||
        stop 65 "only $inodes inodes are free in $tree and the switch needs $files (twice the tree): remove some files first"
}

# A switch would leave the folder of a submodule as it is, and an export would leave it empty.
refuse_submodules() {
    submodules=$(git_here ls-tree -r "$sha" | awk '$2 == "commit" { print $4 }' | head -n 5)
    [ -z "$submodules" ] ||
        stop 65 "revision $sha has submodules, which are not deployed ($(echo $submodules)): add their files to the repository"
}

# Write a revision to a new folder and verify its content. git archive would obey export-ignore and export-subst, so
# that files were missing or had another text. A rollback goes on with what it had before, verified or not.
export_to() {
    index=$RUNBOOK_STATE/index.export
    rm -rf "$1" "$index" "$index.lock" && mkdir -p "$1" && GIT_INDEX_FILE=$index git_here read-tree --no-sparse-checkout "$sha" &&
        GIT_INDEX_FILE=$index git_here --work-tree="$1" checkout-index --all --force ||
        stop 81 "cannot write the tree of $sha to $1"
    GIT_INDEX_FILE=$index git_here --work-tree="$1" update-index --refresh || [ "$direction" = back ] || {
        rm -rf "$1"
        stop 65 "once written, files of $sha differ from its commit (above): git's line endings or filters change them. \
Run git add --renormalize . and commit, or correct .gitattributes"
    }
    rm -f "$index"
    [ "$direction" = back ] || refuse_lfs_pointers "$1"
}

# Without git-lfs on the host git writes the pointer instead of the file, and takes that for right.
refuse_lfs_pointers() {
    git_here grep -lI '^version https://git-lfs' "$sha" -- | while IFS= read -r name; do
        head -c 200 "$1/${name#"$sha:"}" 2>/dev/null | grep -q '^oid sha256:' && printf '%s\n' "${name#"$sha:"}"
    done >"$RUNBOOK_STATE/pointers"
    pointers=$(head -n 3 "$RUNBOOK_STATE/pointers")
    rm -f "$RUNBOOK_STATE/pointers"
    [ -z "$pointers" ] || {
        rm -rf "$1"
        stop 65 "git-lfs does not work on this host, so these are pointers instead of files ($(echo $pointers)): install it for the user"
    }
}

# hooks FOLDER COMMAND…
hooks() {
    folder=$1
    shift
    for hook; do
        say "hook: $hook"
        (cd "$folder" && REVISION=$sha RUNBOOK_DIRECTION=$direction sh -c "$hook") && continue
        failed="the hook failed with status $?: $hook"
        # The way back starts the previous revision all the same: its answer tells whether it works.
        [ "$direction" = back ] || stop 80 "$failed"
        say "$failed; going on"
    done
}
