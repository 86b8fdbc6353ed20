# Make a prepared revision the current one with a single rename, so that `current` always exists.
# $1 folder of the releases strategy, $2 revision, $3 forward or back, then the hooks
base=$1 sha=$2 direction=$3 tree=$1/repository
shift 3
target=$base/releases/$sha
[ "$(cat "$target/REVISION" 2>/dev/null)" = "$sha" ] || stop 65 "$target is missing or incomplete: prepare it first"
# A rollback goes on with what is there: it is what ran before.
[ "$direction" = back ] || same_as "$target" "$sha" "$RUNBOOK_STATE/index" ||
    stop 65 "files in $target were changed after the preparation (above): nothing was switched"
from=$(basename "$(readlink "$base/current" 2>/dev/null)")
if [ "$direction" = forward ] && [ -n "$from" ] && [ "$from" != "$sha" ]; then
    note previous "$from"
fi
rm -f "$base/current.next"
ln -s "releases/$sha" "$base/current.next" ||
    { rm -rf "$RUNBOOK_STATE/reserve" && ln -s "releases/$sha" "$base/current.next"; } || stop 81 "cannot write to $base: nothing changed"
if [ "$direction" = back ] && [ -e "$base/current" ] && [ ! -L "$base/current" ]; then
    lost=$base/current.$(date +%s)
    mv "$base/current" "$lost" && say "$base/current was no link; it is in $lost"
fi
mv -fT "$base/current.next" "$base/current" 2>/dev/null || mv -fh "$base/current.next" "$base/current" ||
    stop 81 "cannot make $sha the current release"
[ "$(readlink "$base/current")" = "releases/$sha" ] || stop 81 "$base/current does not point to $sha"
note current "$sha"
hooks "$target" "$@"
# The running revision, the previous one, and the one that ran before the newest release are never removed.
previous=$(cat "$RUNBOOK_STATE/previous" 2>/dev/null)
verified=$(cat "$RUNBOOK_STATE/verified" 2>/dev/null)
ls -1t "$base/releases" | tail -n +6 | while read -r old; do
    case $old in "$sha" | "$from" | "$previous" | "$verified") ;; *) rm -rf "$base/releases/$old" ;; esac
done
say "switched from ${from:-nothing} to $sha"
