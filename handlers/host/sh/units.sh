# Stop or restart units in parallel, and check each afterwards: the service manager's exit status is not reliable.
# The caller defines `service` and `service_show`, because the service manager is configurable.
# $1 stop or restart, then the units
verb=$1
shift
for unit; do
    # Manual restarts count towards systemd's start limit: a crash loop would use up the restarts of a rollback.
    [ "$verb" = stop ] || service reset-failed "$unit" 2>/dev/null
    service "$verb" "$unit" &
done
wait
bad=0
for unit; do
    state=$(service_show "$unit")
    case $state in *ActiveState=*) state=${state##*ActiveState=} state=${state%%[!a-z]*} ;; *) state='' ;; esac
    case $verb-$state in
    stop-inactive | stop-failed | restart-active | restart-activating | restart-reloading) ;;
    *)
        printf '%s\n' "after $verb the unit $unit is ${state:-unknown to the service manager}"
        bad=82
        ;;
    esac
done
exit "$bad"
