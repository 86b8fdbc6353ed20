# Functions: is that process still the one we started? A pid alone proves nothing: pids are reused, a zombie still
# answers kill -0, and a host may have been started anew in between.

boot_of_host() {
    echo "$(cat /proc/sys/kernel/random/boot_id 2>/dev/null || sysctl -n kern.boottime 2>/dev/null | tr -d ' ')-$(began_at 1)"
}

# The name in /proc/PID/stat may hold blanks and brackets, so count from behind its last bracket.
began_at() {
    if [ -r "/proc/$1/stat" ]; then
        sed 's/^.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20
    else
        ps -o lstart= -p "$1" 2>/dev/null | tr -d ' '
    fi
}

# alive PID BEGAN
alive() {
    [ "$(began_at "$1")" = "$2" ] || return 1
    if [ -r "/proc/$1/stat" ]; then
        case $(sed 's/^.*) //' "/proc/$1/stat" 2>/dev/null) in '' | [ZXx]*) return 1 ;; esac
    else
        case $(ps -o stat= -p "$1" 2>/dev/null) in '' | Z*) return 1 ;; esac
    fi
}
