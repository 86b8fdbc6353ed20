# Cancel an operation: SIGTERM, then SIGKILL after five seconds. Units that it started keep running.
# $1 state directory, $2 operation id
job=$1/jobs/$2
[ -d "$job" ] && [ ! -f "$job/rc" ] || exit 0
: >"$job/cancelled"
[ -f "$job/work.pid" ] || exit 0
read -r pid since <"$job/work.pid"
for signal in TERM KILL; do
    tries=0
    while alive "$pid" "$since" && [ "$tries" -lt 50 ]; do
        [ "$tries" -gt 0 ] || kill -s "$signal" -- "-$pid" 2>/dev/null || kill -s "$signal" "$pid" 2>/dev/null
        tries=$((tries + 1))
        sleep 0.1
    done
done
