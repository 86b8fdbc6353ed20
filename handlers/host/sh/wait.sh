# Wait a moment for an operation to end and say where it stands; then the end of its output. Waiting here saves a
# round trip for each look.
# $1 state directory, $2 operation id, $3 how long in tenths of a second, $4 seal (it had its time to begin) or look
job=$1/jobs/$2
waited=0
while :; do
    if [ -f "$job/rc" ]; then
        read -r end <"$job/rc"
        stand="ended $end"
        break
    elif [ ! -d "$job" ]; then
        stand=absent
        break
    elif [ -f "$job/pid" ]; then
        read -r pid since booted <"$job/pid"
        stand=running
        look_at_boot
        if [ "$boot" != "$booted" ] || ! alive "$pid" "$since"; then
            [ -f "$job/rc" ] && continue
            stand=interrupted
            break
        fi
    elif [ "$4" = seal ]; then
        # If the folder can be made, the runner can no longer begin: then it is certain that nothing was done.
        if mkdir "$job/begun" 2>/dev/null; then
            printf 'never 0\n' >"$job/rc"
            continue
        fi
        sleep 1
        [ -f "$job/pid" ] && continue
        stand=interrupted
        break
    else
        stand=starting
    fi
    [ "$waited" -ge "$3" ] && break
    waited=$((waited + 1))
    sleep 0.1
done
printf '%s\n' "$stand"
[ ! -f "$job/output" ] || tail -c 65536 "$job/output"
