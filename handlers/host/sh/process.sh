# Functions: is that process still the one we started? A pid alone proves nothing: pids are reused, a zombie still
# answers kill -0, and a host may have been started anew in between. Built-in words only where /proc is: forks are
# what a look costs.

# look_at PID: sets $stood (its state, nothing when it is gone) and $began (when it began)
look_at() {
    stood='' began=''
    if [ -d /proc/self ]; then
        # The name in there may hold blanks and brackets, so count from behind its last bracket.
        read -r line 2>/dev/null <"/proc/$1/stat" || return 0
        set -- ${line##*) }
        stood=$1 began=${20}
    else
        began=$(ps -o lstart= -p "$1" 2>/dev/null | tr -d ' ')
        stood=$(ps -o stat= -p "$1" 2>/dev/null)
    fi
}

# Sets $boot. In a container the kernel's id stays, but its first process is another one.
look_at_boot() {
    read -r boot 2>/dev/null </proc/sys/kernel/random/boot_id || boot=$(sysctl -n kern.boottime 2>/dev/null | tr -d ' ')
    look_at 1
    boot=$boot-$began
}

# alive PID BEGAN
alive() {
    look_at "$1"
    [ "$began" = "$2" ] || return 1
    case $stood in '' | [ZXx]*) return 1 ;; esac
}
