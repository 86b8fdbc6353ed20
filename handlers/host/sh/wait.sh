# Wait for an operation to end, with a timeout; print its state and the end of its output. Waiting on the host saves
# round trips.
# $1 state directory, $2 operation id, $3 timeout in tenths of a second, $4 seal (its time to start is over) or look
job=$1/jobs/$2
waited=0 naps=0
while :; do
    if [ -f "$job/rc" ]; then
        read -r end <"$job/rc"
        state="ended $end"
        break
    elif [ ! -d "$job" ]; then
        state=absent
        break
    elif [ -f "$job/pid" ]; then
        read -r pid since booted <"$job/pid"
        state=running
        read_boot
        if [ "$boot" != "$booted" ] || ! alive "$pid" "$since"; then
            [ -f "$job/rc" ] && continue
            state=interrupted
            break
        fi
    elif [ "$4" = seal ]; then
        # If the folder can be created, the runner can no longer start: it is certain that nothing was done.
        if mkdir "$job/begun" 2>/dev/null; then
            printf 'never 0\n' >"$job/rc"
            continue
        fi
        sleep 1
        [ -f "$job/pid" ] && continue
        state=interrupted
        break
    else
        state=starting
    fi
    [ "$waited" -ge "$3" ] && break
    # Many operations take less than a tenth of a second, others take minutes.
    if [ "$naps" -lt 5 ]; then
        naps=$((naps + 1))
        sleep 0.02
    elif [ "$waited" -ge 10 ] && [ "$3" -ge $((waited + 3)) ]; then
        waited=$((waited + 3))
        sleep 0.3
    else
        waited=$((waited + 1))
        sleep 0.1
    fi
done
printf '%s\n' "$state"
[ ! -f "$job/output" ] || tail -c 65536 "$job/output"
# A full disk loses the output of an operation, which would have said so.
case $state in
*' done '* | running | starting) ;;
*) df -Pk "$1" 2>/dev/null | awk 'NR == 2 && $4 < 64 { print "the disk with " $6 " is full: " $4 " KiB are free" }' ;;
esac
