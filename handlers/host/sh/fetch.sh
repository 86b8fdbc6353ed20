# Fetch the released branch and the tags. Git's own error and status stay, except for a lock that is left in the way.
# $1 timeout in seconds, then the words of git
! command -v timeout >/dev/null 2>&1 || git_limit=$1
shift
# A shallow clone would not find older commits of the branch.
[ "$(git_here rev-parse --is-shallow-repository 2>/dev/null)" != true ] || set -- --unshallow "$@"
errors=$(git_here fetch --quiet --tags --force "$@" 2>&1) && exit
status=$?
case $errors in
*".lock': File exists"*)
    git_limit_before=$git_limit git_limit=''
    open_repository
    clear_old_locks
    git_limit=$git_limit_before
    git_here fetch --quiet --tags --force "$@"
    exit
    ;;
esac
printf '%s\n' "$errors" >&2
exit "$status"
