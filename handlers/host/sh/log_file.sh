# Print what a log file has that is new; changes nothing. It is known by its inode, how far it was read, and a checksum
# of the bytes before that: a file that was emptied and has grown again has another one.
# $1 file, $2 inode, $3 bytes read, $4 checksum, $5 bytes to read at most, $6 kinds, $7 characters of a line, $8 first: the
# end of the file and of the one before it, with the last line of each kind; else what came since
file=$1 inode=$2 offset=$3 mark=$4 most=$5 kinds=$6 characters=$7 how=$8
mark_bytes=256 line_bytes=65536
case $file in '~/'*) file=$HOME/${file#'~/'} ;; esac
[ -e "$file" ] || { part problem; echo "there is no such file"; exit 0; }
[ -f "$file" ] || { part problem; echo "it is no regular file"; exit 0; }
[ -r "$file" ] || { part problem; echo "the SSH user may not read it"; exit 0; }
part clock; date '+%s %z'

inode_of() { ls -diL -- "$1" 2>/dev/null | awk 'NR == 1 { print $1 }'; }
# between FILE FROM BYTES
between() { tail -c +$(($2 + 1)) -- "$1" 2>/dev/null | head -c "$3"; }
# mark_of FILE OFFSET: the checksum of the bytes before the offset
mark_of() {
    mark_from=$(($2 > mark_bytes ? $2 - mark_bytes : 0))
    between "$1" "$mark_from" $(($2 - mark_from)) | cksum | awk '{ print $1 "-" $2 }'
}
# read_from FILE FROM: its errors from there to the end of its last whole line; sets $end
read_from() {
    size=$(wc -c <"$1") start=$2 skip=0
    size=$((size + 0))
    if [ $((size - start)) -gt "$most" ]; then
        [ "$how" = first ] || { part note; echo "$((size - start - most)) bytes were left out, it grows too fast"; }
        start=$((size - most)) skip=1
    fi
    bytes=$((size - start))
    [ "$bytes" -gt 0 ] || { end=$start; return 0; }
    # A line that is still being written is read when it is whole, unless it has become too long for that.
    if [ "$(between "$1" $((size - 1)) 1 | od -An -tx1 | tr -d ' \n')" != 0a ]; then
        rest=$(between "$1" "$start" "$bytes" | tail -n 1 | wc -c)
        rest=$((rest + 0))
        [ "$rest" -ge "$line_bytes" ] || bytes=$((bytes - rest))
    fi
    end=$((start + bytes))
    between "$1" "$start" "$bytes" | errors_in "$kinds" "$characters" "$skip" "$([ "$how" = first ] && echo 1 || echo 0)"
}
# moved: prints the path under which the file that was read so far is now, if it is still there
moved() {
    for other in "$file".* "$file"-*; do
        [ -f "$other" ] && [ -r "$other" ] && [ "$(inode_of "$other")" = "$inode" ] || continue
        [ "$(mark_of "$other" "$offset")" = "$mark" ] && { printf '%s\n' "$other"; return 0; }
    done
    # It was copied and emptied.
    [ "$offset" -gt 0 ] && [ -f "$file.1" ] && [ -r "$file.1" ] && [ "$(mark_of "$file.1" "$offset")" = "$mark" ] && printf '%s\n' "$file.1"
}

now=$(inode_of "$file") size=$(($(wc -c <"$file") + 0)) from=$offset
if [ "$how" = first ]; then
    former=$(ls -t -- "$file".[0-9]* "$file"-[0-9]* 2>/dev/null | grep -v -e '\.gz$' -e '\.xz$' -e '\.zst$' -e '\.bz2$' | head -n 1)
    [ -z "$former" ] || [ "$size" -ge "$most" ] || read_from "$former" 0
    from=0
elif [ -z "$inode" ]; then
    # It was not there before.
    from=0
elif [ "$now" != "$inode" ] || [ "$size" -lt "$offset" ] || [ "$(mark_of "$file" "$offset")" != "$mark" ]; then
    former=$(moved)
    if [ -n "$former" ]; then
        read_from "$former" "$offset"
    elif [ "$offset" -gt 0 ]; then
        part note; echo "it was replaced or emptied, and its former end is gone: that was not read"
    fi
    from=0
fi
read_from "$file" "$from"
part position
printf '%s %s %s\n' "$now" "$end" "$(mark_of "$file" "$end")"
exit 0
