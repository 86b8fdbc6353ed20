# Stop or restart units, all at once, and look at each afterwards: the manager's own exit status proves little.
# `service` and `service_show` are defined by the caller, because each place has its own manager.
# $1 stop or restart, then the units
verb=$1
shift
for unit; do
    # Manual restarts count in the start limit: without this a crash loop spends the budget that a rollback needs.
    [ "$verb" = stop ] || service reset-failed "$unit" 2>/dev/null
    service "$verb" "$unit" &
done
wait
bad=0
for unit; do
    stand=$(service_show "$unit")
    case $stand in *ActiveState=*) stand=${stand##*ActiveState=} stand=${stand%%[!a-z]*} ;; *) stand='' ;; esac
    case $verb-$stand in
    stop-inactive | stop-failed | restart-active | restart-activating | restart-reloading) ;;
    *)
        printf '%s\n' "after $verb the unit $unit is ${stand:-unknown to the service manager}"
        bad=82
        ;;
    esac
done
exit "$bad"
