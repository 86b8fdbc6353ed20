# Print the errors of a unit's log; changes nothing. The caller defines `log_since SINCE UNTIL CURSOR`.
# $1 the age in seconds from which on, $2 up to which age, or nothing, $3 the cursor to go on after, or the Unix time up to
# which a log without cursors was read, or nothing, $4 kinds, $5 characters of a line
now=$(date +%s)
since=$((now - $1)) until=${2:+$((now - $2))} read=$3
part clock; echo "$now"
if [ -n "$by_cursor" ]; then
    # To the end of that second.
    until=${until:+$((until + 1))}
else
    # The present second is not over: it is read the next time.
    [ -n "$until" ] && [ "$until" -lt "$now" ] || until=$((now - 1))
    [ -z "$read" ] || since=$((read + 1))
    [ "$since" -le "$until" ] || { part until; echo "${read:-$until}"; exit 0; }
fi
faults=$(mktemp) || { part problem; echo "mktemp failed"; exit 0; }
trap 'rm -f "$faults" "$faults.rc"' EXIT
{ log_since "$since" "$until" "$read" 2>"$faults" || printf '%s\n' "$?" >>"$faults.rc"; } | errors_in "$4" "$5" 0 0
part until; echo "$until"
part status; cat "$faults.rc" 2>/dev/null
part stderr; head -c 2000 "$faults" | tr -d '\000\001'
exit 0
