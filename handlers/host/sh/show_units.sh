# show_units UNIT…: a part for each unit, with what the service manager says and its main process. The caller defines
# `service_show`. A pid is used again, so the process is named with its start and the boot as well.
part() { printf '\001%s\n' "$1"; }
show_units() {
    read_boot
    for unit; do
        part "unit $unit"
        shown=$(service_show "$unit" 2>&1)
        printf '%s\n' "$shown"
        pid=${shown##*MainPID=} pid=${pid%%[!0-9]*}
        [ "${pid:-0}" = 0 ] || { read_process "$pid"; printf 'Process=%s\n' "$boot $pid $start_time"; }
    done
}
