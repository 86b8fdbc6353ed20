# The detached runner of one operation: takes the host's lock, checks the fencing token, does the work and records the
# outcome. Only this script writes the host's state file.
# $1 state directory, $2 operation id, $3 fencing token, $4 limit in seconds, $5 release id, $6 umask for the work
umask 077
state=$1 id=$2 token=$3 limit=$4 release=$5 mask=$6
job=$state/jobs/$id

# mkdir is the atomic test-and-set: either the runner starts, or a controller that gave up waiting seals it.
# On a disk without inodes the reserve is freed for it.
mkdir "$job/begun" 2>/dev/null || { [ ! -d "$job/begun" ] && rm -rf "$state/reserve" && mkdir "$job/begun" 2>/dev/null; } || exit 0

write() { printf '%s\n' "$2" >"$1.tmp" && mv -f "$1.tmp" "$1"; }
# For what must survive a power failure.
write_durably() { printf '%s\n' "$2" >"$1.tmp" && { sync "$1.tmp" 2>/dev/null || sync; } && mv -f "$1.tmp" "$1"; }

# Enough bytes for git's index of a large tree, and enough inodes for the folders of four operations and git's own files:
# a rollback on a full disk frees them first.
make_reserve() {
    new=$state/reserve.new
    # Made beside its place: a reserve that a reboot cut short would look complete for ever.
    rm -rf "$new"
    mkdir "$new" && dd if=/dev/zero of="$new/bytes" bs=4096 count=1024 || return 1
    inode=0
    while [ "$inode" -lt 100 ]; do
        : >"$new/$inode" || return 1
        inode=$((inode + 1))
    done
    # An older version kept a file.
    [ ! -f "$state/reserve" ] || rm -f "$state/reserve"
    [ -d "$state/reserve" ] || mv "$new" "$state/reserve"
}

finish() {
    write_durably "$job/rc" "$1 $2" || { rm -rf "$state/reserve" && write_durably "$job/rc" "$1 $2"; }
    [ -d "$state/reserve" ] || make_reserve 2>/dev/null || rm -rf "$state/reserve.new"
    # A folder is needed only while a controller may repeat its operation. Fifty operations later none does.
    set -- "$state"/jobs/*
    [ "$#" -le 50 ] || ls -1t "$state/jobs" | tail -n +51 | while read -r old; do
        [ -f "$state/jobs/$old/rc" ] && rm -rf "$state/jobs/$old"
    done
    exit 0
}

# On a full disk the reserve is freed for what a controller must be able to read.
must_write() { write "$@" 2>/dev/null || { rm -rf "$state/reserve"; write "$@"; }; }

read_boot
read_process $$
must_write "$job/pid" "$$ $start_time $boot"

lock() {
    if command -v flock >/dev/null 2>&1; then
        exec 9>>"$state/lock"
        flock -n 9
    elif mkdir "$state/lock.folder" 2>/dev/null; then
        read_process $$
        write "$state/lock.folder/pid" "$$ $start_time"
        trap 'rm -rf "$state/lock.folder"' EXIT
    else
        read -r holder since 2>/dev/null <"$state/lock.folder/pid" || return 1
        # Renaming is atomic: of several runners that find a dead holder, only one removes its lock.
        if ! alive "$holder" "$since" && mv "$state/lock.folder" "$state/lock.dead.$$"; then
            rm -rf "$state/lock.dead.$$"
        fi
        return 1
    fi
}

waited=0
until lock; do
    [ -f "$job/cancelled" ] && finish cancelled 0
    [ "$waited" -ge $((limit * 5)) ] && finish busy 0
    waited=$((waited + 1))
    sleep 0.2
done

highest=''
read -r highest 2>/dev/null <"$state/token"
case $highest in '' | *[!0-9]*) highest=0 ;; esac
[ "$token" -lt "$highest" ] && finish fenced "$highest"
[ "$token" -eq "$highest" ] || write_durably "$state/token" "$token" ||
    { rm -rf "$state/reserve"; write_durably "$state/token" "$token"; } || finish failed 74
[ -f "$job/cancelled" ] && finish cancelled 0

# The work has its own session, so that it can be killed as a whole. It does not inherit the lock's descriptor: a daemon
# that it starts would hold the lock permanently.
set -- sh "$job/work"
command -v timeout >/dev/null 2>&1 && set -- timeout -k 5 "$limit" "$@"
command -v setsid >/dev/null 2>&1 && set -- setsid "$@"
: >"$job/output"
(
    umask "$mask"
    RUNBOOK_STATE=$state RUNBOOK_JOB=$job
    export RUNBOOK_STATE RUNBOOK_JOB
    exec "$@" </dev/null >"$job/output" 2>&1 9>&-
) &
work=$!
read_process "$work"
write "$job/work.pid" "$work $start_time"
wait "$work"
status=$?

word=done
[ "$status" -eq 0 ] || word=failed
[ "$status" -eq 124 ] && word=overdue
[ -f "$job/cancelled" ] && word=cancelled
value() {
    text=''
    read -r text 2>/dev/null <"$state/$1"
    case $text in *[!A-Za-z0-9._-]*) ;; *) printf '%s' "$text" ;; esac
}
must_write "$state/state.json" "$(printf '{"release": "%s", "current": "%s", "previous": "%s", "token": %s, "operation": "%s", "outcome": "%s", "exit_status": %s, "at": "%s"}' \
    "$release" "$(value current)" "$(value previous)" "$token" "$id" "$word" "$status" "$(date -u +%Y-%m-%dT%H:%M:%SZ)")"
finish "$word" "$status"
