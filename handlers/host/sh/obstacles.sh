# Functions: what on this host stands in the way of a switch to a revision ($sha). A switch that fails half-way, or that
# overwrites a file which nobody has elsewhere, begins after the workers have stopped: so all of it is looked for before.

# refuse_changes FOLDER REVISION: a switch would lose the local changes
refuse_changes() {
    same_as "$1" "$2" "$RUNBOOK_STATE/index"
    case $? in
    0) ;;
    1) stop 65 "$1 has local changes (above): commit them at the origin or discard them, then try again" ;;
    *) stop 65 "$1 could not be compared with its commit (above; $(free_space))" ;;
    esac
}

# What runs, with the strategy `releases`. Its repository may lack a commit that another tool has deployed.
refuse_changed_release() {
    current=$(cat "$base/current/REVISION" 2>/dev/null)
    ! git_here cat-file -e "$current^{commit}" 2>/dev/null || refuse_changes "$base/current" "$current"
}

# With the strategy `releases` the switch is the rename of a link.
refuse_no_link() {
    [ -L "$base/current" ] || [ ! -e "$base/current" ] ||
        stop 65 "$base/current is no link, so it cannot be switched: move it to $base/releases, and link current to it"
    [ -w "$base" ] && [ -x "$base" ] || stop 65 "the SSH user cannot write to $base: let this user own it"
}

# Before the fetch, which reads the index too and would be blamed.
refuse_damaged_index() {
    answer=$(git_here ls-files 2>&1 >/dev/null) ||
        stop 65 "the index of $tree is damaged ($answer): remove $git_folder/index and run git reset there"
}

# What a switch of the checkout would stumble over, or lose.
refuse_obstacles() {
    [ "$(git_here config --bool core.sparseCheckout)" != true ] ||
        stop 65 "$tree is a sparse checkout, so files of $sha would be missing: run git sparse-checkout disable there"
    refuse_staged
    refuse_untracked
    refuse_unwritable
}

# The switch refuses to lose them. Their content may be that of the commit, so comparing the files does not find them.
refuse_staged() {
    names=$(git_here diff --cached --ita-visible-in-index --name-only HEAD | head -n 5)
    [ -z "$names" ] || stop 65 "in $tree the index has changes that are not committed ($(echo $names)): \
commit them at the origin, or run git reset there"
}

# in_the_way FROM TO: the untracked files that a switch would overwrite or remove. git spares only those that no pattern
# of .gitignore matches, and these are mostly the settings and uploads that only this host has. A name is printed as it
# is, unless it has a quote, a backslash or a control character.
in_the_way() {
    {
        git_here -c core.quotePath=false diff --no-ext-diff --no-renames --name-only --diff-filter=A "$1" "$2" | sed 's/^/a/'
        git_here -c core.quotePath=false ls-files --others | sed 's/^/u/; s|/$||'
    } | awk '
        { name = substr($0, 2) }
        /^a/ { added[name]; while (sub(/\/[^\/]*$/, "", name)) above[name]; next }
        name in added || name in above { print name; next }
        { whole = name; while (sub(/\/[^\/]*$/, "", name)) if (name in added) { print whole; next } }'
}

# With a copy of the index, because even a dry run takes the lock of the index that it reads. The copy is refreshed: a
# tree that was copied or given to another user has other times, which git would take for changes.
refuse_untracked() {
    names=$(in_the_way HEAD "$sha" | head -n 5)
    [ -z "$names" ] ||
        stop 65 "untracked files in $tree are in the way of $sha ($(echo $names)): move them away, then try again"
    index=$RUNBOOK_STATE/index.now
    cp "$git_folder/index" "$index" || stop 65 "the index of $tree could not be read (above; $(free_space))"
    GIT_INDEX_FILE=$index git_here update-index -q --refresh >/dev/null 2>&1
    GIT_INDEX_FILE=$index git_here read-tree -m -u -n HEAD "$sha"
    status=$?
    rm -f "$index" "$index.lock"
    [ "$status" = 0 ] ||
        stop 65 "git would not switch $tree to $sha (above): discard local changes and move untracked files away, then try again"
}

# A folder of another user, or on a file system that is read-only.
refuse_unwritable() {
    names=$(cd "$tree" && git_here diff --no-ext-diff --no-renames --name-only -z HEAD "$sha" | xargs -0 sh -c '
        for name; do
            folder=./$name
            while folder=${folder%/*}; [ ! -d "$folder" ]; do :; done
            [ -w "$folder" ] && [ -x "$folder" ] || printf "%s\n" "${folder#./}"
        done' sh | sort -u | head -n 3)
    [ -z "$names" ] ||
        stop 65 "the SSH user cannot write to folders of $tree that $sha changes ($(echo $names)): let this user own them"
}
