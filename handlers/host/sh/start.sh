# Start an operation detached from this connection, exactly once: only one mkdir of its folder succeeds. Prints `new` if
# this call started it, else `old`. A reserve is deleted on a full disk, so that a rollback can still start.
# $1 state directory, $2 operation id, $3 fencing token, $4 limit in seconds, $5 release id, $6 runner, $7 work
mask=$(umask)
umask 077
jobs=$1/jobs
job=$jobs/$2
[ -d "$jobs" ] || mkdir -p "$jobs" 2>/dev/null || { rm -rf "$1/reserve"; mkdir -p "$jobs"; } || exit 70
started=old
# A fenced operation never ran. With a token that is high enough now, it may run.
if read -r word highest 2>/dev/null <"$job/rc" && [ "$word" = fenced ] && [ "$3" -ge "$highest" ]; then
    mv "$job" "$job.$$.fenced" 2>/dev/null && rm -rf "$job.$$.fenced"
fi
if [ ! -d "$job" ]; then
    new=$job.$$
    stage() { mkdir "$new" && printf '%s\n' "$1" >"$new/run" && printf '%s\n' "$2" >"$new/work"; }
    stage "$6" "$7" 2>/dev/null || { rm -rf "$new" "$1/reserve"; stage "$6" "$7"; } || { rm -rf "$new"; exit 70; }
    # The files are complete before the folder has its final name, and only one caller can create that name.
    if mkdir "$job" 2>/dev/null; then
        mv "$new/run" "$new/work" "$job/" || exit 70
        rmdir "$new"
        started=new
        if command -v setsid >/dev/null 2>&1; then
            setsid sh "$job/run" "$1" "$2" "$3" "$4" "$5" "$mask" </dev/null >/dev/null 2>&1 &
        else
            (set -m; nohup sh "$job/run" "$1" "$2" "$3" "$4" "$5" "$mask" </dev/null >/dev/null 2>&1 &)
        fi
    else
        rm -rf "$new"
        # No other call was faster: there is no inode left.
        [ -d "$job" ] || {
            rm -rf "$1/reserve"
            echo "cannot create $job: the disk is full" >&2
            exit 70
        }
    fi
fi
printf '%s\n' "$started"
