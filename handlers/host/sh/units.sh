# Stop or restart units in parallel, and check each afterwards: the service manager's exit status is not reliable.
# The caller defines `service` and `service_show`, because the service manager is configurable.
# $1 stop or restart, $2 the seconds that a unit may take to stop, or nothing, then the units. After these seconds a stop
# goes on by itself, and a restart kills the unit. A start that takes as long again goes on by itself too.
verb=$1 patience=$2
shift 2
state_of() {
    state=$(service_show "$1")
    case $state in *ActiveState=*) state=${state##*ActiveState=} state=${state%%[!a-z]*} ;; *) state='' ;; esac
}
calls=''
for unit; do
    # Manual restarts count towards systemd's start limit: a crash loop would use up the restarts of a rollback.
    [ "$verb" = stop ] || service reset-failed "$unit" 2>/dev/null
    service "$verb" "$unit" &
    calls="$calls $!"
done
# In short sleeps: when the calls end first, this ends with its next one.
sleep_patiently() {
    slept=0
    while [ "$slept" -lt "$patience" ]; do
        sleep 1
        slept=$((slept + 1))
    done
}
be_patient() {
    sleep_patiently
    if [ "$verb" = restart ]; then
        for unit; do
            state_of "$unit"
            [ "$state" = deactivating ] || continue
            printf '%s\n' "$unit did not stop in time: killing it"
            # The unit comes first, so that sudo may allow `kill UNIT*`.
            service kill "$unit" --signal=KILL
        done
        sleep_patiently
    fi
    kill $calls 2>/dev/null
}
if [ -n "$patience" ]; then
    be_patient "$@" &
    watchdog=$!
fi
# The shell itself would report the callers that were killed.
{ wait $calls; } 2>/dev/null
[ -z "$patience" ] || kill "$watchdog" 2>/dev/null
bad=0
for unit; do
    state_of "$unit"
    case $verb-$state in
    stop-inactive | stop-failed | restart-active | restart-activating | restart-reloading) ;;
    stop-deactivating)
        printf '%s\n' "the unit $unit has not stopped yet"
        bad=82
        ;;
    *)
        printf '%s\n' "after $verb the unit $unit is ${state:-unknown to the service manager}"
        bad=82
        ;;
    esac
done
exit "$bad"
