# The detached runner of one operation: takes the host's lock, checks the fencing token, does the work, writes down
# what came of it. It is the only thing that writes the host's state file.
# $1 state directory, $2 operation id, $3 fencing token, $4 limit in seconds, $5 release id, $6 umask for the work
umask 077
state=$1 id=$2 token=$3 limit=$4 release=$5 mask=$6
job=$state/jobs/$id

# Whoever makes this folder decides: the runner by beginning, or a controller that gave up waiting by sealing.
mkdir "$job/begun" 2>/dev/null || exit 0

write() { printf '%s\n' "$2" >"$1.tmp" && mv -f "$1.tmp" "$1"; }
# What must be true after a power cut as well.
write_for_good() { printf '%s\n' "$2" >"$1.tmp" && { sync "$1.tmp" 2>/dev/null || sync; } && mv -f "$1.tmp" "$1"; }

finish() {
    write_for_good "$job/rc" "$1 $2" || { rm -f "$state/reserve" && write_for_good "$job/rc" "$1 $2"; }
    [ -f "$state/reserve" ] || dd if=/dev/zero of="$state/reserve" bs=4096 count=64 2>/dev/null
    # Once-only tokens are needed only as long as somebody may ask again: fifty operations back nobody does.
    ls -1t "$state/jobs" | tail -n +51 | while read -r old; do
        [ -f "$state/jobs/$old/rc" ] && rm -rf "$state/jobs/$old"
    done
    exit 0
}

look_at_boot
look_at $$
write "$job/pid" "$$ $began $boot"

lock() {
    if command -v flock >/dev/null 2>&1; then
        exec 9>>"$state/lock"
        flock -n 9
    elif mkdir "$state/lock.folder" 2>/dev/null; then
        look_at $$
        write "$state/lock.folder/pid" "$$ $began"
        trap 'rm -rf "$state/lock.folder"' EXIT
    else
        read -r holder since 2>/dev/null <"$state/lock.folder/pid" || return 1
        # Renaming is atomic: of several that find a dead holder only one takes its lock away.
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
[ "$token" -eq "$highest" ] || write_for_good "$state/token" "$token" || finish failed 74
[ -f "$job/cancelled" ] && finish cancelled 0

# Without its own session the work could not be ended as a whole; with the lock's descriptor a daemon that it starts
# would hold the lock for ever.
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
look_at "$work"
write "$job/work.pid" "$work $began"
wait "$work"
status=$?

word=done
[ "$status" -eq 0 ] || word=failed
[ "$status" -eq 124 ] && word=overdue
[ -f "$job/cancelled" ] && word=cancelled
value() {
    found=''
    read -r found 2>/dev/null <"$state/$1"
    case $found in *[!A-Za-z0-9._-]*) ;; *) printf '%s' "$found" ;; esac
}
write "$state/state.json" "$(printf '{"release": "%s", "current": "%s", "previous": "%s", "token": %s, "operation": "%s", "outcome": "%s", "exit_status": %s, "at": "%s"}' \
    "$release" "$(value current)" "$(value previous)" "$token" "$id" "$word" "$status" "$(date -u +%Y-%m-%dT%H:%M:%SZ)")"
finish "$word" "$status"
