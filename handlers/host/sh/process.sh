# Functions: is a process still the one we started? The pid alone is not enough: pids are reused, a zombie still answers
# kill -0, and the host may have been rebooted. With /proc they use only shell built-ins, because forks are slow.

# read_process PID: sets $process_state (empty when it is gone) and $start_time
read_process() {
    process_state='' start_time=''
    if [ -d /proc/self ]; then
        # The process name may contain spaces and brackets, so count the fields after its last bracket.
        read -r line 2>/dev/null <"/proc/$1/stat" || return 0
        set -- ${line##*) }
        process_state=$1 start_time=${20}
    else
        start_time=$(ps -o lstart= -p "$1" 2>/dev/null | tr -d ' ')
        process_state=$(ps -o stat= -p "$1" 2>/dev/null)
    fi
}

# Sets $boot. A restarted container keeps the kernel's boot id, so the start time of its process 1 is part of it.
read_boot() {
    read -r boot 2>/dev/null </proc/sys/kernel/random/boot_id || boot=$(sysctl -n kern.boottime 2>/dev/null | tr -d ' ')
    read_process 1
    boot=$boot-$start_time
}

# alive PID START_TIME
alive() {
    read_process "$1"
    [ "$start_time" = "$2" ] || return 1
    case $process_state in '' | [ZXx]*) return 1 ;; esac
}
