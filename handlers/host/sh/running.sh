# Print the ids of the operations that run or wait for the host's lock, one on each line.
# $1 state directory
for job in "$1"/jobs/*; do
    [ -f "$job/pid" ] && [ ! -f "$job/rc" ] || continue
    read -r pid since booted <"$job/pid"
    read_boot
    [ "$boot" = "$booted" ] && alive "$pid" "$since" && printf '%s\n' "${job##*/}"
done
exit 0
