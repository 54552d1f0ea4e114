# Adds one line, which follows this script, to the authorized_keys of the user who runs it.
# It says "rbee-authorize 1" and how that went.
main() {
	LC_ALL=C
	export LC_ALL
	umask 077
	echo "rbee-authorize 1"
	fail() {
		[ -n "${new-}" ] && rm -f "$new"
		echo "failed $1"
		exit 1
	}
	IFS= read -r line || fail "no key came over the connection"
	# The second field of the key, behind its type: what makes it the same key.
	blob=$(printf '%s\n' "$line" | awk '{ for (i = 1; i < NF; i++) if ($i ~ /^(ssh-|ecdsa-|sk-)/) { print $(i + 1); exit } }')
	[ -n "$blob" ] || fail "the line holds no key"
	cd || fail "there is no home directory"
	if [ ! -d .ssh ]; then
		mkdir .ssh || fail "$HOME/.ssh cannot be made"
	fi
	file=.ssh/authorized_keys
	if [ -L "$file" ]; then # the link stays a link
		file=$(readlink -f "$file") || fail "the link .ssh/authorized_keys leads nowhere"
	fi
	if [ -e "$file" ]; then
		[ -f "$file" ] || fail "$file is not a regular file"
		[ -O "$file" ] || fail "$file belongs to another user"
		[ -w "$file" ] || fail "$file is read-only"
		if awk -v blob="$blob" '$1 !~ /^#/ { for (i = 1; i <= NF; i++) if ($i == blob) found = 1 } END { exit !found }' "$file"; then
			echo "present"
			exit 0
		fi
	fi
	new=$(mktemp "$file.XXXXXX") || fail "no file can be made beside $file"
	before=
	if [ -e "$file" ]; then
		cp -p "$file" "$new" || fail "$file cannot be copied"
		before=$(cksum <"$new")
		# Without its final newline the last key would be glued to the new one.
		[ -z "$(tail -c 1 "$new")" ] || echo >>"$new" || fail "the disk is full"
	fi
	printf '%s\n' "$line" >>"$new" || fail "the disk is full"
	now=
	[ -e "$file" ] && now=$(cksum <"$file")
	[ "$now" = "$before" ] || fail "$file was changed by somebody else meanwhile"
	mv -f "$new" "$file" || fail "$file cannot be replaced"
	echo "added"
}
main <<'END-OF-KEY'
