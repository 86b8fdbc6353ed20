# Print the state of this host; changes nothing. Each part begins with \001 and a line with its name.
# $1 strategy, $2 directory, $3 state directory, $4 remote, $5 a revision to look for or nothing, $6 content (compare
# every file), index (believe git's index) or nothing, then the units
strategy=$1 base=$2 state=$3 remote=$4 sha=$5 how=$6
shift 6
part clock; date +%s.%N
part free; df -Pk "$base" 2>/dev/null | awk 'NR == 2 { print $4 }'
tree=$base folder=$base
[ "$strategy" = checkout ] || tree=$base/repository folder=$base/current
revision=''
if [ "$strategy" = checkout ]; then
    revision=$(git_here rev-parse --verify --quiet 'HEAD^{commit}' 2>/dev/null)
else
    revision=$(cat "$base/current/REVISION" 2>/dev/null)
fi
part problem
if [ ! -d "$base" ]; then
    printf '%s\n' "there is no folder $base"
elif ! command -v git >/dev/null 2>&1; then
    printf '%s\n' "git is not installed"
else
    answer=$(git_here rev-parse --git-dir 2>&1) || printf '%s\n' "$answer"
fi
part revision; printf '%s\n' "$revision"
part dirt
# show_changes GIT_WORDS…: the names of the changed files, then the start of the patch
show_changes() {
    "$@" diff --stat "$revision" 2>/dev/null | head -n 20
    "$@" diff "$revision" 2>/dev/null | head -c 4000
}
# A release folder may hold a commit that its repository gets only with the next fetch.
if [ "$how" = content ] && git_here cat-file -e "$revision^{commit}" 2>/dev/null && own=$(mktemp -d); then
    same_as "$folder" "$revision" "$own/index" >"$own/names" 2>&1 || {
        with_index "$own/index" "$folder" read-tree --no-sparse-checkout "$revision" 2>/dev/null
        changes=$(show_changes with_index "$own/index" "$folder")
        printf '%s\n' "${changes:-$(head -n 20 "$own/names")}"
    }
    rm -rf "$own"
elif [ "$how" = index ] && [ "$strategy" = checkout ]; then
    show_changes git_here
fi
part switching; [ "$strategy" = releases ] || cat "$state/switching" 2>/dev/null
# The address may contain a password.
part remote; git_here remote get-url "$remote" 2>/dev/null | sed 's|//[^/@]*@|//***@|'
part present
if [ -n "$sha" ]; then
    git_here cat-file -e "$sha^{commit}" 2>/dev/null || [ -f "$base/releases/$sha/REVISION" ] && echo yes
fi
show_units "$@"
part state; cat "$state/state.json" 2>/dev/null
# The operations that run or wait for the host's lock.
part running
for job in "$state"/jobs/*; do
    [ -f "$job/pid" ] && [ ! -f "$job/rc" ] || continue
    read -r pid since booted <"$job/pid"
    [ "$boot" = "$booted" ] && alive "$pid" "$since" && printf '%s\n' "${job##*/}"
done
part clock_end; date +%s.%N
exit 0
