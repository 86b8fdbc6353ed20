# Check whether `prepare` would refuse a revision on this host. It changes nothing that runs and takes no lock: it works
# in a folder of its own, which it removes. Status 75: an operation of a release runs here.
# $1 strategy, $2 directory, $3 revision, $4 remote, $5 branch, $6 state directory, $7 timeout of the fetch in seconds, or
# nothing when the branch has just been fetched
strategy=$1 base=$2 sha=$3 remote=$4 branch=$5 state=$6 fetch_seconds=$7 direction=forward
tree=$base
[ "$strategy" = checkout ] || tree=$base/repository
for job in "$state"/jobs/*; do
    [ ! -f "$job/rc" ] && read -r pid since booted 2>/dev/null <"$job/pid" || continue
    if alive "$pid" "$since"; then
        stop 75 "the operation ${job##*/} runs on this host, so the tree was not checked"
    fi
done
open_repository
# Only this folder is private: what git fetches must stay readable for the service.
(umask 077 && mkdir -p "$state") && RUNBOOK_STATE=$(mktemp -d "$state/plan.XXXXXX") ||
    stop 65 "the SSH user cannot write to $state: see deploy.state_directory ($(df -Pk "$state" 2>/dev/null |
        awk 'NR == 2 { print $4 " KiB are free" }'))"
trap 'rm -rf "$RUNBOOK_STATE"' EXIT
trap 'exit 69' HUP INT PIPE TERM
# What a check that was killed has left behind.
find "$state" -maxdepth 1 -name 'plan.*' -mmin +1440 -exec rm -rf {} + 2>/dev/null

[ "$strategy" = releases ] || refuse_damaged_index
if [ -n "$fetch_seconds" ]; then
    ! command -v timeout >/dev/null 2>&1 || git_limit=$fetch_seconds
    fetch
    git_limit=''
fi
on_branch
target=$base/releases/$sha
if [ "$strategy" = checkout ]; then
    if [ ! -f "$state/switching" ]; then
        refuse_submodules
        check_free_space
        refuse_obstacles
    fi
    export_to "$RUNBOOK_STATE/trees/$sha"
else
    refuse_no_link
    refuse_changed_release
    if [ "$(cat "$target/REVISION" 2>/dev/null)" != "$sha" ]; then
        [ "$(readlink "$base/current")" != "releases/$sha" ] ||
            stop 65 "$base/current points to $target, which has no file REVISION: write its commit id into that file"
        refuse_submodules
        check_free_space
        export_to "$RUNBOOK_STATE/trees/$sha"
    fi
fi
say "$sha can be prepared"
