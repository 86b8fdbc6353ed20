# Print the state of this host; changes nothing. Each part begins with \001 and a line with its name.
# $1 strategy, $2 directory, $3 state directory, $4 remote, $5 a revision to look for or nothing, then the units
strategy=$1 base=$2 state=$3 remote=$4 sha=$5
shift 5
part() { printf '\001%s\n' "$1"; }
part clock; date +%s
part free; df -Pk "$base" 2>/dev/null | awk 'NR == 2 { print $4 }'
tree=$base
[ "$strategy" = checkout ] || tree=$base/repository
part problem
if [ ! -d "$base" ]; then
    printf '%s\n' "there is no folder $base"
elif ! command -v git >/dev/null 2>&1; then
    printf '%s\n' "git is not installed"
else
    answer=$(git_here rev-parse --git-dir 2>&1) || printf '%s\n' "$answer"
fi
part revision
if [ "$strategy" = checkout ]; then
    git_here rev-parse --verify --quiet 'HEAD^{commit}' 2>/dev/null
    part dirt; git_here diff --stat HEAD 2>/dev/null | head -n 20; git_here diff HEAD 2>/dev/null | head -c 4000
else
    cat "$base/current/REVISION" 2>/dev/null
fi
part switching; [ "$strategy" = releases ] || cat "$state/switching" 2>/dev/null
# The address may contain a password.
part remote; git_here remote get-url "$remote" 2>/dev/null | sed 's|//[^/@]*@|//***@|'
part present
if [ -n "$sha" ]; then
    git_here cat-file -e "$sha^{commit}" 2>/dev/null || [ -f "$base/releases/$sha/REVISION" ] && echo yes
fi
part state; cat "$state/state.json" 2>/dev/null
for unit; do
    part "unit $unit"
    service_show "$unit" 2>&1
done
exit 0
