# Functions: the lines of a log that may be errors, each kind once, so that a chatty log costs few bytes on the way.
part() { printf '\001%s\n' "$1"; }

# errors_in KINDS CHARACTERS SKIP LAST: reads a log on stdin. For each kind of line that may be an error (its digits aside)
# it prints how often it is there and its first line, and with LAST the last one too, marked by a plus. At most KINDS
# kinds, and CHARACTERS of a line. SKIP is the number of lines left out at the start: a first line may be cut off.
# The cursor that journalctl prints at the end, and the number of lines, are parts of their own.
errors_in() {
    LC_ALL=C tr -d '\000\001' | LC_ALL=C awk -v kinds_max="$1" -v characters="$2" -v skip="$3" -v with_last="$4" '
        /^-- cursor: / { cursor = substr($0, 12); next }
        { lines++ }
        lines <= skip { next }
        /ERROR|CRITICAL|FATAL|PANIC|Error|Exception/ {
            line = substr($0, 1, 4 * characters)
            gsub(/\033\[[0-9;?]*[A-Za-z]/, "", line)
            gsub(/[\002-\010\013-\037\177]/, " ", line)
            line = substr(line, 1, characters)
            key = line
            gsub(/[0-9]+/, "0", key)
            if (!(key in count)) {
                if (kinds == kinds_max) { others++; next }
                order[++kinds] = key
                first[key] = line
            }
            count[key]++
            last[key] = line
        }
        END {
            print "\001errors"
            for (number = 1; number <= kinds; number++) {
                key = order[number]
                print count[key] "\t" first[key]
                if (with_last) print "+\t" last[key]
            }
            print "\001lines"
            print lines + 0
            print "\001others"
            print others + 0
            print "\001cursor"
            print cursor
        }'
}
